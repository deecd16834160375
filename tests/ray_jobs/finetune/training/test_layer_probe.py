"""The probe that finds the layers which copy from far away."""

import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from data_schemas.params import PipelineParams
from ray_jobs.finetune.attention import is_full_layer
from ray_jobs.finetune.full_layers import FullLayers, ranked
from ray_jobs.finetune.grouped_layers import base_layers_in_groups
from ray_jobs.finetune.planning.shape import training_shape
from ray_jobs.finetune.training.layer_probe import probe_batches, probe_group_size, probe_layers
from ray_jobs.finetune.training.loop import set_up
from ray_jobs.finetune.training.objective import num_full_layers_of
from tasks.model.base_model import load_tokenizer
from tests.ray_jobs.finetune.training_example import ALONE, CPU, ROWS, Rows, make_params, packed, write_base
from tests.tiny_models import tiny_config


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer):
    return write_base(tmp_path_factory.mktemp("base"), tokenizer, tied=True)


def test_the_last_quarter_repeats_text_from_further_away_than_a_group():
    rows = Rows([packed(4000, seed=1), packed(300, seed=2)])
    for length, group_size in ((1024, 256), (512, 128), (512, 300)):
        batches = probe_batches(rows, length, group_size, 0, CPU)
        assert len(batches) == 8192 // length
        for batch in batches:
            ids, scored = batch.input_ids[0].numpy(), batch.scored[0].numpy()
            assert ids.shape == scored.shape == (length,)
            assert batch.position_ids[0].tolist() == list(range(length))
            text = length - length // 4
            for start in range(text, length, 32):
                windows = np.lib.stride_tricks.sliding_window_view(ids[:text], 32)
                found = np.flatnonzero((windows == ids[start : start + 32]).all(1))
                assert any(start - source > group_size + 31 for source in found)
                assert scored[start : start + 32].tolist() == [False] * 8 + [True] * 24
            assert not scored[:text].any()


@pytest.mark.parametrize("length", [32, 33, 48, 63, 64, 95, 127])
def test_the_shortest_probes_are_whole_too(length):
    for batch in probe_batches(Rows([packed(500, seed=1)]), length, length // 4, 0, CPU):
        assert batch.input_ids.shape == batch.position_ids.shape == batch.scored.shape == (1, length)
        assert 0 < batch.scored.sum() <= length // 4


@pytest.mark.parametrize(
    ("target", "row", "group", "expected"),
    [
        (2048, None, None, 512),
        (16384, None, 4096, 1024),  # a quarter of the row, as of the probe
        (16384, None, 8192, 1024),  # something is left further away
        (8192, 1024, None, 256),  # as in the rows
        (32, None, None, 8),
    ],
)
def test_groups_of_the_probe_are_those_of_the_training(tmp_path, target, row, group, expected):
    given = {"run_name": "x", "storage": str(tmp_path), "corpus": {"sources": [str(tmp_path)]}}
    given |= {
        "model": {"base": "demo", "target_length": target},
        "packing": {"row_length": row},
        "training": {"s2_group_size": group},
    }
    assert probe_group_size(PipelineParams.model_validate(given), min(target, 4096)) == expected


def test_the_probe_is_a_function_of_rows_and_seed():
    first, again, other = (probe_batches(ROWS, 96, 24, seed, CPU) for seed in (0, 0, 1))
    assert all(torch.equal(a.input_ids, b.input_ids) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].input_ids, other[0].input_ids)


@pytest.mark.parametrize("probed", [{"full_attention_layers": "auto"}, {"full_attention_heads": "auto"}])
def test_a_layer_whose_attention_is_not_used_scores_nothing(base, probed):
    params = make_params(base, **probed)
    objective, _ = set_up(params, ALONE)
    before = {name: p.detach().clone() for name, p in objective.named_parameters()}
    for name, parameter in objective.named_parameters():
        if "layers.0.self_attn.o_proj.base_layer" in name:
            parameter.data.zero_()
            before[name].zero_()
    found = probe_layers(objective, params, ROWS, ALONE)
    of_layer = len(found.scores) // 2
    assert not any(found.scores[:of_layer])
    assert all(found.scores[of_layer:])
    assert found == probe_layers(objective, params, ROWS, ALONE)
    assert num_full_layers_of(objective) == 0
    assert objective.training
    assert all(torch.equal(before[name], p) for name, p in objective.named_parameters())


