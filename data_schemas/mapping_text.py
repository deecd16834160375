"""Parse YAML and JSON that people write. A key that stands twice in one group is refused, because only the last would count."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from data_schemas.errors import UserError
from data_schemas.value_path import value_path


def parse_yaml(text: str, origin: str) -> Any:
    """The value of a YAML text. UserError names `origin` and a repeated key with both lines; yaml.YAMLError if it is not YAML."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_repeated(node, loader, origin)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def parse_json(text: str, origin: str) -> Any:
    """The value of a JSON text. UserError names `origin` and a repeated key with both lines; ValueError if it is not JSON."""
    repeated = False

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        repeated = repeated or len(dict(found)) < len(found)
        return dict(found)

    value = json.loads(text, object_pairs_hook=pairs)
    if repeated:  # JSON without tabs is YAML, whose nodes know their lines; JSON has tabs only between its values
        parse_yaml(text.replace("\t", " "), origin)
    return value


def _refuse_repeated(root: yaml.Node, loader: yaml.SafeLoader, origin: str) -> None:
    for path, mapping in _mappings(root):
        lines: dict[Any, int] = {}
        for key, _ in mapping.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # a list or a group as a key is refused later
            name = "<<" if key.tag == "tag:yaml.org,2002:merge" else loader.construct_object(key)
            line = key.start_mark.line + 1
            if name in lines:
                where = value_path((*path, str(name)))
                on = f"twice on line {line}" if line == lines[name] else f"twice, on lines {lines[name]} and {line}"
                raise UserError(f"{origin} gives {where} {on}: keep one of the two.")
            lines[name] = line


def _mappings(root: yaml.Node) -> Iterator[tuple[tuple[str | int, ...], yaml.MappingNode]]:
    """Every group of keys with its path, once each; a group that an alias repeats is the same node."""
    seen: set[int] = set()
    waiting: list[tuple[tuple[str | int, ...], yaml.Node]] = [((), root)]
    while waiting:
        path, node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield path, node
            inner = [((*path, str(key.value)), value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            inner = [((*path, i), value) for i, value in enumerate(node.value)]
        else:
            inner = []
        waiting += reversed(inner)
