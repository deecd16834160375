"""Read a `chunk_reorder.json`, and compute the golden permutations in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from data_schemas.errors import UserError
from data_schemas.releases import resolve_release
from data_schemas.reorder import (
    GOLDEN_SIZES,
    REORDER_FILE_NAME,
    RecallPoint,
    ReorderConfig,
)
from data_schemas.reorder_strategy import ReorderStrategy
from data_schemas.value_path import value_path
from tasks.reorder.permutations import permutation


def golden_permutations(strategy: ReorderStrategy, curve: Sequence[RecallPoint] = ()) -> dict[str, tuple[int, ...]]:
    """The permutations for one to ten passages, keyed by their number as a string, as JSON requires."""
    return {str(n): tuple(permutation(strategy, n, curve)) for n in GOLDEN_SIZES}


def to_json(config: ReorderConfig) -> str:
    """The file's text."""
    return config.model_dump_json(indent=1) + "\n"


def read_config(path: Path) -> ReorderConfig:
    """From a `chunk_reorder.json`, a release folder, or a `releases/NAME` folder, whose `current` is followed.

    Raises UserError if there is none, or it does not match the schema.
    """
    file = resolve_release(path) / REORDER_FILE_NAME if path.is_dir() else path
    try:
        return ReorderConfig.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(
            f"Cannot read the reorder config {file} ({error.strerror}): give a {REORDER_FILE_NAME} or the folder of a release."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = value_path(first["loc"]) or "the file"
        raise UserError(
            f"{file} is not a reorder config of schema version 1 ({where}: {first['msg']}): use the unchanged file of a release."
        ) from error
