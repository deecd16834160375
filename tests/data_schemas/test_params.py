"""Parameters refuse what cannot work, in sentences, and describe every field for the run form."""

import pytest
import yaml

from data_schemas.errors import UserError
from data_schemas.params import CorpusSource, PipelineParams
from data_schemas.params_reading import load_params
from flows.config import load_config, preset_names

MINIMAL = {"run_name": "a", "corpus": {"sources": ["texts"]}, "model": {"base": "demo", "target_length": 1024}}


def changed(**groups):
    return MINIMAL | {name: MINIMAL.get(name, {}) | value for name, value in groups.items()}


def test_a_source_may_be_a_plain_path_or_an_object():
    sources = [{"uri": "b", "licence": "MIT"}, "texts"]
    params = PipelineParams.model_validate(changed(corpus={"sources": sources}))
    assert params.corpus.sources == (CorpusSource(uri="b", licence="MIT"), CorpusSource(uri="texts"))


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        (
            {"training": {"s2_group_size": 2000}},
            "rows have 1024 tokens (model.target_length): choose fewer, such as a quarter, 256",
        ),
        ({"training": {"s2_group_size": 1024}}, "training.s2_group_size is 1024, but rows have 1024 tokens"),
        (
            {"training": {"s2_group_size": 512}, "packing": {"row_length": 512}},
            "training.s2_group_size is 512, but rows have 512 tokens (packing.row_length)",
        ),
        (
            {"training": {"full_attention_steps": 11, "steps": 10}},
            "training.full_attention_steps is 11, above training.steps 10",
        ),
        (
            {"training": {"full_attention_steps": 9, "stages": [{"target_length": 512, "steps": 8}, {"target_length": 1024}]}},
            "training.stages[0] (512 tokens): training.full_attention_steps is 9, above training.stages[0].steps 8: choose at most 8",
        ),
        (
            {"training": {"full_attention_steps": 9, "stages": [{"target_length": 512}, {"target_length": 1024, "steps": 8}]}},
            "training.full_attention_steps is 9, above training.stages[1].steps 8: choose at most 8",
        ),
        (
            {"training": {"stages": [{"target_length": 512, "rope_length": 256}, {"target_length": 1024}]}},
            "training.stages[0] (512 tokens): training.stages[0].rope_length 256 is below training.stages[0].target_length 512: choose 512",
        ),
        (
            {
                "training": {"stages": [{"target_length": 512, "rows_per_step": 3}, {"target_length": 1024}]},
                "ray": {"num_workers": 2},
            },
            "training.stages[0] (512 tokens): training.stages[0].rows_per_step is 3, not a multiple of ray.num_workers x "
            "training.micro_batch_rows",
        ),
        (
            {"training": {"stages": [{"target_length": 512, "rope_method": "theta"}, {"target_length": 1024}]}},
            "training.stages[0] (512 tokens): training.stages[0].rope_method theta needs model.rope_theta",
        ),
        (
            {"model": {"rope_method": "longrope"}, "rope_search": {"text_tokens": 1024}},
            "rope_search.text_tokens is 1024, not below model.target_length 1024",
        ),
        (
            {
                "training": {"stages": [{"target_length": 256, "rope_method": "longrope"}, {"target_length": 1024}]},
                "rope_search": {"text_tokens": 256},
            },
            "rope_search.text_tokens is 256, not below training.stages[0].target_length 256",
        ),
        (
            {"training": {"attention": "full", "full_attention_layers": [1]}},
            "training.full_attention_layers is for training.attention s2",
        ),
        (
            {"training": {"attention": "full", "full_attention_heads": [[1, 0]]}},
            "training.full_attention_heads is for training.attention s2",
        ),
        (
            {"training": {"attention": "full", "full_attention_heads": "auto"}},
            "training.full_attention_heads is for training.attention s2",
        ),
        (
            {"training": {"attention": "full", "full_attention_every": 2}},
            "training.full_attention_every is for training.attention s2",
        ),
        (
            {"training": {"attention": "full", "full_attention_steps": 2}},
            "training.full_attention_steps is for training.attention s2",
        ),
        ({"training": {"full_attention_every": 4, "full_attention_layers": [1]}}, "both choose layers: leave one of them out"),
        ({"training": {"full_attention_layers": "last"}}, "full_attention_layers: give none, auto or a list of layer numbers"),
        ({"training": {"full_attention_layers": [-1]}}, "such as [3], not [-1]"),
        ({"training": {"full_attention_layers": 3}}, "such as [3], not 3"),
        ({"chunking": {"max_tokens": 2048}}, "above model.target_length 1024"),
        ({"training": {"rows_per_step": 3}, "ray": {"num_workers": 2}}, "not a multiple of ray.num_workers"),
        ({"evaluation": {"lengths": [512, 4096]}}, "evaluation length 4096"),
        ({"evaluation": {"lengths": [-5]}}, "evaluation.lengths"),
        ({"evaluation": {"longppl_evaluator": "finetuned"}}, "evaluation.longppl_evaluator"),
        ({"publish": {"min_task_scores": {"passkey": 1.5}}}, "publish.min_task_scores"),
        ({"rope_search": {"evaluations": 0}}, "rope_search.evaluations"),
        ({"model": {"rope_method": "yarn", "rope_factors_file": "x.json"}}, "remove the file"),
        ({"model": {"rope_method": "theta"}}, "theta needs model.rope_theta"),
        ({"model": {"rope_method": "yarn", "rope_theta": 1e6}}, "model.rope_theta is for theta"),
        ({"model": {"rope_theta": 1e6, "rope_factors_file": "x.json"}}, "both choose a RoPE method"),
        ({"model": {"rope_theta": 1}}, "model.rope_theta"),
        (
            {"model": {"rope_method": "longrope", "rope_theta": 5e6}, "evaluation": {"rope_methods": ["theta"]}},
            "the search may choose a rope_theta of its own",
        ),
        ({"evaluation": {"rope_methods": ["theta"]}}, "theta, which needs model.rope_theta"),
        ({"training": {"average_last_steps": 11, "steps": 10}}, "choose at most 10"),
        ({"training": {"base_precision": "int4"}}, "training.base_precision"),
        (
            {"training": {"hidden_states": "bf16", "precision": "fp32"}},
            "training.hidden_states bf16 needs training.precision bf16",
        ),
        ({"training": {"optimizer": "adamw_8bit"}}, "adamw_8bit needs a GPU"),
        (
            {"training": {"optimizer": "adamw_8bit", "parallelism": "fsdp"}, "ray": {"use_gpu": True}},
            "adamw_8bit cannot be split over workers",
        ),
        ({"training": {"stages": [{"target_length": 1024, "steps": 0}]}}, "training.stages[0].steps"),
        ({"training": {"stages": [{"target_length": 512}, {"target_length": 256}]}}, "256, below the 512 of the stage before"),
        (
            {
                "training": {"stages": [{"target_length": 512, "retrieval_families": ["key_value"]}, {"target_length": 1024}]},
                "retrieval": {"share": 0.2, "heldout_families": ["key_value"]},
            },
            "training.stages[0] (512 tokens): retrieval.heldout_families holds every kind of training.stages[0].retrieval_families",
        ),
        (
            {"training": {"stages": [{"target_length": 1024}, {"target_length": 1024, "retrieval_families": ["keyword"] * 2}]}},
            "training.stages[1].retrieval_families names a kind twice",
        ),
        (
            {
                "training": {
                    "stages": [{"target_length": 512, "retrieval_share": 0.2}, {"target_length": 1024}],
                    "loss_kernel": "torch",
                },
            },
            "cannot weight tokens as training.stages[0].retrieval_share asks",
        ),
        ({"training": {"stages": [{"target_length": 512}]}}, "let the last stage have that length"),
        ({"training": {"stages": [{"target_length": 1024, "rope_method": "ntk"}]}}, "give model.rope_method instead"),
        (
            {"training": {"stages": [{"target_length": 512}, {"target_length": 1024}]}, "chunking": {"max_tokens": 600}},
            "training.stages[0] (512 tokens): chunking.max_tokens is 600",
        ),
        ({"packing": {"shard_megabytes": float("inf")}}, "packing.shard_megabytes"),
        ({"training": {"learning_rate": -1}}, "training.learning_rate"),
        ({"training": {"steps": "many"}}, "training.steps"),
        ({"model": {"rope_method": "ntkk"}}, "model.rope_method"),
        ({"training": {"stepps": 3}}, "training.stepps: no such parameter"),
        ({"corpus": {"sources": []}}, "corpus.sources"),
    ],
)
def test_what_cannot_work_is_one_sentence(tmp_path, groups, sentence):
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(changed(**groups)))
    with pytest.raises(UserError) as caught:
        load_params(str(path))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "groups",
    [
        {"training": {"s2_group_size": 511}, "packing": {"row_length": 512}},
        {"training": {"full_attention_steps": 10, "steps": 10}},
        {"training": {"attention": "full", "full_attention_layers": "auto", "full_attention_heads": "none"}},
        {"training": {"attention": "full", "full_attention_layers": "none", "full_attention_heads": []}},
        {"training": {"attention": "full", "full_attention_layers": [], "full_attention_every": 0}},
    ],
)
def test_defaults_and_limits_of_sparse_attention_may_stand(groups):
    PipelineParams.model_validate(changed(**groups))


