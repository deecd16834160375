"""The text the demo base is trained on: Python source from the standard library and from pinned packages.

Standard-library works that the demo holds out are left out here too, as is every package file that shares a tenth or more of its
longer lines with one of them (vendored copies, backports).
"""

import hashlib
import importlib.metadata
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tasks.ingest.split import split_of

HELDOUT_FRACTION = 0.2
SPLIT_SEED = 0
STDLIB_EPOCHS = 2
SKIPPED_PARTS = frozenset(
    {
        *("test", "tests", "idle_test", "__pycache__", "site-packages", "_vendor", "_vendored", "vendor", "vendored"),
        *("encodings", "pydoc_data", "lib2to3", "distutils", "ensurepip", "turtledemo", "thirdparty_files"),
    }
)
PACKAGE_BUDGETS_MB = {
    "torch": 20, "transformers": 15, "sympy": 14, "scipy": 9, "ray": 9, "numpy": 6, "networkx": 6, "prefect": 5,
    "matplotlib": 5, "spacy": 2, "datasets": 2, "huggingface_hub": 2, "peft": 2, "mpmath": 2, "pydantic": 2,
    "accelerate": 2, "rich": 2, "fsspec": 1, "fastapi": 1, "starlette": 1, "sqlalchemy": 3, "hypothesis": 2,
    "aiohttp": 1, "numba": 5,
}  # fmt: skip


def python_files(root: Path) -> Iterator[Path]:
    """Source files of 1 kB to 400 kB below `root`, tests and vendored copies left out, in a stable order."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if SKIPPED_PARTS.isdisjoint(parts) and not parts[0].startswith("config-"):
            if 1_000 <= path.stat().st_size <= 400_000:
                yield path


def read(path: Path) -> str | None:
    """The file's text, or None where it is not prose-like source (tables of numbers, broken UTF-8)."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None
    digits = sum(c.isdigit() for c in text)
    plain = sum(c.isascii() for c in text)
    return text if digits < 0.12 * len(text) and plain > 0.97 * len(text) else None


def distinctive_lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if len(line.strip()) >= 40}


def stdlib() -> tuple[list[str], list[str]]:
    """(training texts, held-out texts) from the standard library of the running Python."""
    root = Path(sysconfig.get_paths()["stdlib"])
    train: list[str] = []
    heldout: list[str] = []
    for path in python_files(root):
        if (text := read(path)) is None:
            continue
        work = path.relative_to(root).parts[0].removesuffix(".py")
        side = split_of(work, HELDOUT_FRACTION, SPLIT_SEED)
        (heldout if side == "heldout" else train).append(text)
    return train, heldout


def training_texts() -> tuple[list[str], list[str], dict[str, str]]:
    """(training texts, held-out texts, version of each package used)."""
    train, heldout = stdlib()
    banned: Counter[str] = Counter(line for text in heldout for line in distinctive_lines(text))
    purelib = Path(sysconfig.get_paths()["purelib"])
    texts, versions, seen = train * STDLIB_EPOCHS, {}, set()
    for package, budget_mb in PACKAGE_BUDGETS_MB.items():
        left = budget_mb * 1_000_000
        versions[package] = importlib.metadata.version(package)
        files = list(python_files(purelib / package))
        for path in sorted(files, key=lambda p: hashlib.sha256(str(p.relative_to(purelib)).encode()).digest()):
            if left <= 0:
                break
            if (text := read(path)) is None or (digest := hash(text)) in seen:
                continue
            lines = distinctive_lines(text)
            if sum(line in banned for line in lines) > 0.1 * len(lines):
                continue
            seen.add(digest)
            texts.append(text)
            left -= len(text)
    return texts, heldout, versions
