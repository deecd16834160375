"""What a card says of servers: which ran on this release, which follow from rules, and what is not known."""

import json
import re
import shutil
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast
from transformers import __version__ as transformers_version

from benchmarks.servable_models import TARGET, publish_tiny
from data_schemas.errors import UserError
from tasks.publish.checks import failures
from tasks.publish.serving import llama_cpp
from tasks.publish.serving.llama_cpp import TEXT, fingerprint, why_unknown
from tasks.publish.serving.ran import FILE, read_ran, run_consumers
from tasks.publish.serving.table import serving_table
from tasks.publish.verify import verify_release
from tests import ROOT
from tests.tasks.release_example import finished_run

DEMO = ROOT / "tasks" / "model" / "demo_base"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_tiny(tmp_path_factory.mktemp("tiny"), "yarn")


def copied(tiny: Path, folder: Path) -> Path:
    return Path(shutil.copytree(tiny, folder / "copy"))


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def test_a_tokenizer_that_the_converter_refuses_makes_llama_cpp_unknown(tiny: Path, tmp_path: Path) -> None:
    known = {row.consumer: row for row in serving_table(tiny)}
    assert known["llama.cpp"].servable is known["ollama"].servable is True
    release = copied(tiny, tmp_path)
    shutil.copyfile(DEMO / "tokenizer.json", release / "tokenizer.json")
    for consumer in ("llama.cpp", "ollama"):
        row = next(row for row in serving_table(release) if row.consumer == consumer)
        assert row.servable is None
        assert "does not know how this tokenizer splits text" in row.reason
        assert row.commands == ()


def test_no_claim_about_a_tokenizer_hides_that_rope_does_not_survive(tmp_path: Path) -> None:
    release = publish_tiny(tmp_path, "dynamic")
    shutil.copyfile(DEMO / "tokenizer.json", release / "tokenizer.json")
    row = next(row for row in serving_table(release) if row.consumer == "llama.cpp")
    assert row.servable is False


def test_which_tokenizers_the_converter_takes(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers import Tokenizer

    assert why_unknown(tiny, config_of(tiny)) == ""
    assert "does not know" in why_unknown(tiny, config_of(tiny) | {"model_type": "qwen3"}), "bytes count for Llama alone"
    padded = config_of(tiny) | {"vocab_size": 400}
    assert "lacks a token for 16 rows" in why_unknown(tiny, padded)

    demo = config_of(DEMO)
    assert "does not know" in why_unknown(DEMO, demo)
    own = fingerprint(Tokenizer.from_file(str(DEMO / "tokenizer.json")).encode(TEXT).ids)
    monkeypatch.setattr(llama_cpp, "listed", lambda name: frozenset({own, "LlamaForCausalLM"}))
    assert why_unknown(DEMO, demo) == ""

    other = demo | {"architectures": ["NewForCausalLM"]}
    assert "does not know NewForCausalLM" in why_unknown(DEMO, other)
    (tmp_path / "tokenizer.model").touch()
    assert why_unknown(tmp_path, demo) == ""
    (tmp_path / "tokenizer.model").unlink()
    assert "neither a tokenizer.model nor a tokenizer.json" in why_unknown(tmp_path, demo)


def test_what_did_not_run_is_said_to_follow_from_rules_with_the_version_read(tiny: Path) -> None:
    rows = {row.consumer: row for row in serving_table(tiny)}
    assert rows["vllm"].how_known == (
        "not run on this release; follows from its rules, read in the source of 0.32.0; vLLM 0.32.0 ran on a tiny model with such a RoPE"
    )
    assert rows["sglang"].how_known == (
        "not run on this release; follows from its rule for the length, read in the source of main of 2026"
    )
    assert rows["ollama"].version == "(by llama.cpp b11549)"
    assert rows["ollama"].how_known.endswith(
        "read in the source of b11549; llama.cpp b11549 ran on a tiny model with such a RoPE"
    )


@pytest.mark.slow
def test_what_ran_before_publishing_is_on_the_card_with_its_version(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    release = finished_run(tmp_path, tokenizer, verify_with=("transformers-5",)).publish().path
    assert failures(verify_release(release)) == []
    assert read_ran(release)["transformers-5"].version == transformers_version
    (line,) = re.findall(r"^\| transformers .*\| run: .*$", (release / "README.md").read_text(), re.MULTILINE)
    assert f"run: {transformers_version} served {TARGET} tokens of this release before it was published" in line


@pytest.mark.slow
def test_nothing_is_published_if_a_program_computes_something_else(tiny: Path, tmp_path: Path) -> None:
    release = copied(tiny, tmp_path)
    config = config_of(release)
    for spelling in ("rope_parameters", "rope_scaling"):
        config[spelling]["factor"] = 2.0
    (release / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"was not published, because transformers-5 does not serve it as it was trained"):
        run_consumers(release, ("transformers-5",))
    assert not (release / FILE).exists()
    with pytest.raises(UserError, match=r"vLLM does not rescale with the length of a prompt"):
        run_consumers(publish_tiny(tmp_path, "dynamic"), ("vllm",))
