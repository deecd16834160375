"""Questions that the user gives: their document, evidence and control, and what is wrong with a file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from data_schemas.errors import UserError
from tasks.advise.questions import Questions, read_questions, score

FILL = "The weather was fine and nothing else happened on that day. " * 8
DOCUMENTS = {"log": f"{FILL}Ada set the valve to 42 bar. {FILL}", "tale": f"{FILL}The mill burnt down in May. {FILL}"}


def read(tmp_path: Path, *lines: Any) -> Questions:
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return read_questions(file, DOCUMENTS)


def test_gold_finds_its_document_and_leaves_the_control(tmp_path: Path) -> None:
    asked = {"question": "How high was the pressure?", "answers": ["42 bar", "42"], "gold": "Ada set the valve to 42 bar."}
    (q,) = read(tmp_path, asked, "").asked
    assert (q.document_id, q.kind, q.document[slice(*q.evidence[0])]) == ("log", "given", asked["gold"])
    assert "42" not in q.control
    assert len(q.control) == len(q.document)
    assert (score(q, "It was 42."), score(q, "It was 41.")) == (1, 0)


def test_a_line_may_bring_its_document_or_name_it(tmp_path: Path) -> None:
    own = {"question": "Who?", "answers": ["Ada"], "document": f"{FILL}It was Ada."}
    named = {"question": "When?", "answers": ["May"], "document_id": "tale"}
    questions = read(tmp_path, own, named, own | {"question": "Who was it?"}, own | {"document": "It was Ada, too."})
    first, tale, again, other = (q.document_id for q in questions.asked)
    assert tale == "tale"
    assert first == again != other  # questions on one document count together
    assert re.fullmatch("text-[0-9a-f]{12}", first)
    assert not any(q.answers[0] in q.control for q in questions.asked)
    assert not questions.notes


def test_several_golds_and_an_answer_outside_them(tmp_path: Path) -> None:
    text = f"One came. {FILL}Two came. {FILL}Ada saw them. Ada left."
    line = {"question": "Who saw them?", "answers": ["Ada"], "gold": ["One came.", "Ada saw them."], "document": text}
    questions = read(tmp_path, line)
    assert len(questions.asked[0].evidence) == 2
    assert "Ada" not in questions.asked[0].control
    assert questions.notes[0].startswith("1 of 1 questions have an answer that also stands outside their evidence")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("New York", f"He went to New York. {FILL}Later he left New\n  York."),
        ("otter", f"It was an otter. {FILL}OTTERS swim."),
        ("strasse", f"It was in the Strasse. {FILL}Two Straßen meet there. İ, Straße."),
        ("东京", "他去了东京塔。" + "天气很好，没有别的事情发生。" * 8),
        ("42", f"It had 42 bar. {FILL}That was in 1942."),
    ],
)
def test_a_control_holds_no_answer_that_the_score_accepts(answer: str, text: str, tmp_path: Path) -> None:
    (q,) = read(tmp_path, {"question": "What?", "answers": [answer], "document": text}).asked
    assert score(q, q.document) == 1
    assert score(q, q.control) == 0
    assert len(q.control) == len(q.document)
    assert score(q, q.document[slice(*q.evidence[0])]) == 1


def test_a_control_that_holds_an_answer_is_counted(tmp_path: Path) -> None:
    line = {"question": "Where?", "answers": ["New York"], "gold": "but not old", "document": "New but not old York"}
    assert read(tmp_path, line).notes == ("1 of 1 questions have a control that still holds an answer.",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Line 1 of .* is not JSON"),
        ("[]", "Line 1 of .* is not a JSON object"),
        ({"answers": ["a"], "gold": "b"}, "Line 1 of .*: `question` is missing"),
        ({"question": "q", "gold": "b"}, "Line 1 of .*: `answers` is missing"),
        ({"question": "q", "answers": []}, "Line 1 of .*: `answers` is missing or wrong"),
        ({"question": "q", "answers": ["a"]}, "has neither `gold` nor a document"),
        ({"question": "q", "answers": ["a"], "gold": "not there"}, "its `gold` is in none of the 2 held-out documents"),
        ({"question": "q", "answers": ["a"], "gold": "the"}, "its `gold` is in 2 held-out documents: name one as"),
        ({"question": "q", "answers": ["a"], "gold": "not there", "document": "x"}, "its `gold` is not in its document"),
        ({"question": "q", "answers": ["a"], "document_id": "nobody"}, "`document_id` nobody is none of the 2"),
        ({"question": "q", "answers": ["Kim"], "document_id": "log"}, "none of `answers` is in its document"),
        ("", "has no question"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, line)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read as UTF-8 text"):
        read_questions(tmp_path / "none.jsonl", DOCUMENTS)
