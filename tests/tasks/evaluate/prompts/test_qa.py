"""Question files read or refused, and outputs scored."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_schemas.errors import UserError
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.qa import QaExample, read_qa
from tasks.evaluate.prompts.score import score_output, score_prompt

GOOD = {"question": "Who?", "answers": ["Ann", "Ann Lee"], "gold": "It was ann lee.", "passages": ["Bob.", "Anna did not."]}


def written(tmp_path: Path, *lines: Any) -> Path:
    path = tmp_path / "qa.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_questions_are_read_with_their_lines(tmp_path: Path) -> None:
    first, second = read_qa(written(tmp_path, GOOD, "", GOOD | {"question": " Why?\u2028 "}))
    assert first == QaExample("Who?", ("Ann", "Ann Lee"), "It was ann lee.", ("Bob.", "Anna did not."), 1)
    assert (second.question, second.line) == ("Why?", 3)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"question": ', r"is not JSON"),
        ([1], r"is not a JSON object"),
        (GOOD | {"question": " "}, r"`question` is missing or not a text"),
        ({k: v for k, v in GOOD.items() if k != "gold"}, r"`gold` is missing"),
        (GOOD | {"answers": []}, r"`answers` is not a list of texts"),
        (GOOD | {"answers": "Ann"}, r"`answers` is not a list of texts"),
        (GOOD | {"passages": ["Bob.", 3]}, r"`passages` is not a list of texts"),
        (GOOD | {"gold": "Nobody."}, r"`gold` contains none of `answers`"),
        (GOOD | {"passages": ["Bob.", "By ANN."]}, r"`passages\[1\]` contains the answer 'Ann'"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path: Path, line: Any, what: str) -> None:
    with pytest.raises(UserError, match=rf"Line 2 of .*qa\.jsonl.*{what}"):
        read_qa(written(tmp_path, GOOD, line))


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_qa(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="has no question"):
        read_qa(written(tmp_path, "", " "))


def test_score_is_the_share_of_golds_in_the_output_in_any_case() -> None:
    assert score_output(" ABCDE, fghij", ("abcde", "FGHIJ")) == 1
    assert score_output("123 and 456", ("123", "789", "456", "000")) == 0.5
    assert score_output("", ("123",)) == 0


@pytest.mark.parametrize(("task", "score"), [("document_qa", 1.0), ("niah_multivalue", 0.5)])
def test_any_answer_to_a_question_is_right(task: str, score: float) -> None:
    none = np.empty(0, np.int32)
    prompt = TaskPrompt(
        task=task,
        length=9,
        depth=None,
        position=None,
        sample=0,
        seed=0,
        tokens=none,
        golds=("Ann", "Lee"),
        answer=none,
        control=None,
        is_forced=False,
        max_new_tokens=2,
    )
    assert score_prompt(prompt, "by lee") == score
    assert score_prompt(prompt, "by Bob") == 0
