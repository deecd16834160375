"""The base of the JSON files that one stage writes and another reads, and how such a file is read."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from data_schemas.errors import UserError
from data_schemas.value_path import value_path


class Record(BaseModel):
    """Frozen and closed: an unknown name, an infinity or a NaN is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Model = TypeVar("Model", bound=Record)


def read_record(path: Path, model: type[Model], kind: str, remedy: str) -> Model:
    """The record in the JSON file `path`.

    Args:
        kind: what the file should be, with its article, such as "an evaluation's report".
        remedy: what to do, for the end of the error's sentence.

    Raises:
        UserError: the file is missing, unreadable, or not such a record; names the file and the first value that is wrong.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: {remedy}.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {remedy}.") from error
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = value_path(first["loc"]) or "the file"
        raise UserError(f"{path} is not {kind} ({where}: {first['msg']}): {remedy}.") from error
