"""*Lost in the Middle*'s prompts and scores are those of the authors' code."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from data_schemas.errors import UserError
from tasks.evaluate.published.lost_in_the_middle import middle_prompts, middle_texts
from tasks.evaluate.published.scores import best_subspan_em, score_published
from tests.tasks.evaluate.published.authors import asked, facts, word_tokenizer

FACTS = facts("lost_in_the_middle")


def test_prompts_equal_the_authors_at_every_place_of_the_gold() -> None:
    found = middle_texts(asked("lost_in_the_middle"))
    assert list(found) == [
        "lost_in_the_middle_qa_10",
        "lost_in_the_middle_qa_20",
        "lost_in_the_middle_kv_75",
        "lost_in_the_middle_kv_140",
    ]
    for name, hashes in FACTS["prompts"].items():
        number, place = (int(n) for n in re.findall(r"\d+", re.sub(r"\.jsonl\.gz", "", name)))
        kind = "qa" if name.startswith("nq") else "kv"
        ours = [one for one in found[f"lost_in_the_middle_{kind}_{number}"] if one.place == place]
        assert [hashlib.sha256(one.text.encode()).hexdigest() for one in ours] == hashes
        assert [one.sample for one in ours] == list(range(len(hashes)))


def test_scores_equal_the_authors() -> None:
    known = FACTS["scores"]
    ours = [best_subspan_em(output, golds) for output, golds in zip(known["outputs"], known["golds"], strict=True)]
    assert ours == known["best_subspan_em"]


def test_key_values_are_found_anywhere_in_the_output_ignoring_case() -> None:
    assert score_published("lost_in_the_middle_kv_75", "first\nABC-1 is", ["abc-1"]) == 1
    assert score_published("lost_in_the_middle_qa_10", "first\nABC-1 is", ["abc-1"]) == 0


def test_prompts_have_depth_position_and_100_new_tokens() -> None:
    texts = middle_texts(asked("lost_in_the_middle", num_samples=2))["lost_in_the_middle_qa_20"]
    prompts = middle_prompts(texts, 4096, word_tokenizer())
    assert [(p.sample, p.depth) for p in prompts] == [(s, d) for s in (0, 1) for d in (0.0, 0.473684, 1.0)]
    assert all(p.max_new_tokens == 100 and p.position is not None and abs(p.position - (p.depth or 0)) < 0.15 for p in prompts)


def test_a_file_of_another_form_is_named(tmp_path: Path) -> None:
    (tmp_path / "nq-open-10_total_documents_gold_at_0.jsonl").write_text('{"question": "q"}\n')
    with pytest.raises(UserError, match=r"nq-open-10.*does not have the authors' form"):
        middle_texts(asked("lost_in_the_middle", lost_in_the_middle=str(tmp_path)))
