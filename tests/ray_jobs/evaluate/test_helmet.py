"""The hand-over to HELMET: configs with HELMET's own argument names, and prompts that fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from ray_jobs.evaluate.helmet import KEY_VALUE_TOKENS, RULER_SETS, key_value_rows, main

# Of HELMET's `arguments.py` at 4526dfbdc512bd9ff721da336bff4e3e75ecfd27: those that a config may set here, with their types.
ARGUMENTS = {
    "model_name_or_path": str, "datasets": str, "test_files": str, "demo_files": str, "input_max_length": str,
    "generation_max_length": str, "use_chat_template": bool, "max_test_samples": int, "shots": int, "stop_newline": bool,
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


def test_configs_hold_helmets_arguments_and_lists_of_one_length(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model), str(tmp_path / "out"), "--lengths", "8192,16384"]) == 0
    written = [Path(line) for line in capsys.readouterr().out.split()]
    assert [path.name for path in written] == [f"helmet-{n}{end}.yaml" for n in (8192, 16384) for end in ("", "-try")]
    for path in written:
        config = yaml.safe_load(path.read_text())
        assert {name: type(value) for name, value in config.items()} == ARGUMENTS
        names = config["datasets"].split(",")
        lists = [config[name].split(",") for name in ("test_files", "demo_files", "input_max_length", "generation_max_length")]
        assert all(len(of) == len(names) for of in lists)
        assert "rope_theta" not in config, "it would override the scaling in config.json"
        assert config["model_name_or_path"] == str(model)
    assert yaml.safe_load(written[0].read_text())["datasets"].split(",") == [name for name, _, _ in RULER_SETS]


def test_generated_prompts_fit_and_name_an_answer(tokenizer: PreTrainedTokenizerFast, tmp_path: Path, model: Path) -> None:
    rows = key_value_rows(8192, tokenizer, 3, seed=1)
    for row in rows:
        pairs = json.loads(row["context"].removeprefix("JSON data:\n"))
        assert pairs[row["question"]] == row["answer"]
        assert len(pairs) == row["num_kvs"]
        assert row["question"] not in dict(row["demos"])
        used = len(tokenizer(row["context"])["input_ids"])
        assert 0.7 * 8192 < used + KEY_VALUE_TOKENS < 8192
    assert rows == key_value_rows(8192, tokenizer, 3, seed=1)
    with pytest.raises(UserError, match="give longer --lengths"):
        key_value_rows(400, tokenizer, 1, seed=1)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(tmp_path / "out"), "--lengths", "8192"]) == 1
    assert "has no config.json" in capsys.readouterr().err
