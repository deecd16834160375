"""Releases of bases whose attention or RoPE has something of its own: published, reloaded by transformers alone, and verified."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tasks.model.extended import load_arm
from tasks.publish.checks import failures
from tasks.publish.verify import verify_release
from tests.tasks.release_example import TARGET, WINDOW, finished_run
from tests.tasks.small_release import served_folder
from tests.tiny_models import tiny_config

YARN = {
    "rope_type": "yarn", "factor": 2.0, "rope_theta": 150_000.0, "original_max_position_embeddings": WINDOW // 2, "beta_fast": 32.0,
    "beta_slow": 1.0, "truncate": False,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "own"), [("gemma3", {}), ("gpt-oss", {"rope_parameters": YARN})])
def test_a_release_is_verified(kind: str, own: dict, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Gemma 3: RoPE by layer type. gpt-oss: attention sinks, experts, and YaRN in the base already."""
    config = tiny_config(kind, vocab=384, length=WINDOW, initializer_range=0.2, **own)
    run = finished_run(tmp_path, tokenizer, config=config, dtype="float32")
    run.publish()
    release = served_folder(run.storage, "tiny")
    assert release is not None
    assert failures(verify_release(release)) == []
    read = AutoModelForCausalLM.from_pretrained(release, dtype=torch.float32, attn_implementation="eager").eval()
    if kind == "gemma3":
        assert read.config.rope_parameters["sliding_attention"] == config.rope_parameters["sliding_attention"]
        assert read.config.rope_parameters["full_attention"]["factor"] == TARGET / WINDOW
    else:
        assert read.model.layers[0].self_attn.sinks.abs().min() > 0
        assert read.config.rope_parameters["factor"] == 2 * TARGET / WINDOW
    ids = torch.arange(2, 200)[None]
    with torch.no_grad():
        ours = load_arm(run.params, "fine_tuned", run.checkpoint.path)(ids).logits
        torch.testing.assert_close(read(ids).logits, ours, atol=1e-4, rtol=1e-4)
