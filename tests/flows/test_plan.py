"""`ropeway compare-rope` as a user meets it, and what `ropeway plan` prints before and after it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.params_reading import validate_params
from data_schemas.stage_params import StageParams
from flows.check_inputs import check_inputs, check_parameters
from flows.commands.doctor import _model
from flows.commands.plan import Machine, print_plan
from flows.commands.plan_notes import foreseen_notes
from flows.config import load_config
from ray_jobs.finetune.planning import estimate
from ray_jobs.finetune.planning.estimate import Speed
from tests.flows.small_run import small_params, write_params
from tests.tiny_models import tiny_config
from tests.waiting import HANGS_AFTER_S

ROPEWAY = str(Path(sys.executable).parent / "ropeway")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> str:
    home = tmp_path_factory.mktemp("plan")
    return write_params(home / "small.yaml", small_params(home, tokenizer))


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def printed(params: PipelineParams, machine: Machine, capsys: pytest.CaptureFixture[str]) -> str:
    print_plan(params, machine)
    return capsys.readouterr().out


def test_a_plan_before_anything_is_read(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(load_config(config), Machine(tflops=0.001, budget_hours=0.0), capsys)
    for words in ("64 -> 128", "0.001 TFLOP/s", "activations", "optimizer", "Corpus: not read yet", "the budget of 0 h"):
        assert words in text
    assert "1 rows (all rows that a worker has in a step)" in text
    assert "What the evaluation can show:" in text
    assert "fine-tuned against scaling only at the longest length: " in text


def test_what_is_shown_until_factors_are_searched_was_not_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(
        load_config("demo", ["model.rope_method=longrope", "model.rope_length=null", f"storage={tmp_path}"]),
        Machine(tflops=1),
        capsys,
    )
    assert "longrope was asked for, and ntk is shown until its factors are searched; 4x is" in text
    assert "ntk was asked for" not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("training.full_attention_layers=[1]", "S2-Attn in groups of 32 tokens, full in layer 1"),
        ("training.full_attention_every=2", "S2-Attn in groups of 32 tokens, full in layer 1"),
        ("training.full_attention_layers=auto", "S2-Attn in groups of 32 tokens, full in 1 of the 2 layers, found by a probe"),
        ("training.norm_kernel=liger", "LlamaRMSNorm by Liger's kernel"),
    ],
)
def test_layers_in_full_and_norms_are_planned(config: str, capsys: pytest.CaptureFixture[str], change: str, words: str) -> None:
    assert words in printed(load_config(config, [change]), Machine(tflops=1), capsys)


def values_of(text: str, what: str) -> list[str]:
    """What the plan's tables have beside `what`."""
    cells = [[cell.strip() for cell in line.split("│")] for line in text.splitlines() if "│" in line]
    return [row[2] for row in cells if row[1] == what]


def test_steps_in_full_are_planned_as_such(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    every = printed(load_config(config, ["training.full_attention_steps=6"]), Machine(tflops=1), capsys)
    assert values_of(every, "attention in training") == [
        "full in all layers, because training.full_attention_steps covers all 6 steps"
    ]
    some = printed(
        load_config(config, ["training.full_attention_steps=2", "training.full_attention_layers=[1]"]),
        Machine(tflops=1),
        capsys,
    )
    assert values_of(some, "attention in training") == [
        "S2-Attn in groups of 32 tokens, full in layer 1; full in all layers in the last 2 of 6 steps"
    ]
    shared = ["training.full_attention_steps=6", "ray.num_workers=2", "ray.sequence_workers=2"]
    text = printed(load_config(config, shared), Machine(tflops=1), capsys)
    assert "a billion tokens over 2 workers" not in text
    assert "in a layer in groups" not in text
    assert "in a layer in full" in text


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ([], []),
        (["model.rope_length=512"], []),
        (
            ["model.rope_length=513"],
            [
                "model.rope_length 513 is more than 4 times the target of 128 tokens; up to 2 times were measured: is it meant so?"
            ],
        ),
        (
            ["training.stages=[{target_length: 96, rope_length: 400, steps: 2, warmup_steps: 2}, {target_length: 128}]"],
            [
                "training.stages[0].rope_length 400 is more than 4 times the target of 96 tokens; up to 2 times were measured: is "
                "it meant so?",
                "training.stages[0]: training.warmup_steps is not below training.steps, so the learning rate never reaches its peak",
            ],
        ),
        (["model.target_length=2048"], []),
        (["model.target_length=2112"], ["The target is 33 times the base's window; Ropeway is made for 2 to 32 times."]),
        (["training.warmup_steps=5"], []),
        (
            ["training.warmup_steps=6"],
            ["training.warmup_steps is not below training.steps, so the learning rate never reaches its peak"],
        ),
        (
            ["packing.row_length=96"],
            [
                "packing.row_length is 96, so training sees positions below 96 alone, and not those up to the target of 128: set "
                "training.position_skipping, or leave packing.row_length empty"
            ],
        ),
        (["packing.row_length=96", "training.position_skipping=2"], []),
        (
            ["training.position_skipping=2"],
            [
                "training.position_skipping skips nothing in a document that fills a row, because rows are as long as the target: set a "
                "smaller packing.row_length"
            ],
        ),
    ],
)
def test_what_a_user_may_not_have_meant_is_noted(config: str, changes: list[str], notes: list[str]) -> None:
    assert foreseen_notes(load_config(config, changes), 64) == notes


