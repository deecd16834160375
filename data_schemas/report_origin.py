"""The part of an evaluation's settings that says what was measured, when and with what."""

from __future__ import annotations

from pydantic import Field

from data_schemas.record import Record


class MeasuredWith(Record):
    """What a reader needs to know of the run. It is published, so it names no folder of a machine.

    base      hub id, or the folder's name
    method    the RoPE method of the extended models, after `auto` has chosen
    corpus    the sources that held-out documents were split off from
    date      UTC, YYYY-MM-DD
    numbers   type of the weights and of the computation, such as float32
    versions  by package
    """

    base: str
    base_revision: str | None = None
    method: str
    corpus: tuple[str, ...]
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    numbers: str
    device: str
    versions: dict[str, str]
