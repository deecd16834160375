"""The elements that a stage shows, as plain data: pages of Markdown, pictures, tables of facts, shares of work done.

A key is made of lower-case letters, digits and dashes. An element with the key of an earlier one replaces it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_schemas.ledger import Ledger
from data_schemas.quantities import data_size
from data_schemas.storage import Artifact

_MOST_CHARACTERS = 160
_ACTIVE = re.compile(r"([\\`*_\[\]|~])")
_NUMBER = re.compile(r"([-+]?\d[\d,.]*(e[-+]\d+)?( ?[%A-Za-z/]+)?)?")
_FETCHED_BYTES = 50_000_000


@dataclass(frozen=True)
class Page:
    """Markdown."""

    key: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A PNG."""

    key: str
    png: bytes


@dataclass(frozen=True)
class Facts:
    """Names and values, one a line."""

    key: str
    values: dict[str, Any]
    title: str


@dataclass(frozen=True)
class Share:
    """The share of some work that is done, from 0 to 1."""

    key: str
    share: float
    title: str


Shown = Page | Picture | Facts | Share


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; columns of numbers are aligned to the right. The cells must be Markdown already (see `plain`)."""
    cells = [[f"{value:,}" if isinstance(value, int) else str(value) for value in row] for row in rows]
    numeric = [all(_NUMBER.fullmatch(row[i]) for row in cells) for i in range(len(columns))]
    rule = ["---:" if is_number and place else "---" for place, is_number in enumerate(numeric)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (list(columns), rule, *cells))


def ledger_markdown(ledger: Ledger) -> str:
    """What became of every input, step by step, for all sources and for each."""
    rows = [
        (plain(source), plain(step), num_documents, data_size(num_bytes), "" if num_tokens is None else num_tokens)
        for source, step, num_documents, num_bytes, num_tokens in ledger.table()
    ]
    return markdown_table(("source", "step", "documents", "text", "tokens"), rows)


def plain(text: object, most_characters: int = _MOST_CHARACTERS) -> str:
    """Untrusted text as one short line of Markdown without markup, HTML or links."""
    line = " ".join(str(text).split())
    if len(line) > most_characters:
        line = line[: most_characters - 1] + "…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _ACTIVE.sub(r"\\\1", line).replace("://", ":&#47;/")


@contextmanager
def small_file(artifact: Artifact, name: str) -> Iterator[Path | None]:
    """A file of the artifact, if it is on this machine or can be fetched quickly from remote storage; else None."""
    entry = next((entry for entry in artifact.manifest.files if entry.path == name), None)
    local = artifact.folder / name
    if entry is None:
        yield None
    elif local.is_file():
        yield local
    elif artifact.remote is not None and entry.num_bytes <= _FETCHED_BYTES:
        with artifact.as_parts().reading(name) as fetched:
            yield fetched
    else:
        yield None