def test_notes_are_in_the_plan(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(load_config(config, ["training.warmup_steps=6", "training.loss_max_weight=3"]), Machine(tflops=1), capsys)
    assert "training.warmup_steps is not below training.steps, so" in " ".join(values_of(text, "note"))
    assert "not used: training.loss_max_weight, because training.loss_weighting is none" in text.splitlines()
    plain = printed(load_config(config), Machine(tflops=1), capsys)
    assert "not used" not in plain
    assert not values_of(plain, "retrieval mix") + values_of(plain, "short rows")


def test_mix_and_short_rows_are_planned(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    changes = [
        f"storage={tmp_path}",
        "retrieval.share=0.3",
        "retrieval.families=[key_value,fill_in,position]",
        "retrieval.heldout_families=[position]",
        "retrieval.answer_weight=0.4",
        "training.short_window_share=0.25",
    ]
    text = printed(load_config("demo", changes), Machine(tflops=1), capsys)
    assert values_of(text, "retrieval mix") == [
        "30% of the training tokens, as key_value, fill_in; answers have up to 40% of their loss"
    ]
    assert values_of(text, "short rows") == ["25% of the ordinary rows, cut into documents of at most 512 tokens"]
    lists = dict(short_factor=[1.0] * 32, long_factor=[2.0] * 32, attention_factor=1.0)
    (tmp_path / "factors.json").write_text(json.dumps(lists))
    rope = ["model.rope_method=longrope", f"model.rope_factors_file={tmp_path}/factors.json", "model.rope_length=null"]
    text = printed(load_config("demo", [*changes, *rope, "training.find_short_factors=true"]), Machine(tflops=1), capsys)
    after = "lists for short prompts are measured, in at most 142 passes of 512 tokens"
    assert values_of(text, "after training") == [after]
    searched = ["model.rope_method=longrope", "rope_search.short_factors=original", "training.find_short_factors=true"]
    text = printed(load_config("demo", [*changes, *searched, "model.rope_length=null"]), Machine(tflops=1), capsys)
    assert values_of(text, "after training") == [f"{after}, if the search's factors are taken"]
    one_list = ["rope_search.short_factors=original", "training.find_short_factors=true"]
    text = printed(load_config("demo", [*changes, *one_list]), Machine(tflops=1), capsys)
    assert values_of(text, "after training") == [
        "no list for short prompts is looked for, because prompts of all lengths have one list"
    ]


def test_layers_with_a_short_window_are_not_planned_in_groups(
    config: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Five of six layers see 4 tokens back, as in Gemma 3: a quarter of the sixth layer is one, not of all six."""
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    sizes = {"num_hidden_layers": 6, "layer_types": kinds}
    AutoModelForCausalLM.from_config(tiny_config("gemma3", vocab=384, **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    auto = {"training.full_attention_layers=auto": "layers", "training.full_attention_heads=auto": "key-value heads"}
    for change, what in auto.items():
        params = load_config(config, [f"model.base={tmp_path}", change])
        text = printed(params, Machine(tflops=1), capsys)
        choice = 1 if what == "layers" else 2
        assert f"groups of 32 tokens, full in 1 of the {choice} {what} that can be in groups, found by a probe" in text
        assert f"auto is 1 of {choice} {what} that can be in groups" in _model(params).found
    every = printed(
        load_config(config, [f"model.base={tmp_path}", "training.full_attention_every=2"]), Machine(tflops=1), capsys
    )
    assert "groups of 32 tokens, full in layer 5 " in every
    with pytest.raises(UserError, match="full_attention_layers names layer 0, which training never puts into groups"):
        print_plan(load_config(config, [f"model.base={tmp_path}", "training.full_attention_layers=[0,5]"]), Machine(tflops=1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            ["training.loss_weighting=exact", "packing.row_length=64"],
            "weights targets with 64 tokens of left context or more, the base's window, but rows have 64 tokens",
        ),
        (["packing.bucket_repeats={99: 2}"], r"packing\.bucket_repeats .*99"),
        (["publish.min_effective_length=4096"], r"publish\.min_effective_length is 4096, above model\.target_length 128"),
    ],
)
def test_a_plan_refuses_what_a_run_refuses(config: str, changes: list[str], words: str) -> None:
    params = load_config(config, changes)
    for check in (print_plan, check_inputs):
        with pytest.raises(UserError, match=words):
            check(params)


def test_layers_and_heads_that_config_json_does_not_have_are_refused_before_torch_is_loaded() -> None:
    code = (
        "import sys\n"
        "from data_schemas.errors import UserError\n"
        "from flows.check_inputs import check_inputs\n"
        "from flows.commands.plan import print_plan\n"
        "from flows.config import load_config\n"
        "for change in ('full_attention_layers=[9]', 'full_attention_heads=[[1,9]]', 'full_attention_every=9'):\n"
        "    for check in (print_plan, check_inputs):\n"
        "        try:\n"
        "            check(load_config('demo', [f'training.{change}']))\n"
        "        except UserError as error:\n"
        "            print(error)\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANGS_AFTER_S)
    assert told.returncode == 0, told.stderr
    layers, heads, every = (
        "training.full_attention_layers names 9, but the model has 4 layers: choose from 0 to 3.",
        "training.full_attention_heads names [1, 9], but the model has 4 layers with 2 key-value heads each, counted from 0.",
        "training.full_attention_every is 9, but the model has 4 layers: choose at most 4.",
    )
    assert told.stdout.splitlines() == [layers, layers, heads, heads, every, every, "[]"]


def factors_of(short: list[float], long: list[float]) -> str:
    return json.dumps({"short_factor": short, "long_factor": long})


def test_what_the_window_of_config_json_shows_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text(factors_of([1.0] * 16, [2.0] * 32))
    (tmp_path / "two.json").write_text(factors_of([1.0] * 32, [2.0] * 32))
    two_lists = (
        "rope_method longrope with two different lists cannot be trained on packed rows: the model picks a list by the longest document in "
        "a row, so rows without a document over 512 tokens would silently train short_factor; set training.short_window_share, give "
        "long_factor as both lists, or choose yarn."
    )
    extend = (
        "There is nothing to extend: target_length 512 is within the base's window of 512 tokens; choose a longer target, or use the base "
        "without Ropeway."
    )
    search = "There is nothing to search: model.target_length 512 is within the base's 512 tokens; choose a longer target."
    half = (
        "rope_factors_file is not for this model: short_factor has 16 numbers, and this model needs 32: "
        "correct the file, or choose yarn."
    )
    missing = (
        f"model.rope_factors_file {tmp_path}/no.json cannot be read, because "
        "there is no such file: give an existing one, or leave it out."
    )
    weighting = (
        "training.loss_weighting exact weights targets with 512 tokens of left context or more, the base's window, but rows have 256 "
        "tokens: set training.loss_long_from to less than that."
    )
    rows = (
        "training.short_window_share cuts documents at the base's window of 512 tokens, and rows have only 512: set it to 0, or make "
        "packing.row_length longer."
    )
    original = rows.replace("the base's window", "the original length")
    short_rows = ["training.short_window_share=0.2", "packing.row_length=512"]

    def staged(stage: str) -> list[str]:
        return [f"training.stages=[{stage}, {{target_length: 2048}}]"]

    def of_stage(tokens: int, sentence: str) -> str:
        return f"training.stages[0] ({tokens} tokens): {sentence}"

    factors = "model.rope_factors_file="
    cases = [
        (["model.target_length=512"], extend),
        (["model.target_length=512", "model.rope_method=longrope"], search),
        (short_rows, rows),
        ([*short_rows, f"{factors}{tmp_path}/two.json"], original),
        (["training.loss_weighting=exact", "packing.row_length=256"], weighting),
        (staged("{target_length: 512}"), of_stage(512, extend)),
        (
            staged("{target_length: 512, rope_method: longrope}"),
            of_stage(512, search.replace("model.target", "training.stages[0].target")),
        ),
        ([f"{factors}{tmp_path}/no.json"], missing),
        (
            staged(f"{{target_length: 1024, rope_factors_file: {tmp_path}/no.json}}"),
            of_stage(1024, missing.replace("model.rope", "training.stages[0].rope")),
        ),
        ([f"{factors}{tmp_path}/half.json"], half),
        ([f"{factors}{tmp_path}/two.json"], two_lists),
        (staged(f"{{target_length: 1024, rope_factors_file: {tmp_path}/half.json}}"), of_stage(1024, half)),
        (staged(f"{{target_length: 1024, rope_factors_file: {tmp_path}/two.json}}"), of_stage(1024, two_lists)),
    ]
    config = tmp_path / "my.yaml"
    config.write_text("run_name: a\ncorpus: {sources: [x]}\nmodel: {base: demo, target_length: 2048}\n")
    code = (
        "import json, sys\n"
        "from data_schemas.errors import UserError\n"
        "from flows.check_inputs import check_inputs\n"
        "from flows.commands.plan import print_plan\n"
        "from flows.config import load_config\n"
        "for changes in json.loads(sys.argv[2]):\n"
        "    for check in (print_plan, check_inputs):\n"
        "        try:\n"
        "            check(load_config(sys.argv[1], changes))\n"
        "        except UserError as error:\n"
        "            print(error)\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))\n"
    )
    given = [sys.executable, "-c", code, str(config), json.dumps([changes for changes, _ in cases])]
    told = subprocess.run(given, capture_output=True, text=True, timeout=HANGS_AFTER_S)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines() == [*(sentence for _, sentence in cases for _ in range(2)), "[]"]


@pytest.mark.parametrize("check", [print_plan, check_inputs])
def test_needles_that_leave_too_little_text_are_not_planned(check: Callable[[PipelineParams], object]) -> None:
    mapping = {"run_name": "a", "corpus": {"sources": ["stdlib:"]}, "rope_search": {"text_tokens": 600}}
    model = {"base": "demo", "target_length": 1024, "rope_method": "longrope"}
    with pytest.raises(UserError, match=r"8 needles and their questions take .* of 1024 tokens, which leaves too little text"):
        check(validate_params(mapping | {"model": model}, "this test"))
    stages = [{"target_length": 1024, "rope_method": "longrope"}, {"target_length": 2048}]
    staged = mapping | {"model": {"base": "demo", "target_length": 2048}, "training": {"stages": stages}}
    with pytest.raises(
        UserError, match=r"training\.stages\[0\] \(1024 tokens\): 8 needles .*raise training\.stages\[0\]\.target_length"
    ):
        check(validate_params(staged, "this test"))


def test_retrieval_documents_that_cannot_be_made_are_not_planned(config: str) -> None:
    with pytest.raises(UserError, match=r"Rows of 128 tokens are too short for retrieval\.families"):
        print_plan(load_config(config, ["retrieval.share=0.2"]), Machine(tflops=1))


def test_rows_over_several_workers_are_planned_and_lengths_may_be_left_out(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["ray.num_workers=2", "ray.sequence_workers=2", "training.s2_group_size=32", "evaluation.lengths=null"]
    text = printed(load_config(config, changes), Machine(tflops=1), capsys)
    for words in (
        "each row over 2 workers",
        "ring attention would send",
        "longest row",
        "a billion tokens over 2 workers",
        "What the evaluation can show:",
    ):
        assert words in text


def test_a_stage_too_short_for_its_retrieval_documents_is_named(config: str) -> None:
    stage = "{target_length: 96, retrieval_share: 0.5, retrieval_families: [position]}"
    told = (
        "training.stages[0] (96 tokens): Rows of 96 tokens are too short for training.stages[0].retrieval_families position (no "
        "sentence that can be asked about): leave position out, or raise training.stages[0].target_length."
    )
    with pytest.raises(UserError, match=re.escape(told)):
        check_parameters(load_config(config, [f"training.stages=[{stage}, {{target_length: 128}}]"]))


def test_rows_of_all_stages_count_and_auto_is_in_the_peak(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = (Speed(flops_per_s, f"speed {number}") for number, flops_per_s in enumerate((1e6, 1e6, 1e5), 1))
    monkeypatch.setattr(estimate, "find_speed", lambda *given: next(speeds))
    params = load_config(config, ["training.gradient_checkpointing=true", "model.rope_method=linear"])
    stages = (StageParams(target_length=96, steps=40), StageParams(target_length=128))
    params = params.model_copy(update={"training": params.training.model_copy(update={"stages": stages})})
    text = printed(params, Machine(tflops=1), capsys)
    assert "needs training, and 92 rows are too few" in text, "40 steps of 2 rows, and 6 of 2"
    assert "of the peak, and attention is not computed twice" in text
    peak = next(line for line in text.splitlines() if "peak, in" in line).split("│")[2].strip()
    last = next(line for line in text.splitlines() if "2: 128" in line)
    assert peak in last, "the same in both tables"
    time = next(line for line in text.splitlines() if "training time" in line and "at most about" in line)
    assert "speed 2" in time, "measured once"
    assert last.split("│")[7].strip() in time


def test_weights_and_skipped_positions_are_planned(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["training.loss_weighting=long_ce", "training.position_skipping=2", "packing.row_length=96"]
    text = printed(load_config(config, changes), Machine(tflops=1), capsys)
    for words in (
        "long_ce, for targets with 64 tokens of left context or more; a second forward pass adds up to",
        "each document in up to 2 parts, spread over 128 positions in rows of 96 tokens",
        "in 2 rows of 96",
        "micro batches of 1 x 96 tokens",
    ):
        assert words in text
    exact = printed(load_config(config, ["training.loss_weighting=exact"]), Machine(tflops=1), capsys)
    assert "exact, for targets with 64 tokens of left context or more" in exact
    assert "second forward pass" not in exact


def test_a_gpu_is_planned_without_one(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    params = load_config(config, ["ray.use_gpu=true", "training.precision=bf16", "training.rows_per_step=64"])
    text = printed(params, Machine(gpu_memory_gb=24), capsys)
    for words in ("largest micro batch in 24 GB", "give --tflops", "not measured", "stated by --gpu-memory"):
        assert words in text
    assert "no row fits" in printed(params, Machine(gpu_memory_gb=0.5, tflops=1), capsys)


@pytest.mark.slow
def test_compare_then_plan(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    compared = subprocess.run(
        [ROPEWAY, "compare-rope", config, "--documents", "3"], capture_output=True, text=True, timeout=HANGS_AFTER_S
    )
    assert compared.returncode == 0, compared.stderr
    for words in ("yarn", "linear", "dynamic", "ntk", "llama3", "none", "left out: longrope", "is best at 128 tokens"):
        assert words in compared.stdout
    *_, picture, folder = compared.stdout.split()
    assert Path(picture).is_file()
    assert Path(folder, "rope_samples.parquet").is_file()
    text = printed(load_config(config), Machine(tflops=0.001), capsys)
    assert "cut in any case" in text  # documents of some 600 tokens for a target of 128
    assert "Not yet measured" not in text  # it was


def test_a_dry_run_is_printed_beside_the_formula(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    params = load_config(
        config, ["ray.use_gpu=true", "training.precision=bf16", "ray.num_workers=2", "training.rows_per_step=2"]
    )
    print_plan(params, Machine(tflops=1), dry_run=True)
    text = capsys.readouterr().out
    for words in (
        "Dry run of one micro batch of 128 tokens, 2 workers, ddp",
        "no fault in training and validation on a GPU",
        "memory: peak",
        "the formula says",
        "sent by a worker: all-reduce",
        "TFLOP of a worker",
    ):
        assert words in text
