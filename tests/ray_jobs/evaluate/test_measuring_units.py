"""How the workload is cut, kept and measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.parts import Parts
from data_schemas.progress import SamplesMeasured, describe
from ray_jobs.evaluate.cost import Cost, Meter
from ray_jobs.evaluate.measuring_units import measure_arm, measure_unit, plan_units
from ray_jobs.evaluate.published_work import PublishedTexts
from ray_jobs.evaluate.workload import KeptWorkload, Workload, write_workload
from ray_jobs.finetune.planning.flops import ModelCost
from tasks.evaluate.heldout import HeldOutDocument, tokenize
from tasks.evaluate.perplexity import TargetDocument
from tasks.evaluate.prompts.make import make_prompts
from tasks.evaluate.prompts.material import Haystack, Material
from tasks.evaluate.protocols import ProtocolText
from tests.ray_jobs.evaluate.evaluation_example import LINE

SIZES: dict[str, Any] = {
    "vocab_size": 384, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip


def model(**changes: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(LlamaConfig(**SIZES | changes), attn_implementation="sdpa").eval()


@pytest.fixture(scope="module")
def workload(tokenizer: PreTrainedTokenizerFast) -> Workload:
    text = "".join(LINE.format(number, number * 7) for number in range(60))
    whole = tokenize("d", text, tokenizer)
    material = Material(tokenizer=tokenizer, haystack=Haystack.of([whole]), num_depths=3, num_samples=3, seed=0)
    prompts = {("passkey", length): tuple(make_prompts("passkey", length, material)) for length in (128, 192)}
    pieces = [whole.token_ids[i * 200 : (i + 1) * 200] for i in range(5)]
    documents = [HeldOutDocument(f"d{i}", ids, np.zeros(200, bool), 0) for i, ids in enumerate(pieces)]
    targets = tuple(TargetDocument.of(d, max_length=128, num_targets=8) for d in documents)
    texts = PublishedTexts(tuple(ProtocolText(f"d{i}", ids) for i, ids in enumerate(pieces)), None, False, 128)
    return Workload(targets, (32, 64, 128), prompts, True, ("yarn", "longlora"), published=texts)


@given(st.integers(1, 4000))
def test_every_item_is_in_one_unit_of_each_arm_and_no_sample_is_split(workload: Workload, batch_tokens: int) -> None:
    arms = ("base", "scaling_only")
    planned = plan_units(workload, arms, batch_tokens)
    assert [unit.number for unit in planned] == list(range(len(planned)))
    assert [unit.arm for unit in planned] == sorted(unit.arm for unit in planned), "arm by arm"
    covered: dict[tuple[str, str, str, int], list[int]] = {}
    for unit in planned:
        covered.setdefault((unit.arm, unit.kind, unit.name, unit.length), []).extend(range(unit.first, unit.last))
        assert unit.last - unit.first == 1 or sum(unit.window_lengths) <= 4 * batch_tokens
    for (_, kind, name, length), items in covered.items():
        assert sorted(items) == list(range(3 if kind == "task" or name == "longlora" else 5)), (
            "three of five texts begin a window"
        )
        assert (kind == "position") == (kind not in ("task", "protocol", "perplexity"))
        assert kind != "perplexity" or length < 128, "whole windows at the longest length give perplexity too"
    assert len(covered) == 2 * (3 + 6 + 2)
    assert sum(unit.num_samples for unit in planned) == 2 * (15 + 15 + 9 + 18)


def test_the_longest_units_come_first_and_rows_keep_their_order(workload: Workload, tokenizer: PreTrainedTokenizerFast) -> None:
    planned = plan_units(workload, ("base", "scaling_only"), 256)
    for arm in ("base", "scaling_only"):
        lengths = [unit.length for unit in planned if unit.arm == arm]
        assert lengths == sorted(lengths, reverse=True)
    assert sorted(unit.row for unit in planned) == list(range(len(planned)))
    in_rows = sorted(planned, key=lambda unit: unit.row)
    keys = [(unit.arm, unit.length, unit.kind, unit.name, unit.first) for unit in in_rows]
    assert [key[:2] for key in keys] == sorted(key[:2] for key in keys)
    rows = measure_arm(model(), "base", workload, tokenizer, batch_tokens=256)
    lengths = rows.task["length"].to_pylist()
    assert lengths == sorted(lengths)
    assert rows.task["sample"].to_pylist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] * 2


def test_arms_as_they_are_served_are_measured_up_to_the_base_window(workload: Workload) -> None:
    planned = plan_units(workload, ("fine_tuned", "fine_tuned_as_served"), 256, base_window=128)
    assert [unit.number for unit in planned] == list(range(len(planned)))
    of_each = {arm: {unit.length for unit in planned if unit.arm == arm} for arm in ("fine_tuned", "fine_tuned_as_served")}
    assert of_each == {"fine_tuned": {32, 64, 128, 192}, "fine_tuned_as_served": {32, 64, 128}}


def test_of_the_quantised_model_only_perplexity_is_measured(workload: Workload) -> None:
    planned = plan_units(workload, ("fine_tuned", "fine_tuned_quantised"), 256)
    kinds = {arm: {unit.kind for unit in planned if unit.arm == arm} for arm in ("fine_tuned", "fine_tuned_quantised")}
    assert kinds["fine_tuned_quantised"] == kinds["fine_tuned"] - {"task", "protocol"}
    assert "task" in kinds["fine_tuned"]


def test_a_kept_workload_is_measured_as_the_one_in_memory(
    workload: Workload, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    write_workload(workload, Parts(str(tmp_path)))
    kept, measured = KeptWorkload(Parts(str(tmp_path))), model()
    for unit in plan_units(workload, ("base",), 256):
        here, there = (measure_unit(measured, unit, source, tokenizer, 256) for source in (workload, kept))
        assert here == there


def test_dynamic_frequencies_do_not_depend_on_what_was_measured_before(
    workload: Workload, tokenizer: PreTrainedTokenizerFast
) -> None:
    dynamic = {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}}
    used, planned = model(**dynamic), plan_units(workload, ("base",), 256)
    backwards = {unit: measure_unit(used, unit, workload, tokenizer, 256) for unit in planned[::-1]}
    for unit in planned:
        assert measure_unit(model(**dynamic), unit, workload, tokenizer, 256) == backwards[unit]


def test_whole_windows_and_last_tokens_agree(workload: Workload, tokenizer: PreTrainedTokenizerFast) -> None:
    whole = measure_arm(model(), "base", workload, tokenizer, batch_tokens=256)
    last = measure_arm(
        model(), "base", Workload(workload.documents, workload.lengths), tokenizer, batch_tokens=256
    ).perplexity.to_pylist()
    assert [row["nll"] for row in whole.perplexity.to_pylist()] == pytest.approx([row["nll"] for row in last], abs=1e-4)
    assert len(whole.position) == 5 * 7


def test_gain_is_measured_against_the_control_without_the_needle(
    workload: Workload, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = measure_arm(model(), "base", workload, tokenizer, batch_tokens=256).task.to_pylist()
    for row in rows:
        assert row["gain"] == pytest.approx(row["logprob"] - row["control_logprob"])
        assert row["correct"] == (row["output"].strip() == row["golds"][0])
    assert len({row["control_logprob"] for row in rows}) == 6, "one control for all depths of a sample"


def test_each_key_has_its_own_control_without_its_value(workload: Workload, tokenizer: PreTrainedTokenizerFast) -> None:
    text = "".join(LINE.format(number, number * 7) for number in range(60))
    material = Material(
        tokenizer=tokenizer, haystack=Haystack.of([tokenize("d", text, tokenizer)]), num_depths=3, num_samples=2, seed=0
    )
    prompts = tuple(make_prompts("key_value", 768, material))
    asked = Workload(workload.documents, (128,), {("key_value", 768): prompts})
    network = model()
    rows = measure_arm(network, "base", asked, tokenizer, batch_tokens=1024).task.to_pylist()
    for prompt, row in zip(prompts, rows, strict=True):
        assert prompt.control is not None
        ids = torch.from_numpy(np.concatenate([prompt.control, prompt.answer]).astype(np.int64))[None]
        with torch.inference_mode():
            logprobs = network(ids).logits[0, :-1].double().log_softmax(-1)
        places = range(len(prompt.control) - 1, ids.shape[1] - 1)
        expected = sum(float(logprobs[place, ids[0, place + 1]]) for place in places)
        assert row["control_logprob"] == pytest.approx(expected, abs=1e-3)
    assert len({row["control_logprob"] for row in rows}) == len(rows)


def test_a_broken_model_is_named(workload: Workload, tokenizer: PreTrainedTokenizerFast) -> None:
    broken = model()
    torch.nn.init.constant_(broken.lm_head.weight, float("nan"))
    with pytest.raises(UserError, match="fine_tuned model gives log-probabilities that are not finite at 192 tokens"):
        measure_arm(broken, "fine_tuned", workload, tokenizer, batch_tokens=256)


COST = ModelCost(matrix_weights=100, trained_matrix_weights=0, layers=2, heads=4, kv_heads=2, head_dim=8)


def test_operations_by_hand() -> None:
    assert COST.forward_flops([3]) == 2 * 100 * 3 + 4 * 2 * 4 * 8 * (1 + 2 + 3)
    assert COST.forward_flops([3, 3]) == 2 * COST.forward_flops([3])


def test_progress_counts_samples_and_time_of_what_is_measured_now(workload: Workload) -> None:
    planned = plan_units(workload, ("base",), 256)
    heard: list[SamplesMeasured] = []
    meter = Meter(planned, {0, 1}, COST, heard.append)
    meter._last = -1e9  # the first event is not held back
    for unit in planned:
        meter.finished(unit)
    total = Cost.of(planned, COST).num_samples
    first, last = heard[0], heard[-1]
    assert (first.num_done, first.seconds_left) == (planned[0].num_samples, None)
    assert describe(first).endswith("samples, kept from an interrupted run")
    assert (last.num_done, last.num_samples, last.share) == (total, total, 1.0)
    assert describe(last).startswith(f"evaluate: {total} of {total} samples")
    assert [event.share for event in heard] == sorted(event.share for event in heard)
