"""Which layers attend in full: by list, every k-th, or as many as `auto` keeps."""

import pytest
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from data_schemas.errors import UserError
from data_schemas.params import TrainingParams
from ray_jobs.finetune.full_layers import (
    FullLayers,
    auto_count,
    num_full_layers,
    ranked,
    read_full_layers,
    stated_full_heads,
    stated_full_layers,
    write_full_layers,
)
from ray_jobs.finetune.planning.shape import training_shape
from ray_jobs.finetune.training.loop import full_layers_of, set_up
from ray_jobs.preflight import refuse_untrainable
from tests.ray_jobs.finetune.training_example import ALONE, make_params, write_base
from tests.tiny_models import tiny_config


@pytest.mark.parametrize(
    ("training", "layers"),
    [
        ({"full_attention_layers": "none"}, ()),
        ({"full_attention_layers": []}, ()),
        ({"full_attention_layers": [5, 0, 5]}, (0, 5)),
        ({"full_attention_every": 1}, (0, 1, 2, 3, 4, 5, 6, 7)),
        ({"full_attention_every": 3}, (2, 5)),
        ({"full_attention_every": 4}, (3, 7)),
        ({"full_attention_every": 4, "attention": "full"}, ()),
        ({"full_attention_layers": [99], "attention": "full"}, ()),
    ],
)
def test_stated_layers_of_eight(training, layers):
    params = TrainingParams.model_validate(training)
    assert stated_full_layers(params, 8) == layers
    assert num_full_layers(params, 8, 2) == len(layers)


def test_an_empty_list_of_heads_is_none():
    empty = TrainingParams.model_validate({"full_attention_heads": []})
    assert (empty.probes_layers, empty.probes_heads) == (True, False)
    assert num_full_layers(empty, 30, 2) == num_full_layers(TrainingParams(), 30, 2) == 7


def test_auto_counts_the_layers_that_can_be_in_groups():
    """Gemma 3 270M has 18 layers, three of which see more than a window."""
    assert num_full_layers(TrainingParams(), 18, 1, (5, 11, 17)) == 1
    assert num_full_layers(TrainingParams(full_attention_heads="auto"), 18, 2, (5, 11, 17)) == 0.5
    assert num_full_layers(TrainingParams(), 18, 1, ()) == 0
    assert num_full_layers(TrainingParams(full_attention_every=4), 18, 1, (5, 11, 17)) == 1  # layer 11
    assert ranked((None, 0.5, None, 0.75)) == [3, 1]


def test_auto_keeps_a_quarter_of_the_layers_and_at_least_one():
    assert [auto_count(num_layers) for num_layers in (1, 3, 4, 7, 8, 30)] == [1, 1, 1, 1, 2, 7]
    auto = TrainingParams(full_attention_layers="auto")
    assert (num_full_layers(auto, 30, 2), stated_full_layers(auto, 30)) == (7, ())
    assert num_full_layers(TrainingParams(full_attention_layers="auto", attention="full"), 30, 2) == 0


@pytest.mark.parametrize(
    ("training", "words"),
    [
        (
            {"full_attention_layers": [1, 2, 7]},
            "full_attention_layers names 2, 7, but the model has 2 layers: choose from 0 to 1",
        ),
        (
            {"full_attention_heads": [[1, 0], [0, 9]]},
            r"full_attention_heads names \[0, 9\], but the model has 2 layers with 2 key-value heads each",
        ),
        ({"full_attention_every": 3}, "full_attention_every is 3, but the model has 2 layers: choose at most 2"),
    ],
)
def test_layers_that_the_base_does_not_have_are_refused_before_any_work(tmp_path, tokenizer, training, words):
    params = make_params(write_base(tmp_path, tokenizer, tied=True), **training)
    with pytest.raises(UserError, match=words):
        refuse_untrainable(params)


