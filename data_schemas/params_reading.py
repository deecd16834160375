"""Read `PipelineParams` from a file, a URI or JSON text; errors name the wrong field and what it may be."""

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from data_schemas.addresses import holds_secret
from data_schemas.credentials import credential_in
from data_schemas.errors import UserError
from data_schemas.mapping_text import parse_json, parse_yaml
from data_schemas.params import PipelineParams
from data_schemas.remote import told
from data_schemas.spelling import refuse_misspelt
from data_schemas.value_path import value_path

_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}  # of pydantic's types of error: the bound's name in its context, and our words
_MAX_BYTES = 4_000_000  # a file of parameters has a few kilobytes; a larger file is something else


def load_params(text_or_path: str) -> PipelineParams:
    """Parameters from a YAML or JSON file, its URI, or JSON text. UserError says what is wrong and where."""
    return validate_params(read_mapping(text_or_path), origin="the given JSON" if is_json(text_or_path) else text_or_path)


def is_json(text: str) -> bool:
    """Whether `text` is JSON itself, not the path or URI of a file."""
    return text.lstrip().startswith("{")


def read_mapping(text_or_path: str) -> dict[str, Any]:
    """The raw mapping in a file or text, before validation."""
    if is_json(text_or_path):
        text, origin = text_or_path, "the given JSON"
    else:
        text, origin = _content(text_or_path), text_or_path
    try:
        value = parse_json(text, origin) if is_json(text) else parse_yaml(text, origin)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{origin} is not valid YAML or JSON: {' '.join(str(error).split())}.") from error
    if value is None:
        raise UserError(f"{origin} is empty: give at least run_name, corpus and model.")
    if not isinstance(value, dict):
        raise UserError(f"{origin} holds a {type(value).__name__}, not a mapping of parameters.")
    return value


def _content(path_or_uri: str) -> str:
    refuse_misspelt(path_or_uri, "The parameter file")
    try:
        content = _from_uri(path_or_uri) if "://" in path_or_uri else _from_file(Path(path_or_uri).expanduser())
        if content is None:
            raise UserError(f"There is no parameter file {path_or_uri!r}: give a YAML or JSON file of PipelineParams.")
        if len(content) > _MAX_BYTES:
            raise UserError(
                f"{path_or_uri} is larger than {_MAX_BYTES / 1e6:.0f} MB, so it is not a file of parameters: give a YAML or JSON file."
            )
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path_or_uri} cannot be read as UTF-8 text: {error}.") from error


def _from_file(path: Path) -> bytes | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return file.read(_MAX_BYTES + 1)


def _from_uri(uri: str) -> bytes | None:
    """Read by fsspec. Credentials come from the environment, because all users of a machine can see a command line."""
    if holds_secret(uri):
        raise UserError("The URI of the parameters contains credentials: give them in the environment instead.")
    with told(uri):
        import fsspec

        try:
            with fsspec.open(uri, "rb") as file:
                content: bytes = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return None
    return content


def validate_params(mapping: dict[str, Any], origin: str) -> PipelineParams:
    """The parameters in `mapping`. UserError lists every wrong field with its place; `origin` names the source."""
    try:
        return PipelineParams.model_validate(mapping)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # A list whose items are wrong is not too short as well.
        of_items = {e["loc"][:length] for e in errors for length in range(len(e["loc"]))}
        problems = [_sentence(e) for e in errors if e["type"] != "too_short" or e["loc"] not in of_items]
        raise UserError(f"Wrong parameters in {origin}: {'; '.join(problems)}.") from None


def replaced_settings(mapping: dict[str, Any], params: PipelineParams) -> list[str]:
    """A sentence for each value of `mapping` that `params` have in another way, because of what an `auto` beside it came to."""
    given = mapping.get("training") or {}
    if given.get("hidden_states", "fp32") == params.training.hidden_states:
        return []
    return ["training.precision auto is fp32 on this machine, so training.hidden_states is fp32 too, not bf16."]


def _sentence(error: Any) -> str:
    where = value_path(error["loc"])
    if where and (choice := _choice(error)):
        return f"{where} is {_shown(error['input'])}: choose {choice}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "no such parameter; check the spelling"
    elif error["type"] in ("tuple_type", "list_type"):
        shown = (
            f", such as [{_shown(error['input'])}]"
            if isinstance(error["input"], (str, int, float)) and error["input"] != ""
            else ""
        )
        message = f"should be a list{shown}"
    elif error["type"] != "value_error" and error["type"] != "missing" and isinstance(error.get("input"), (str, int, float)):
        message += f", got {_shown(error['input'])!r}"
    return f"{where}: {message}" if where else message


def _choice(error: Any) -> str:
    """What a value beyond a bound, or outside a set of names, may be; empty for any other error."""
    if bound := _BOUNDS.get(error["type"]):
        name, words = bound
        value = error["ctx"][name]
        return f"{words} {int(value) if value == int(value) else value}"
    if error["type"] == "literal_error" and isinstance(error["input"], str) and error["input"]:
        return str(error["ctx"]["expected"]).replace("'", "")
    return ""


def _shown(value: Any) -> Any:
    """A wrong value as it may be repeated: texts that contain a credential are not."""
    return "..." if isinstance(value, str) and credential_in(value) else value
