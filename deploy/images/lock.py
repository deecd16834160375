"""Write the lock files of the images: every package with its version and hashes, for Python 3.11 on Linux x86-64.

    .venv/bin/python deploy/images/lock.py            # after a change of pyproject.toml

`requirements.lock` is in both images. `requirements-gpu.lock` is torch with its CUDA libraries, and the kernels that GPUs need. The
versions come from pyproject.toml; `uv` finds the rest.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
PYPROJECT = HERE.parents[1] / "pyproject.toml"
EXTRAS = ("s3", "gcs", "kubernetes")
_OF_TORCH = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)$")
_HEADER = "# Written by deploy/images/lock.py for Python 3.11 on Linux x86-64.\n"


def main() -> None:
    """Both files, from one resolution."""
    project = tomllib.loads(PYPROJECT.read_text())
    extras = project["project"]["optional-dependencies"]
    kernels = [name_of(requirement) for requirement in extras["gpu"]]
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    wanted += [requirement for name in (*EXTRAS, "gpu") for requirement in extras[name]]
    common, of_gpu = [], []
    for block in resolved(wanted):
        name = name_of(block)
        (of_gpu if _OF_TORCH.match(name) or name in kernels else common).append(block)
    (HERE / "requirements.lock").write_text(_HEADER + "".join(common))
    (HERE / "requirements-gpu.lock").write_text(_HEADER + "".join(of_gpu))


def resolved(requirements: list[str]) -> list[str]:
    """One block of lines for each package: its version, then its hashes."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder, "asked.in"), Path(folder, "answer.txt")
        asked.write_text("\n".join(requirements))
        command = [
            str(Path(sys.executable).parent / "uv"), "pip", "compile", asked, "--output-file", answer, "--generate-hashes", "--quiet",
            "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links",
            "--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28",
        ]  # fmt: skip
        subprocess.run(command, check=True)
        return re.findall(r"^\S.*\n(?:[ \t].*\n)*", answer.read_text(), re.MULTILINE)


def name_of(requirement: str) -> str:
    """The package's name in its normal form."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


if __name__ == "__main__":
    main()
