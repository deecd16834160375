"""Reading the `documents` artifact: parts `documents-00000-of-00012.parquet`, in the order of the corpus."""

from __future__ import annotations

from pathlib import Path

from data_schemas.errors import UserError
from data_schemas.manifest import Manifest


def part_name(number: int, num_parts: int) -> str:
    """File name of part `number`, counted from 0."""
    return f"documents-{number:05d}-of-{num_parts:05d}.parquet"


def part_names(manifest: Manifest) -> list[str]:
    """Names of the parts, in order."""
    return sorted(entry.path for entry in manifest.files if entry.path.startswith("documents-"))


def document_files(folder: Path) -> list[Path]:
    """The parts below `folder`, in order. UserError if there are none."""
    files = sorted(folder.glob("documents-*.parquet"))
    if not files:
        raise UserError(f"{folder} holds no documents: run the prepare stage first.")
    return files