@pytest.mark.parametrize(
    ("kind", "training", "words"),
    [
        ("windows", {"full_attention_layers": [0, 3]}, "full_attention_layers names layer 0, which .* choose from 3, 7"),
        ("windows", {"full_attention_heads": [[2, 1]]}, "full_attention_heads names layer 2, which .* choose from 3, 7"),
        ("windows", {"full_attention_every": 6}, "full_attention_every 6 chooses layer 5, which .* choose from 3, 7"),
        ("convolutions", {"full_attention_layers": [2]}, "full_attention_layers names layer 2, which .* choose from 1, 3"),
        (
            "short windows alone",
            {"full_attention_layers": [1]},
            "names layer 1, which .* No layer of this base is ever in groups",
        ),
    ],
)
def test_layers_that_are_never_in_groups_are_refused_before_any_work(tmp_path, tokenizer, kind, training, words):
    """Full attention would change nothing in them: they keep their window, or do not attend."""
    params = make_params(write_mixed(tmp_path, tokenizer, kind), **training)
    with pytest.raises(UserError, match=words):
        refuse_untrainable(params)


def test_every_kth_layer_is_counted_where_it_can_be_in_groups(tmp_path, tokenizer):
    params = make_params(write_mixed(tmp_path, tokenizer, "windows"), full_attention_every=2)
    refuse_untrainable(params)
    objective, _ = set_up(params, ALONE)
    chosen = full_layers_of(objective, params, [], ALONE, None)
    assert chosen.layers == (3, 7)
    assert training_shape(params).num_full_layers(params) == 2


def write_mixed(folder, tokenizer, kind):
    """A base with layers that are never in groups of 24 tokens: a window of 4 in all layers or in all but 3 and 7, or convolutions."""
    name, sizes = {
        "windows": ("gemma3", {"layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 2, "num_hidden_layers": 8}),
        "short windows alone": ("mistral-window-below-group", {}),
        "convolutions": ("lfm2-convolution", {"layer_types": ["conv", "full_attention"] * 2, "num_hidden_layers": 4}),
    }[kind]
    base = write_base(folder, tokenizer, tied=True)
    AutoModelForCausalLM.from_config(tiny_config(name, vocab=384, length=32, **sizes)).save_pretrained(base)
    return base


def test_heads_are_counted_as_their_share_of_a_layer():
    auto = TrainingParams(full_attention_heads="auto")
    assert (auto.probes_layers, auto.probes_heads) == (False, True)
    assert num_full_layers(auto, 4, 2) == 1  # 2 of 8 heads
    assert num_full_layers(auto, 30, 3) == 22 / 3
    stated = TrainingParams(full_attention_heads=[[3, 1], [0, 0], [3, 1]])
    assert stated_full_heads(stated, 4, 2) == ((0, 0), (3, 1))
    assert num_full_layers(stated, 4, 2) == 1
    assert num_full_layers(TrainingParams(full_attention_heads="auto", attention="full"), 4, 2) == 0
    for wrong in ("some", [3], [[3]], [[0, -1]], [[0, True]]):
        with pytest.raises(ValidationError, match=r"give none, auto or a list of \[layer, head\]"):
            TrainingParams(full_attention_heads=wrong)


def test_chosen_heads_are_kept_and_described_with_every_score(tmp_path):
    chosen = FullLayers((), (0.1, -0.25, 0.5, 0.0), 1.5, ((1, 0),), 2)
    write_full_layers(tmp_path, chosen)
    assert read_full_layers(tmp_path) == chosen
    assert chosen.describe().startswith(
        "full attention in key-value head 0 of layer 1, groups in the others, chosen by a probe"
    )
    assert chosen.describe().endswith("0 of layer 1: +0.500; 0 of layer 0: +0.100; 1 of layer 1: +0.000; 1 of layer 0: -0.250")


def test_a_choice_is_kept_and_described_with_every_score(tmp_path):
    chosen = FullLayers((3,), (0.082, -0.006, 0.041, 0.763), 1.642)
    write_full_layers(tmp_path, chosen)
    assert read_full_layers(tmp_path) == chosen
    assert chosen.describe().startswith("full attention in layer 3, groups in the others, chosen by a probe")
    assert chosen.describe().endswith("3: +0.763; 0: +0.082; 2: +0.041; 1: -0.006")
    assert FullLayers((1, 3)).describe() == "full attention in layer 1, 3, groups in the others"


def test_nothing_is_kept_where_all_layers_are_in_groups(tmp_path):
    write_full_layers(tmp_path, FullLayers(()))
    assert read_full_layers(tmp_path) is None
    assert not list(tmp_path.iterdir())
