"""Read `PipelineParams` from a file or from text, with errors a person can act on."""

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams


def load_params(text_or_path: str) -> PipelineParams:
    """Parameters from a YAML or JSON file, or from JSON text. UserError says what is wrong and where."""
    return validate_params(read_mapping(text_or_path), origin="the given JSON" if is_json(text_or_path) else text_or_path)


def is_json(text: str) -> bool:
    return text.lstrip().startswith("{")


def read_mapping(text_or_path: str) -> dict[str, Any]:
    """The raw mapping in a file or text, before validation."""
    if is_json(text_or_path):
        text, origin = text_or_path, "the given JSON"
    else:
        path = Path(text_or_path).expanduser()
        if not path.is_file():
            raise UserError(f"There is no parameter file {text_or_path!r}: give a YAML or JSON file of PipelineParams.")
        try:
            text, origin = path.read_text(encoding="utf-8"), text_or_path
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{text_or_path} cannot be read as UTF-8 text: {error}.") from error
    try:
        value = json.loads(text) if is_json(text) else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{origin} is not valid YAML or JSON: {' '.join(str(error).split())}.") from error
    if not isinstance(value, dict):
        raise UserError(f"{origin} holds a {type(value).__name__}, not a mapping of parameters.")
    return value


def validate_params(mapping: dict[str, Any], origin: str) -> PipelineParams:
    """Check `mapping`; UserError lists every wrong field with its dotted path."""
    try:
        return PipelineParams.model_validate(mapping)
    except ValidationError as error:
        problems = [_sentence(e) for e in error.errors(include_url=False)]
        raise UserError(f"Wrong parameters in {origin}: {'; '.join(problems)}.") from None


def _sentence(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "no such parameter; check the spelling"
    elif error["type"] != "value_error" and error["type"] != "missing" and isinstance(error.get("input"), (str, int, float)):
        message += f", got {error['input']!r}"
    return f"{where}: {message}" if where else message
