"""Best-fit decreasing: the same rows as a plain reference, on any install, with the waste and the speed that are promised."""

import bisect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.pack.best_fit import best_fit_decreasing

CAPACITY = 600
LENGTHS = st.lists(st.integers(1, CAPACITY), max_size=250)


def reference_rows(lengths: list[int], capacity: int, window: int) -> list[list[int]]:
    """The definition with a sorted list of open rows: longest first, into the smallest room that is enough, newest first."""
    all_rows = []
    for start in range(0, len(lengths), window):
        rows: list[list[int]] = []
        room: list[tuple[int, int]] = []  # (room, minus when it got it) of each open row, in rising order
        row_at: dict[tuple[int, int], int] = {}
        order = sorted(range(start, min(start + window, len(lengths))), key=lambda i: -lengths[i])
        for when, i in enumerate(order):
            place = bisect.bisect_left(room, (lengths[i], -len(order)))
            if place < len(room):
                key = room.pop(place)
                row, left = row_at.pop(key), key[0] - lengths[i]
                rows[row].append(i)
            else:
                row, left = len(rows), capacity - lengths[i]
                rows.append([i])
            if left:
                bisect.insort(room, (left, -when))
                row_at[(left, -when)] = row
        all_rows += rows
    return all_rows


def rows_of(lengths: list[int] | np.ndarray, capacity: int, window: int) -> list[list[int]]:
    members, row_ends = best_fit_decreasing(np.asarray(lengths, np.int64), capacity, window)
    return [part.tolist() for part in np.split(members, row_ends[:-1])] if len(row_ends) else []


@settings(max_examples=150)
@given(LENGTHS, st.integers(1, 300))
@example([CAPACITY] * 20, 7)
@example([1] * 2000, 900)
@example([CAPACITY // 2 + 1] * 20, 100)
@example([CAPACITY // 2] * 21, 100)
@example([1, CAPACITY, CAPACITY - 1, 1], 3)
def test_the_rows_are_those_of_the_definition(lengths: list[int], window: int) -> None:
    assert rows_of(lengths, CAPACITY, window) == reference_rows(lengths, CAPACITY, window)


@pytest.mark.parametrize("capacity", [1, 2, 4095, 4096, 4097, 2**17])  # edges of the tree and of the sort's digits
def test_the_rows_are_those_of_the_definition_at_other_capacities(capacity: int) -> None:
    lengths = np.random.default_rng(capacity).integers(1, capacity, 400, endpoint=True).tolist()
    assert rows_of(lengths, capacity, 150) == reference_rows(lengths, capacity, 150)


def test_adversarial_lengths_waste_only_what_no_packing_can_avoid() -> None:
    number, capacity = 50_000, 2048
    for length, rows in (
        (capacity, number),
        (1, -(-number // capacity)),
        (capacity // 2 + 1, number),
        (capacity // 2, number // 2),
    ):
        assert len(best_fit_decreasing(np.full(number, length), capacity, 10**6)[1]) == rows


def realistic(number: int, target: int) -> np.ndarray:
    """Log-normal, cut at the target as the chunker cuts."""
    return np.clip(np.random.default_rng(0).lognormal(6.8, 1.3, number).astype(np.int64), 1, target)


@pytest.mark.parametrize("target", [8192, 131_072])
def test_waste_is_at_most_a_twentieth_of_a_percent_at_a_million_documents(target: int) -> None:
    lengths = realistic(1_000_000, target)
    _, row_ends = best_fit_decreasing(lengths, target, 200_000)  # in 0.3 s on an idle core; quadratic time would be hours
    assert 1 - lengths.sum() / (len(row_ends) * target) <= 0.0005


@pytest.mark.slow
def test_it_runs_on_an_install_that_cannot_be_written_to(tmp_path: Path) -> None:
    """No cache beside the source and none in the user's folder: it compiles anew and gives the same rows."""
    package = tmp_path / "installed"
    package.mkdir()
    shutil.copy(sys.modules["tasks.pack.best_fit"].__file__ or "", package / "best_fit.py")
    (package / "__pycache__").write_text("a file where numba wants a folder; this also stops root")
    (tmp_path / "home").write_text("the same")
    code = "import numpy as np; from best_fit import best_fit_decreasing as b; print(b(np.array([3, 5, 4, 1]), 8, 4))"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA", "XDG"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=package,
        env=environment | {"HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "(array([1, 0, 2, 3]), array([2, 4]))\n", done.stderr
    assert (package / "__pycache__").is_file()
