"""The advice as a stage: found again, asked once under kills, and wrong input is one sentence."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.parts import Parts
from data_schemas.samples import ADVICE_SAMPLES
from data_schemas.serving_advice import ServingAdvice, read_advice
from data_schemas.storage import Artifact, Storage
from ray_jobs.advise import advice_key, advice_stage, asking_units
from ray_jobs.preflight import refuse_unadvisable
from tasks.advise.questions import Question
from tests.heard import texts_into
from tests.ray_jobs.advise.advice_example import WINDOW, advice_params, documents_of, write_base
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    made = tmp_path_factory.mktemp("advice")
    write_base(made / "base", tokenizer)
    return made


@pytest.fixture(scope="module")
def advised(folder: Path) -> tuple[PipelineParams, Artifact, list[str]]:
    params, told = advice_params(folder), []
    storage = Storage(params.storage)
    return params, advice_stage.run(params, storage, documents_of(storage), None, texts_into(told)), told


def without_seconds(advice: ServingAdvice) -> ServingAdvice:
    return advice.model_copy(update={"results": tuple(one.model_copy(update={"seconds": 0.0}) for one in advice.results)})


def test_every_way_answers_the_same_questions_and_the_advice_is_found_again(advised: tuple) -> None:
    params, artifact, told = advised
    advice = read_advice(artifact.path)
    assert {way.way for way in advice.ways} >= {"full", "chunks", "map_reduce"}
    assert [one.kind for one in advice.advice] == ["local", "far_apart", "spread"]
    assert len(advice.results) == 3 * len(advice.ways)
    table = pq.read_table(artifact.path / advice_stage.SAMPLES_NAME)
    assert table.schema.equals(ADVICE_SAMPLES)
    asked = [json.loads(line)["id"] for line in (artifact.path / advice_stage.QUESTIONS_NAME).read_text().splitlines()]
    assert len(asked) == 6
    for way in advice.ways:
        assert table.filter(table["way"].to_numpy(zero_copy_only=False) == way.name)["question"].to_pylist() == asked
    full = next(one for one in advice.results if one.way == "full/scaling_only")
    assert WINDOW < full.prompt_tokens < 1024
    assert full.control_quality is None
    assert full.logprob is not None
    assert "full on base: no document fits its window of 256 tokens" in advice.note
    assert any("6 questions of 3 kind(s)" in line for line in told)
    storage = Storage(params.storage)
    assert advice_key.find(params, storage, documents_of(storage), None) is not None
    assert advice_stage.run(params, storage, documents_of(storage), None, lambda event: None).reused


def test_a_killed_run_goes_on_to_the_same_advice_and_asks_nothing_twice(advised: tuple, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "base").symlink_to(folder / "base")
    log = tmp_path / "storage" / ".parts"
    process = subprocess.Popen([sys.executable, "-m", "tests.ray_jobs.advise.advice_example", str(tmp_path)])
    wait_until(lambda: len(list(log.glob("*/reply-*"))) >= 25, "25 replies", process, step_s=0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in log.glob("*/reply-*")}
    params = advice_params(tmp_path)
    storage, kept = Storage(params.storage), {}

    def look(event: object) -> None:
        kept.update({path.name: path.stat().st_mtime_ns for path in log.glob("*/reply-*")})

    continued = advice_stage.run(params, storage, documents_of(storage), None, look)
    assert {name: kept[name] for name in before} == before
    assert len(kept) > len(before)
    whole = advised[1]
    assert continued.digest == whole.digest
    assert without_seconds(read_advice(continued.path)) == without_seconds(read_advice(whole.path))
    assert not any(log.glob("*"))


def test_another_limit_of_seen_text_asks_other_questions_anew(folder: Path, tmp_path: Path) -> None:
    params = advice_params(folder)
    stricter = params.model_copy(update={"evaluation": params.evaluation.model_copy(update={"max_seen_share": 0.01})})
    documents = documents_of(Storage(params.storage))
    assert advice_key.inputs_of(params, documents, None) != advice_key.inputs_of(stricter, documents, None)
    assert advice_stage.determining(params) != advice_stage.determining(stricter)
    parts = Parts(str(tmp_path / "parts"))
    question = Question(
        "a", "local", "d1", "Ann is here.", "Bob is here.", "Who?", ("Ann",), ((0, 12),), options=("Ann", "Bob")
    )
    for _ in range(2):  # the second time as after a kill
        asking_units.write_questions([question], parts)
    with pytest.raises(UserError, match="asked other questions than this one: remove that folder"):
        asking_units.write_questions([replace(question, document_id="d2")], parts)


def test_other_prices_make_another_advice_and_ask_nothing(
    advised: tuple, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, whole, _ = advised
    priced = advice_params(folder, prices={"prompt_per_million": 2.0, "answer_per_million": 10.0, "currency": "EUR"})
    monkeypatch.setattr(asking_units, "loaded_model", lambda *_: pytest.fail("a model was asked again"))
    storage, told = Storage(params.storage), []
    artifact = advice_stage.run(priced, storage, documents_of(storage), None, texts_into(told))
    assert artifact.digest != whole.digest
    assert any("answers are kept from an earlier run" in line for line in told)
    for result in read_advice(artifact.path).results:
        assert result.price == pytest.approx((2 * result.prompt_tokens + 10 * result.answer_tokens) / 1000)
    assert all(result.price is None for result in read_advice(whole.path).results)


def test_where_nothing_is_long_nothing_is_asked(folder: Path) -> None:
    params = advice_params(folder)
    model = params.model.model_copy(update={"target_length": 2048})
    params = params.model_copy(update={"model": model, "advise": params.advise.model_copy(update={"answer_tokens": 1})})
    storage = Storage(params.storage)
    config = folder / "base" / "config.json"
    text = config.read_text()
    try:
        config.write_text(text.replace('"max_position_embeddings": 256', '"max_position_embeddings": 1024'))
        told: list[str] = []
        artifact = advice_stage.run(params, storage, documents_of(storage), None, texts_into(told))
    finally:
        config.write_text(text)
    advice = read_advice(artifact.path)
    assert "Nothing is long: the longest of 4 held-out documents" in told[0]
    assert advice.overall == told[0].removeprefix("advise: ")
    assert [way.name for way in advice.ways] == ["full/base"]
    assert advice.results == ()


def test_wrong_input_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "storage"))
    params = advice_params(folder)
    with pytest.raises(UserError, match="has 200 tokens, so no questions can be made"):
        advice_stage.run(params, storage, documents_of(storage, num_lines=5), None, lambda event: None)
    shards = storage.build("shards", stage="shards", params={}, code_version=1, parents={}, make=lambda folder: {})
    with pytest.raises(UserError, match="has 200 tokens, so no questions can be made"):  # before any training
        advice_stage.refuse_unadvisable(params, storage, documents_of(storage, num_lines=5), shards)
    full_alone = advice_params(folder, ways=["full"], arms=["base"])
    said = r"No way can be measured: full on base: no document fits its window of 256 tokens\. Add to advise\.ways"
    with pytest.raises(UserError, match=said):
        advice_stage.run(full_alone, storage, documents_of(storage), None, lambda event: None)
    with pytest.raises(UserError, match=said):  # before any training
        advice_stage.refuse_unadvisable(full_alone, storage, documents_of(storage), shards)
    with pytest.raises(UserError, match=r"advise\.embedding_model '.*none' is not a model's folder"):
        refuse_unadvisable(advice_params(folder, embedding_model=str(tmp_path / "none")))
    with pytest.raises(UserError, match=r"advise\.qa_file .* is not there"):
        refuse_unadvisable(advice_params(folder, qa_file=str(tmp_path / "none")))
    said = r"advise\.passage_tokens is 252, but .* the base's window of 256 tokens .* 4: give less than 252, or remove base"
    with pytest.raises(UserError, match=said):
        refuse_unadvisable(advice_params(folder, passage_tokens=252))
    refuse_unadvisable(advice_params(folder, passage_tokens=251))
    refuse_unadvisable(advice_params(folder, passage_tokens=252, ways=["full"]))
    refuse_unadvisable(advice_params(folder, passage_tokens=252, arms=["scaling_only"]))
    with pytest.raises(UserError, match=r"the extended window of 1024 tokens .*: give less than 1020"):
        refuse_unadvisable(advice_params(folder, passage_tokens=1020, arms=["scaling_only"]))
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"question": "Who?", "answers": ["Ann"], "gold": "Ann went away."}) + "\n")
    with pytest.raises(UserError, match="`gold` is in none of the 4 held-out documents"):
        advice_stage.run(
            advice_params(folder, qa_file=str(questions)), storage, documents_of(storage), None, lambda event: None
        )
    with pytest.raises(ValueError, match="add both, or remove route"):
        advice_params(folder, ways=["chunks", "route"])
    with pytest.raises(ValueError, match="give both, or neither"):
        advice_params(folder, prices={"prompt_per_million": 1.0})
    assert not list((tmp_path / "storage").glob("advices/*"))
