"""Reads a run's parameters from a preset or a file, and applies `--set`."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from data_schemas.errors import UserError
from data_schemas.mapping_text import parse_json, parse_yaml
from data_schemas.params import PipelineParams
from data_schemas.params_reading import read_mapping, replaced_settings, validate_params

PRESETS = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_config(config: str, settings: Iterable[str] = ()) -> PipelineParams:
    """The parameters in `config`, a preset's name or a YAML or JSON file. Each setting is `a.b=VALUE`, with VALUE as JSON, a list
    as in a config, or text.

    A line on stderr says what is used in place of a stated value. UserError if there is no such file or preset, or a parameter is wrong.
    """
    preset = PRESETS / f"{config}.yaml"
    if config in preset_names():
        mapping = read_mapping(str(preset))
    elif Path(config).expanduser().is_file():
        mapping = read_mapping(config)
    else:
        raise UserError(
            f"There is no file or preset {config!r}: give a YAML file, or one of the presets {', '.join(preset_names())}."
        )
    for setting in settings:
        _set(mapping, setting)
    params = validate_params(mapping, origin=config)
    for sentence in replaced_settings(mapping, params):
        print(f"ropeway: {sentence}", file=sys.stderr)
    return params


def _set(mapping: dict[str, Any], setting: str) -> None:
    path, equals, text = setting.partition("=")
    if not equals or not all(path.split(".")):
        raise UserError(f"--set {setting!r} does not have the form NAME.NAME=VALUE, such as training.steps=100.")
    value = _value(text, f"--set {path}=...")
    *parents, last = path.split(".")
    for name in parents:
        mapping = mapping.setdefault(name, {})
        if not isinstance(mapping, dict):
            raise UserError(
                f"--set {setting!r}: {name} is a value, not a group of parameters; check the name with `ropeway params`."
            )
    mapping[last] = value


def _value(text: str, origin: str) -> Any:
    """JSON, a list or a group as in a config (`[passkey, variable_tracking]`), or else the text itself."""
    try:
        return parse_json(text, origin)
    except json.JSONDecodeError:
        if not text.startswith(("[", "{")):
            return text
    try:
        return parse_yaml(text, origin)
    except (yaml.YAMLError, ValueError):  # ValueError: a date that does not exist
        return text