def test_parameters_that_were_added_later_are_recorded_where_they_are_used():
    plain = PipelineParams.model_validate(changed())
    for params in (plain.training, plain.model):
        recorded = params.recorded()
        assert type(params).ADDED
        assert not type(params).ADDED & recorded.keys()
        assert recorded.keys() == type(params).model_fields.keys() - type(params).ADDED
    used = PipelineParams.model_validate(changed(training={"base_precision": "nf4", "dora": True}, model={"rope_theta": 1e6}))
    assert used.training.recorded() == plain.training.recorded() | {"base_precision": "nf4", "dora": True}
    assert used.model.recorded(exclude={"base"})["rope_theta"] == 1e6


def test_every_field_has_a_description():
    definitions = PipelineParams.model_json_schema()["$defs"]
    missing = [
        f"{model}.{name}"
        for model, schema in definitions.items()
        for name, field in schema["properties"].items()
        if not field.get("description")
    ]
    assert not missing


def test_settings_are_json_or_text_and_reach_nested_fields(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    params = load_config(str(path), ["training.steps=7", "run_name=other", 'corpus.sources=["x","y"]', "model.revision=null"])
    assert (params.training.steps, params.run_name, len(params.corpus.sources)) == (7, "other", 2)
    as_in_a_config = [
        "evaluation.tasks=[passkey, variable_tracking]",
        "packing.bucket_token_budgets={128: 5000}",
        "run_name=a-[b",
    ]
    with pytest.raises(UserError, match="run_name"):
        load_config(str(path), as_in_a_config)
    params = load_config(str(path), as_in_a_config[:2])
    assert params.evaluation.tasks == ("passkey", "variable_tracking")
    assert params.packing.bucket_token_budgets == {128: 5000}
    with pytest.raises(UserError, match="steps twice"):
        load_config(str(path), ["training={steps: 1, steps: 2}"])
    for wrong in ("training.steps", "=3", "run_name.x=1"):
        with pytest.raises(UserError, match="--set"):
            load_config(str(path), [wrong])


def test_presets_are_valid_and_an_unknown_one_names_them():
    assert {"demo", "smollm2", "gemma3-270m"} <= set(preset_names())
    for name in preset_names():
        load_config(name)
    with pytest.raises(UserError, match="demo"):
        load_config("no-such-preset")


def test_a_wrong_list_is_said_in_one_sentence(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    for setting, sentence in (
        ("corpus.sources=/texts", r"corpus\.sources: should be a list, such as \[/texts\]\.$"),
        ("advise.orders=none", r"advise\.orders: should be a list, such as \[none\]\.$"),
        ("advise.ways=", r"advise\.ways: should be a list\.$"),
        ("advise.ways=[chunk]", r": advise\.ways\[0\] is chunk: choose full, chunks, map_reduce, refine or route\.$"),
        ("retrieval.share=0.6", r": retrieval\.share is 0\.6: choose at most 0\.5\.$"),
        ("training.steps=0", r": training\.steps is 0: choose at least 1\.$"),
        ("training.learning_rate=0", r": training\.learning_rate is 0: choose more than 0\.$"),
        ("rope_search.confidence=1", r": rope_search\.confidence is 1: choose less than 1\.$"),
        ("model.rope_method=ntkk", r": model\.rope_method is ntkk: choose auto, linear, .* or theta\.$"),
        ('corpus.sources=[{"url": "/texts"}]', r"sources\[0\]\.url: no such parameter; check the spelling\.$"),
        ("advise.ways=[]", "advise.ways: Tuple should have at least 1 item"),
        ("run_name=[2024-13-45]", "run_name"),
    ):
        with pytest.raises(UserError, match=sentence):
            load_config(str(path), [setting])
    path.write_text("")
    with pytest.raises(UserError, match=r"my\.yaml is empty: give at least run_name, corpus and model"):
        load_params(str(path))


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "{"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"my\.yaml"):
        load_params(str(path))


def test_each_training_stage_is_a_run_of_its_own():
    stages = [
        {"target_length": 256, "steps": 3, "rope_method": "longrope"},
        {"target_length": 512, "rows_per_step": 2, "learning_rate": 1e-3},
        {"target_length": 1024},
    ]
    model = {"rope_method": "yarn", "rope_length": 2048}
    groups = {"model": model, "evaluation": {"lengths": [1024]}, "rope_search": {"text_tokens": 64}}
    given = changed(training={"stages": stages, "steps": 7}, **groups)
    params = PipelineParams.model_validate(given)
    found = [(p.model.target_length, p.model.rope_method, p.model.rope_length, p.training.steps) for p in params.by_stage()]
    assert found == [(256, "longrope", None, 3), (512, "yarn", 1024, 7), (1024, "yarn", 2048, 7)]
    assert [p.searches_rope for p in params.by_stage()] == [True, False, False]
    assert [p.training.rows_per_step for p in params.by_stage()] == [8, 2, 8]
    assert [p.evaluation.lengths for p in params.by_stage()] == [None, None, (1024,)]
    for stage in params.by_stage():  # as a worker reads it
        assert PipelineParams.model_validate(stage.model_dump(mode="json")) == stage
    alone = PipelineParams.model_validate(changed(training={"steps": 7}, **groups))
    assert params.by_stage()[-1] == alone
    assert alone.by_stage() == (alone,)


def test_training_stages_of_the_same_length_differ_in_their_retrieval_mix():
    stages = [
        {"target_length": 1024, "retrieval_share": 0.5, "answer_weight": 0.9, "retrieval_families": ["key_value_rounds"]},
        {"target_length": 1024},
    ]
    groups = {"retrieval": {"share": 0.1, "seed": 3}, "evaluation": {"lengths": [1024]}}
    model = {"rope_method": "yarn", "rope_length": 2048}
    params = PipelineParams.model_validate(changed(training={"stages": stages, "steps": 7}, model=model, **groups))
    first, last = params.by_stage()
    assert first.retrieval.model_dump() == {
        **params.retrieval.model_dump(), "share": 0.5, "answer_weight": 0.9, "families": ("key_value_rounds",),
    }  # fmt: skip
    assert first.model == last.model == params.model
    assert first.evaluation.lengths is None
    assert last == PipelineParams.model_validate(changed(training={"steps": 7}, model=model, **groups))
    for unused, arms in (({"rope_theta": 1e6}, "theta"), ({"rope_factors_file": "f.json"}, "longrope")):
        measured = changed(
            training={"stages": [{"target_length": 1024}] * 2},
            model={"rope_method": "yarn"} | unused,
            evaluation={"rope_methods": [arms]},
        )
        first, last = PipelineParams.model_validate(measured).by_stage()
        assert (first.model.rope_theta, first.model.rope_factors_file) == (None, None), "they are for an arm of the evaluation"
        assert (last.model.rope_theta, last.model.rope_factors_file) != (None, None)
    linear = [{"target_length": 1024, "rope_method": "linear"}, {"target_length": 1024}]
    first, last = PipelineParams.model_validate(changed(training={"stages": linear}, model=model)).by_stage()
    assert (first.model.rope_method, first.model.rope_length) == ("linear", None)
    assert (last.model.rope_method, last.model.rope_length) == ("yarn", 2048)


def test_a_run_without_stages_is_recorded_as_before_and_stages_without_their_files():
    assert "stages" not in PipelineParams.model_validate(MINIMAL).training.recorded()
    stages = [{"target_length": 512, "rope_method": "longrope", "rope_factors_file": "a.json"}, {"target_length": 1024}]
    recorded = PipelineParams.model_validate(changed(training={"stages": stages})).training.recorded()
    assert recorded["stages"] == [{"target_length": 512, "rope_method": "longrope"}, {"target_length": 1024}]


@pytest.mark.parametrize(("has_bf16", "used"), [(False, "fp32"), (True, "bf16")])
def test_hidden_states_follow_an_automatic_precision_and_a_line_says_so(has_bf16, used, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("data_schemas.precision.cpu_computes_bf16", lambda: has_bf16)
    config = tmp_path / "my.yaml"
    config.write_text(yaml.safe_dump(changed(training={"hidden_states": "bf16"})))
    params = load_config(str(config))
    assert (params.training.precision, params.training.hidden_states) == (used, used)
    said = capsys.readouterr().err
    assert said == (
        ""
        if has_bf16
        else "ropeway: training.precision auto is fp32 on this machine, so training.hidden_states is fp32 too, not bf16.\n"
    )
    assert load_params(params.model_dump_json()) == params, "it can travel to a job"
