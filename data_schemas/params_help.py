"""Every parameter in words, from the models themselves: dotted name, what it may be, default, meaning."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from data_schemas.params import PipelineParams

_WIDTH = 110
_BOUNDS = {"ge": ">= {}", "gt": "> {}", "le": "<= {}", "lt": "< {}", "min_length": "at least {} long", "pattern": "matching {}"}


@dataclass(frozen=True)
class ParamHelp:
    """One parameter: `name` is dotted, `[]` in it stands for one entry of a list; `default` is "(required)" or in brackets."""

    name: str
    kind: str
    default: str
    meaning: str


def params_help() -> Iterator[ParamHelp]:
    """Every parameter of a run, in the order of the models."""
    for name, field in _fields(PipelineParams, ""):
        yield ParamHelp(name, _kind(field), _default(field), " ".join((field.description or "").split()))


def describe_params(beginning: str = "") -> str:
    """The parameters whose names begin so, in the order of the models."""
    lines = []
    for param in params_help():
        if param.name.startswith(beginning):
            lines.append(f"  {param.name}  {param.kind}  {param.default}")
            lines += textwrap.wrap(param.meaning, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        inner, many = _inner_model(field.annotation)
        if inner is None or many:
            yield prefix + name, field
        if inner is not None:
            yield from _fields(inner, f"{prefix}{name}{'[]' if many else ''}.")


def _inner_model(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model in a field's type, and whether the field is a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for inner in get_args(annotation):
        if found := _inner_model(inner)[0]:
            return found, get_origin(annotation) in (tuple, list)
    return None, False


def _kind(field: FieldInfo) -> str:
    bounds = [
        template.format(getattr(limit, name))
        for limit in field.metadata
        for name, template in _BOUNDS.items()
        if getattr(limit, name, None) is not None
    ]
    return ", ".join([_type_name(field.annotation), *bounds])


def _type_name(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(inner[0])
    if origin is Literal:
        return " | ".join(str(choice) for choice in inner)
    if origin in (Union, UnionType):
        return " | ".join("empty" if kind is type(None) else _type_name(kind) for kind in inner)
    if origin in (tuple, list):
        return f"list of {_type_name(inner[0])}"
    if origin is dict:
        return f"mapping of {_type_name(inner[0])} to {_type_name(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.__name__
    return {str: "text", int: "whole number", float: "number", bool: "true | false"}.get(annotation, str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "(required)"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value)) or 'none'}]"
    return f"[{'empty' if value in (None, {}) else value}]"
