"""The place of a value in a file or in parameters, written as in every message: `corpus.sources[0].uri`."""

from __future__ import annotations

from collections.abc import Iterable


def value_path(parts: Iterable[str | int]) -> str:
    """Names with dots between them; an item of a list by its number from 0, in brackets. Empty for no parts."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