@pytest.mark.slow
def test_the_demo_base_copies_in_its_last_layer_and_not_in_its_second():
    """As training shows: the last layer in full gains nearly all that full attention does, the second nothing (docs/attention.md)."""
    params = PipelineParams.model_validate(
        {"run_name": "t", "corpus": {"sources": ["x"]}, "model": {"base": "demo", "target_length": 1024, "rope_method": "yarn"},
         "training": {"precision": "fp32", "gradient_checkpointing": False, "full_attention_layers": "auto"}}
    )  # fmt: skip
    library = Path(sysconfig.get_paths()["stdlib"])
    tokenizer = load_tokenizer(params.model)
    rows = Rows(
        {"input_ids": np.array(tokenizer((library / name).read_text())["input_ids"], np.int32)}
        for name in ("argparse.py", "ast.py", "calendar.py", "configparser.py", "datetime.py", "difflib.py")
    )
    objective, _ = set_up(params, ALONE)
    found = probe_layers(objective, params, rows, ALONE)
    assert found.layers == (3,)
    assert ranked(found.scores)[-1] == 1
    assert found.scores[3] > 5 * max(found.scores[:3])
    by_head = params.model_copy(update={"training": params.training.model_copy(update={"full_attention_heads": "auto"})})
    heads = probe_layers(objective, by_head, rows, ALONE)
    assert len(heads.scores) == 8
    assert len(heads.heads) == 2
    assert heads.heads[-1][0] == 3  # the head that copies most is in the layer that does


def windowed(folder, tokenizer, num_layers, global_layers, window=4, **training):
    """Parameters and objective of a Gemma 3 with a window in all but the global layers, for groups of 24 tokens."""
    kinds = ["full_attention" if layer in global_layers else "sliding_attention" for layer in range(num_layers)]
    base = write_base(folder, tokenizer, tied=True)
    sizes = {"num_hidden_layers": num_layers, "layer_types": kinds, "sliding_window": window}
    config = tiny_config("gemma3", vocab=384, length=32, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    params = make_params(base, **training)
    return params, set_up(params, ALONE)[0]


@pytest.mark.parametrize(("probed", "chosen"), [("full_attention_layers", 1), ("full_attention_heads", 1)])
def test_layers_with_a_short_window_are_not_chosen_and_not_counted(tmp_path, tokenizer, probed, chosen):
    """As in Gemma 3 270M, where a quarter of all layers would be all that see far, and S2-Attn would do nothing."""
    params, objective = windowed(tmp_path, tokenizer, 8, (3, 7), **{probed: "auto"})
    assert objective.layers_in_groups(params) == (3, 7)
    found = probe_layers(objective, params, ROWS, ALONE)
    of_layer = len(found.scores) // 8
    assert [i // of_layer for i, score in enumerate(found.scores) if score is not None] == sorted([3, 7] * of_layer)
    assert len(found.layers) + len(found.heads) == chosen
    assert {*found.layers, *(layer for layer, _ in found.heads)} <= {3, 7}
    shape = training_shape(params)
    assert shape.num_full_layers(params) == chosen / of_layer
    assert base_layers_in_groups(params) == (3, 7)


def test_nothing_is_chosen_where_no_layer_can_be_in_groups(tmp_path, tokenizer):
    base = write_base(tmp_path, tokenizer, tied=True)
    config = tiny_config("mistral-window-below-group", vocab=384, length=32)
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    params = make_params(base, full_attention_layers="auto")
    objective, _ = set_up(params, ALONE)
    assert probe_layers(objective, params, ROWS, ALONE) == FullLayers(())
    assert training_shape(params).num_full_layers(params) == 0


def test_the_probe_leaves_windows_as_they_are_in_training(tmp_path, tokenizer):
    """Its groups are shorter than those of the training, so a window between both could be put into groups by the probe alone."""
    params, objective = windowed(tmp_path, tokenizer, 2, (1,), window=30, full_attention_layers="auto", s2_group_size=48)
    assert probe_group_size(params, 96) == 24
    was_full: dict[int, set[bool]] = {0: set(), 1: set()}
    for module in objective.modules():
        if hasattr(module, "is_causal"):
            module.register_forward_pre_hook(lambda module, _: was_full[module.layer_idx].add(is_full_layer(module)))
    found = probe_layers(objective, params, ROWS, ALONE)
    assert was_full == {0: {True}, 1: {True, False}}
    assert (found.scores[0], found.layers) == (None, (1,))
