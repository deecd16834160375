"""What is said for people is no more than what was shown."""

from __future__ import annotations

from tests.tasks.advise.rows_example import advice_of, chunks, full, notes, rows_of

NUM = 12


def test_extend_is_said_only_where_other_ways_were_shown_to_be_worse() -> None:
    only = advice_of([full()], {full().name: rows_of(full(), [0.0] * NUM, 900)})
    assert only.overall.startswith("Not distinguishable:")
    alike = {full().name: rows_of(full(), [1.0] * NUM, 900), notes().name: rows_of(notes(), [1.0] * NUM, 1500)}
    advice = advice_of([full(), notes()], alike)
    assert advice.advice[0].way == full().name
    assert advice.overall.startswith("Not distinguishable:")
    worse = {full().name: rows_of(full(), [1.0] * NUM, 900), notes().name: rows_of(notes(), [0.0] * NUM, 1500)}
    assert advice_of([full(), notes()], worse).overall.startswith("Extend:")
    needed = {full().name: rows_of(full(), [1.0] * NUM, 900), chunks().name: rows_of(chunks(), [0.0] * NUM, 100)}
    assert advice_of([full(), chunks()], needed).overall.startswith("Extend: for every kind of question, each way without")


def test_what_a_difference_takes_is_counted_in_documents() -> None:
    def note_on(num_documents: int) -> str:
        rows = {
            full().name: rows_of(full(), [1.0] * 24, 900, num_documents),
            chunks().name: rows_of(chunks(), [0.0] * 24, 100, num_documents),
        }
        advice = advice_of([full(), chunks()], rows)
        assert (advice.comparisons[0].p_holm < 0.05) == (num_documents >= 6)
        return advice.note

    assert "at least 6 documents and worse on none; there are 4 documents for each kind. There are fewer" in note_on(4)
    assert "there are 6 documents for each kind." in note_on(6)
    assert "fewer" not in note_on(6)


def test_chunk_is_said_only_where_chunks_are_advised() -> None:
    none, right = [0.0] * NUM, [1.0] * NUM
    chunked = {full().name: rows_of(full(), none, 900), chunks().name: rows_of(chunks(), right, 100)}
    assert advice_of([full(), chunks()], chunked).overall.startswith("Chunk:")
    noted = {full().name: rows_of(full(), none, 900), notes().name: rows_of(notes(), right, 1500)}
    assert advice_of([full(), notes()], noted).overall.startswith("The base's window is enough:")
