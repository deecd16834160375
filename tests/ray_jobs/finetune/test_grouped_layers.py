"""Which layers can be in groups is what their attention does in training, for every architecture that is promised."""

import pytest
import torch
from transformers import AttentionInterface, AutoModelForCausalLM

import ray_jobs.finetune.attention as attention
from ray_jobs.finetune.grouped_layers import attention_windows, layers_in_groups
from tests.tiny_models import FURTHER, GROUP, KINDS, tiny_config, tiny_model

SHORT_EVERYWHERE = ("mistral-window-below-group",)
SHORT_IN_ONE = ("gemma2", "gemma3", "gpt-oss", "qwen2-window-in-one-layer")
WITHOUT_ATTENTION_IN_ONE = ("lfm2-convolution", "qwen3-next-linear-attention")


@pytest.mark.parametrize("kind", [*KINDS, *FURTHER])
def test_layers_that_can_be_in_groups_are_those_that_attend_in_groups(kind: str) -> None:
    """What each layer passes to the attention function in training decides it."""
    passed_on: dict[int, int | None] = {}

    def watched(module: torch.nn.Module, *tensors: torch.Tensor, **options: object) -> tuple[torch.Tensor, None]:
        passed_on[module.layer_idx] = options.get("sliding_window")  # type: ignore[index, assignment]
        return attention.s2_attention_forward(module, *tensors, **options)  # type: ignore[arg-type]

    model = tiny_model(kind)
    AttentionInterface.register("watched", watched)  # type: ignore[arg-type]
    attention.register_s2_attention()
    model.config._attn_implementation = "watched"
    model(torch.randint(2, 60, (1, 24)), position_ids=torch.arange(24)[None], use_cache=False)
    assert attention_windows(model, 2) == passed_on
    found = layers_in_groups(model, GROUP, 2)
    assert found == tuple(layer for layer, window in sorted(passed_on.items()) if window is None or window >= GROUP)
    expected = 0 if kind in SHORT_EVERYWHERE else 1 if kind in SHORT_IN_ONE + WITHOUT_ATTENTION_IN_ONE else 2
    assert len(found) == expected


def test_a_model_without_weights_tells_the_same() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_config("gemma3"))
    assert attention_windows(model, 2) == {0: 4, 1: None}
    assert [layers_in_groups(model, size, 2) for size in (4, 5)] == [(0, 1), (1,)]
