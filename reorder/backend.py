"""Builds ropeway-reorder (PEP 517): `tasks.reorder` alone, as plain Python that needs pydantic and nothing else.

    tasks/reorder/*.py                  ->  ropeway_reorder/*.py
    data_schemas/*.py that these use    ->  ropeway_reorder/contracts/*.py

The files are the same but for the names of the packages in them, so that it can be installed beside Ropeway, and beside an application
that has a `tasks` of its own. Building needs only the standard library.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import re
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "ropeway_reorder"
EXTRAS = ("langchain", "llama-index", "haystack", "served")
LEFT_OUT = {"candidates"}  # used only to measure which order is best, with numpy

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE if (_HERE / "tasks").is_dir() else _HERE.parent  # an unpacked source archive, or a checkout
_CONTRACTS = "contracts"
_PKG_INFO = "PKG-INFO"
_EPOCH = (2020, 1, 1, 0, 0, 0)  # equal sources give equal bytes
_SUMMARY = "Puts retrieved passages into the prompt order that a release of Ropeway was measured to answer best with."
_DESCRIPTION = f"""\
# ropeway-reorder

{_SUMMARY}

```python
from {NAME} import ChunkReorder

prompt_order = ChunkReorder.load("path/to/the/release").apply(passages_best_first)
```

`{NAME}.langchain`, `.llama_index` and `.haystack` are adapters. `{NAME}.summaries` summarises texts beyond any window; a
model behind a URL needs the extra `served`. The code is that of `tasks.reorder` in Ropeway.
"""


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Write the wheel and return its name. Equal sources give equal bytes."""
    about = metadata()
    name = f"{NAME}-{_version(about)}"
    folder = f"{name}.dist-info"
    files = package_files() | {
        f"{folder}/METADATA": about,
        f"{folder}/WHEEL": "Wheel-Version: 1.0\nGenerator: ropeway\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{folder}/licenses/LICENSE": (_ROOT / "LICENSE").read_text(encoding="utf-8"),
    }
    lines = [f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in files.items()]
    files[f"{folder}/RECORD"] = "".join([*lines, f"{folder}/RECORD,,\n"])
    wheel = f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            member = zipfile.ZipInfo(path, _EPOCH)
            member.external_attr = 0o100644 << 16
            archive.writestr(member, text.encode(), zipfile.ZIP_DEFLATED)
    return wheel


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """Write an archive from which the wheel can be built without the rest of the checkout, and return its name."""
    about = metadata()
    top = f"{NAME}-{_version(about)}"
    contents = {name: (_HERE / name).read_bytes() for name in ("pyproject.toml", "backend.py")}
    contents |= {str(path.relative_to(_ROOT)): path.read_bytes() for path in (*_modules().values(), *_contracts().values())}
    contents |= {"LICENSE": (_ROOT / "LICENSE").read_bytes(), _PKG_INFO: about.encode()}
    with tarfile.open(Path(sdist_directory) / f"{top}.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return f"{top}.tar.gz"


def package_files() -> Mapping[str, str]:
    """Every module of the package: its path in the wheel, and its text."""
    texts = {f"{NAME}/{stem}.py": path.read_text(encoding="utf-8") for stem, path in _modules().items()}
    texts |= {f"{NAME}/{_CONTRACTS}/{stem}.py": path.read_text(encoding="utf-8") for stem, path in _contracts().items()}
    texts[f"{NAME}/{_CONTRACTS}/__init__.py"] = '"""The files that Ropeway and this package share."""\n'
    return {path: _renamed(text) for path, text in sorted(texts.items())}


def metadata() -> str:
    """The METADATA file (https://packaging.python.org/en/latest/specifications/core-metadata), from Ropeway's own project file."""
    if (_HERE / _PKG_INFO).is_file():
        return (_HERE / _PKG_INFO).read_text(encoding="utf-8")
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pydantic,) = (needed for needed in project["dependencies"] if needed.startswith("pydantic"))
    needs = [f"Requires-Dist: {pydantic}\n"]
    for extra in EXTRAS:
        needs.append(f"Provides-Extra: {extra}\n")
        needs += [f'Requires-Dist: {needed}; extra == "{extra}"\n' for needed in project["optional-dependencies"][extra]]
    return (
        f"Metadata-Version: 2.4\nName: {NAME.replace('_', '-')}\nVersion: {project['version']}\nSummary: {_SUMMARY}\n"
        f"License-Expression: {project['license']}\nLicense-File: LICENSE\nRequires-Python: {project['requires-python']}\n"
        f"{''.join(needs)}Description-Content-Type: text/markdown\n\n{_DESCRIPTION}"
    )


def _version(about: str) -> str:
    return next(line.removeprefix("Version: ") for line in about.splitlines() if line.startswith("Version: "))


def _modules() -> dict[str, Path]:
    return {path.stem: path for path in sorted((_ROOT / "tasks" / "reorder").glob("*.py")) if path.stem not in LEFT_OUT}


def _contracts() -> dict[str, Path]:
    """The modules of `data_schemas` that the package's modules import, directly or through each other."""
    found: dict[str, Path] = {}
    waiting = list(_modules().values())
    while waiting:
        tree = ast.parse(waiting.pop().read_text(encoding="utf-8"))
        imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        for name in (module.removeprefix("data_schemas.") for module in imported if module.startswith("data_schemas.")):
            if name not in found:
                found[name] = _ROOT / "data_schemas" / f"{name}.py"
                waiting.append(found[name])
    return dict(sorted(found.items()))


def _renamed(text: str) -> str:
    text = re.sub(r"\btasks\.reorder\b", NAME, text)
    return re.sub(r"\bdata_schemas\.(?=\w)", f"{NAME}.{_CONTRACTS}.", text)


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
