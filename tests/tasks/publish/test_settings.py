"""The settings of a release are for its own window, it carries no code, and everybody whom the umask lets can read it."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, pipeline

from data_schemas.errors import UserError
from tasks.model.extended import load_arm
from tasks.publish.checks import ProblemFound, failures
from tasks.publish.checksums import write_checksums
from tasks.publish.generation import check_generation
from tasks.publish.rounding import measure_rounding, refuse_too_coarse
from tasks.publish.verify import verify_release
from tests.modes import narrower_than_umask
from tests.tasks.release_example import TARGET, WINDOW, FinishedRun, finished_run

WINDOW_NAMES = ("max_seq_len", "seq_length", "model_max_length", "max_sequence_length", "max_seq_length", "seq_len")


def change_json(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(content | values))


def cutting(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A tokenizer whose file says that texts are cut and filled up at the old window, as some bases have it."""
    cut = copy.deepcopy(tokenizer)
    cut.backend_tokenizer.enable_truncation(WINDOW)
    cut.backend_tokenizer.enable_padding(length=WINDOW)
    return cut


def long_run(root: Path, tokenizer: PreTrainedTokenizerFast, method: str = "yarn") -> FinishedRun:
    """Its base states the old window wherever a base can."""
    run = finished_run(root, cutting(tokenizer), method)
    base = Path(run.params.model.base)
    change_json(base / "generation_config.json", max_length=WINDOW, max_new_tokens=None)
    change_json(
        base / "config.json",
        max_length=WINDOW,
        task_specific_params={"text-generation": {"max_length": 50, "do_sample": False}},
        auto_map={"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"},
        **dict.fromkeys(WINDOW_NAMES, WINDOW),
    )
    change_json(base / "tokenizer_config.json", model_max_length=WINDOW, auto_map={"AutoTokenizer": ["own.Tokenizer", None]})
    (base / "modeling_llama.py").write_text("raise SystemExit('code of a base must not run')\n")
    return run


@pytest.mark.parametrize("method", ["yarn", "linear", "dynamic"])
def test_a_release_generates_beyond_the_old_window_with_its_own_settings(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, method: str
) -> None:
    release = long_run(tmp_path, tokenizer, method).publish().path
    assert failures(verify_release(release)) == []
    model = AutoModelForCausalLM.from_pretrained(release)
    prompt = torch.arange(WINDOW + 40)[None]
    assert model.generation_config.max_length == TARGET
    made = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False)
    assert prompt.shape[1] < made.shape[1] <= TARGET

    written = json.loads((release / "config.json").read_text())
    assert {written[name] for name in WINDOW_NAMES} == {written["max_position_embeddings"]}
    assert "max_length" not in written
    assert written["task_specific_params"] == {"text-generation": {"max_length": TARGET, "do_sample": False}}
    loaded = AutoTokenizer.from_pretrained(release)
    text = "A rope bridge. " * 40
    assert len(json.loads((release / "tokenizer.json").read_text())["truncation"] or []) == 0
    assert len(loaded.backend_tokenizer.encode(text).ids) > WINDOW
    answer = pipeline("text-generation", model=model, tokenizer=loaded)(loaded.decode(prompt[0]), return_full_text=False)
    assert isinstance(answer[0]["generated_text"], str)


def test_without_a_stated_length_nothing_is_added_where_the_defaults_are_enough(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    release = finished_run(tmp_path / "yarn", tokenizer).publish().path
    assert "max_length" not in json.loads((release / "generation_config.json").read_text())


def test_settings_for_the_old_window_fail_the_verification(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    release = finished_run(tmp_path, tokenizer, "linear").publish().path
    model = AutoModelForCausalLM.from_pretrained(release)
    assert "generates after a prompt of 72 tokens" in check_generation(model, WINDOW, TARGET, 4096)
    assert "is not run here" in check_generation(model, WINDOW, TARGET, 10)
    model.generation_config.max_length = None
    with pytest.raises(ProblemFound, match=r"generate\(\) refuses a prompt of 72 tokens"):
        check_generation(model, WINDOW, TARGET, 4096)
    change_json(release / "generation_config.json", max_length=WINDOW)
    write_checksums(release)
    assert "generation: generation_config.json states max_length 64" in "; ".join(failures(verify_release(release)))


def test_no_code_travels_and_code_fails_the_verification(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    release = long_run(tmp_path, tokenizer).publish().path
    assert not list(release.rglob("*.py"))
    assert not [file.name for file in release.rglob("*.json") if '"auto_map"' in file.read_text()]
    (release / "modeling_llama.py").write_text("")
    change_json(release / "config.json", auto_map={"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"})
    found = "; ".join(failures(verify_release(release)))
    assert "no code: modeling_llama.py is Python code; config.json has auto_map, which names code to run" in found


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_every_artifact_follows_the_umask(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, mask: int) -> None:
    before = os.umask(mask)
    try:
        run = finished_run(tmp_path / "run", tokenizer, destinations=[str(tmp_path / "shared")])
        run.publish()
        assert narrower_than_umask(run.storage.root, mask) == []
        assert narrower_than_umask(tmp_path / "shared", mask) == []
    finally:
        os.umask(before)


def test_what_rounding_costs_is_measured_printed_and_recorded(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    run, lines = finished_run(tmp_path, tokenizer), []
    release = run.publish(lambda event: lines.append(str(event))).path
    recorded = json.loads((release / "provenance.json").read_text())["rounding"]
    merged = load_arm(run.params, "fine_tuned", run.checkpoint.path)
    rounded = AutoModelForCausalLM.from_pretrained(release, dtype=torch.float32)
    tokens = torch.tensor([json.loads((release / "verification" / "probes.json").read_text())["probes"][0]["token_ids"]])
    with torch.inference_mode():
        difference = (merged(tokens).logits - rounded(tokens).logits).abs()
    assert recorded["dtype"] == "bfloat16"
    assert 0 < recorded["mean"] < recorded["largest"]
    assert recorded["largest"] >= 0.95 * float(difference.max())
    assert recorded["mean"] == pytest.approx(float(difference.mean()), rel=0.5)
    assert any("bfloat16 weights change logits by at most" in line for line in lines)

    exact = finished_run(tmp_path / "exact", tokenizer, dtype="float32").publish().path
    assert json.loads((exact / "provenance.json").read_text())["rounding"]["largest"] == 0.0


@pytest.mark.parametrize("damage", [float("nan"), float("inf"), 1.2])
def test_a_cast_that_breaks_the_model_is_refused(damage: float) -> None:
    before = torch.linspace(-10, 10, 64).reshape(2, 4, 8)
    refuse_too_coarse(measure_rounding(before, before + 0.01, "bfloat16"))
    after = before.clone()
    after[1, 2, 3] += damage
    with pytest.raises(UserError, match=r"float16 weights change logits by at most .* set publish.dtype to float32"):
        refuse_too_coarse(measure_rounding(before, after, "float16"))
