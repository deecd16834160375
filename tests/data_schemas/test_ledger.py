"""The ledger adds up, says so where it does not, and reads as it was written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import UserError
from data_schemas.ledger import COLUMNS, STEPS, Ledger, LedgerLine, Step, ledger_of, read_ledger


def line(step: Step, source: str = "books", number: int = 0, reason: str = "", tokens: int | None = None) -> LedgerLine:
    return LedgerLine(step=step, source=source, reason=reason, documents=number, bytes=100 * number, tokens=tokens)


def whole() -> list[LedgerLine]:
    return [
        line("read", number=10),
        line("quarantined", number=1, reason="empty"),
        line("filtered", number=2, reason="short"),
        line("held_out", number=3),
        line("remaining", number=4, tokens=40),
        line("cut", number=2, tokens=25),
        line("repeated", number=4, tokens=40),
        line("dropped", number=1, reason="budget", tokens=11),
        line("packed", number=7, tokens=69),
        line("padding", "", tokens=3),
        line("rows", "", number=7, tokens=72),
    ]


def test_a_ledger_that_adds_up_is_written_and_read(tmp_path: Path) -> None:
    ledger = Ledger.of(reversed(whole()))
    assert list(ledger.lines) == whole()
    ledger.write(tmp_path)
    assert read_ledger(tmp_path) == ledger
    assert ledger_of({"ledger": ledger.to_json()}) == ledger
    assert ledger_of({}) is None
    assert ledger.total("filtered", "books") == line("filtered", number=2)
    with pytest.raises(UserError, match="is missing"):
        read_ledger(tmp_path / "elsewhere")


def _balanced(counts: dict[str, list[int]]) -> list[LedgerLine]:
    """Lines of all steps for some sources, with totals that are the running sums."""
    lines, everything = [], dict.fromkeys(COLUMNS, 0)
    for source, numbers in counts.items():
        running = dict.fromkeys(COLUMNS, 1000)
        for (step, (kind, _)), number in zip(STEPS.items(), numbers, strict=True):
            if step in ("padding", "rows"):
                continue
            values = dict(running) if kind == "total" else dict.fromkeys(COLUMNS, number)
            sign = {"in": 1, "out": -1}.get(kind, 0)
            running = {name: running[name] + sign * values[name] for name in COLUMNS}
            lines.append(LedgerLine(step=step, source=source, **values))
        everything = {name: everything[name] + running[name] for name in COLUMNS}
    everything["tokens"] += 5
    return [*lines, line("padding", "", tokens=5), LedgerLine(step="rows", source="", **everything)]


@given(
    counts=st.dictionaries(
        st.sampled_from("abc"), st.lists(st.integers(0, 50), min_size=len(STEPS), max_size=len(STEPS)), min_size=1
    ),
    data=st.data(),
)
def test_any_change_of_a_sum_is_noticed(counts: dict[str, list[int]], data: st.DataObject) -> None:
    lines = _balanced(counts)
    Ledger.of(lines).check()
    place = data.draw(st.sampled_from([i for i, row in enumerate(lines) if row.step not in ("cut", "not_made")]))
    column = data.draw(st.sampled_from(COLUMNS))
    lines[place] = lines[place].model_copy(update={column: (getattr(lines[place], column) or 0) + 1})
    with pytest.raises(ValueError, match=f"does not add up: {column} of"):
        Ledger.of(lines).check()


def test_a_source_without_a_total_is_noticed() -> None:
    with pytest.raises(ValueError, match="no line 'remaining' for the source 'web'"):
        Ledger.of([*whole(), line("read", "web", 1), line("packed", "web")]).check()


def test_later_steps_replace_the_lines_of_their_own_step() -> None:
    ingest = Ledger.of([line("read", number=5), line("held_out", number=1), line("remaining", number=4)])
    ingest.check()
    told = ingest.continued([line("remaining", number=4, tokens=44), line("packed", number=4, tokens=44)])
    told.check()
    assert [row.step for row in told.lines] == ["read", "held_out", "remaining", "packed"]
    with pytest.raises(ValueError, match="tokens of the source 'books' come to 44 before 'packed', which has 43"):
        ingest.continued([line("remaining", number=4, tokens=44), line("packed", number=4, tokens=43)]).check()
