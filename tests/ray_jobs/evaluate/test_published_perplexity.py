"""Perplexities as published equal those that the authors' code computed with the demo base on the same texts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_schemas.params import EvaluationParams, ModelParams
from data_schemas.report import EvaluationSettings
from ray_jobs.evaluate.key_tokens import find_key_spans
from ray_jobs.evaluate.measure import longppl_rows, protocol_rows
from ray_jobs.evaluate.published_work import PublishedTexts, published_texts
from tasks.evaluate.protocols import Protocol, ProtocolText
from tasks.evaluate.sample_set import SCHEMAS
from tasks.evaluate.statistics.perplexity_rows import protocol_rows as reported
from tasks.model.base_model import load_base, load_tokenizer
from tests.tasks.evaluate.published.authors import FACTS, facts

KNOWN = facts("perplexity")
LENGTHS = (128, 400)
SETTINGS = EvaluationSettings(
    target_tokens=8, confidence=0.95, seed=0, base_window=512, target_length=512, non_inferiority_margin=0.05
)


@pytest.fixture(scope="module")
def demo() -> tuple[Any, Any]:
    params = ModelParams(base="demo", target_length=512)
    return load_base(params).float().eval(), load_tokenizer(params)


@pytest.fixture(scope="module")
def texts(demo: tuple[Any, Any]) -> PublishedTexts:
    evaluation = EvaluationParams.model_validate(
        {"published": ["yarn"], "published_data": {"texts": str(FACTS / "texts.jsonl")}}
    )
    return published_texts(evaluation, LENGTHS, [], demo[1])


def figure(rows: list[dict[str, Any]]) -> float:
    (row,) = reported(pa.Table.from_pylist(rows, schema=SCHEMAS["protocol"]), ["base"], SETTINGS)
    return row.perplexity


@pytest.mark.parametrize("figure_name", KNOWN["figures"])
def test_yarn_and_longlora(figure_name: str, demo: tuple[Any, Any], texts: PublishedTexts) -> None:
    name, bos, length = figure_name.split(", ")
    protocol: Protocol = name  # type: ignore[assignment]
    given = PublishedTexts(texts.texts, texts.bos if bos == "bos" else None, False, max(LENGTHS))
    windows = given.windows(protocol, int(length))
    rows = protocol_rows(demo[0], "base", protocol, windows, int(length), 4096)
    assert figure(rows) == pytest.approx(KNOWN["figures"][figure_name], rel=2e-5)  # LongLoRA's code takes 2.71828 for e


def test_longppl(demo: tuple[Any, Any], texts: PublishedTexts) -> None:
    known, (model, tokenizer) = KNOWN["longppl"], demo
    cut = [ProtocolText(text.doc_id, text.token_ids[: known["max_length"] - 1]) for text in texts.texts]
    spans = [
        find_key_spans(
            model,
            tokenizer,
            tokenizer.decode(text.token_ids),
            batch_tokens=4096,
            short=known["trunc_len"],
            step=known["sliding_window"],
        )
        for text in cut
    ]
    assert [[list(span) for span in of_text] for of_text in spans] == [of["spans"] for of in known["texts"].values()]
    rows = longppl_rows(model, "base", cut, spans, known["max_length"], tokenizer)
    assert [row["num_tokens"] for row in rows] == [of["n_key_token"] for of in known["texts"].values()]
    ours = [float(np.exp(row["nll"] / row["num_tokens"])) for row in rows]
    assert ours == pytest.approx([of["longppl"] for of in known["texts"].values()], rel=1e-4)
    assert figure(rows) == pytest.approx(known["all"], rel=1e-4)


def test_the_texts_are_the_users(texts: PublishedTexts) -> None:
    assert len(texts.texts) == len((FACTS / "texts.jsonl").read_text().splitlines())
    assert json.loads((FACTS / "texts.jsonl").read_text().splitlines()[0])["text"]
