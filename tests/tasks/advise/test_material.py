"""The user's own questions are checked as made ones are: what training saw, and what the lengths tell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from data_schemas.errors import UserError
from data_schemas.params import AdviseParams
from data_schemas.storage import Storage
from tasks.advise.material import Material, gather
from tests.ray_jobs.advise.advice_example import documents_of


def given(
    folder: Path, document_ids: Sequence[str], windows: tuple[int, int], leave_out: frozenset[str] = frozenset()
) -> Material:
    """Each question is on one of the four held-out documents, which have 132 words."""
    lines = [
        {"question": "Which bridge?", "answers": [f"Bridge 7 of work {name[1:]}"], "document_id": name} for name in document_ids
    ]
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    documents = documents_of(Storage(str(folder / "storage")))
    return gather(AdviseParams(), documents.path, str(questions), windows, lambda text: len(text.split()), leave_out)


def test_given_questions_on_text_that_training_saw_are_left_out_and_counted(tmp_path: Path) -> None:
    some = given(tmp_path, ["d1", "d2", "d1"], (200, 2000), frozenset({"d1"}))
    assert [question.document_id for question in some.questions.asked] == ["d2"]
    assert some.questions.notes[-1].startswith("2 of 3 given questions are on held-out documents that training saw too much of")
    assert some.said == some.questions.notes
    with pytest.raises(UserError, match=r"All 1 questions of .* are on held-out documents that training saw too much of"):
        given(tmp_path, ["d1"], (200, 2000), frozenset({"d1"}))


def test_the_lengths_of_the_documents_asked_about_tell_as_those_of_all(tmp_path: Path) -> None:
    short = given(tmp_path, ["d1", "d2"], (1000, 2000))
    assert short.told.startswith("Nothing is long: the longest of 2 documents that are asked about has")
    assert short.questions.asked == ()
    long = given(tmp_path, ["d1", "d2"], (100, 150))
    assert long.said[0].startswith("Nothing fits: the shortest of 2 documents that are asked about")
    assert len(long.questions.asked) == 2
