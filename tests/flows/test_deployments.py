"""prefect.yaml as `prefect deploy --all` registers it, its form's schema, and a process worker that runs it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.rope_search import FACTORS_NAME, RESULT_NAME, read_rope_search
from data_schemas.storage import Storage
from flows.config import load_config
from flows.deployments import DEFINITIONS, definitions, served
from flows.pipeline import extend_context
from flows.plain_stages import run_plainly
from ray_jobs.search_rope.__main__ import _search as search_job
from tasks.prefect_tasks.pages.elements import plain
from tasks.rope_search.plans import as_search
from tests import ROOT
from tests.flows.prefect_server import PrefectServer
from tests.flows.small_run import prepare_here, small_params, write_corpus
from tests.ray_jobs.search_rope.search_example import write_base as write_searched_base
from tests.waiting import HANGS_AFTER_S, wait_until

PREFECT = [sys.executable, "-m", "prefect"]
FLOWS = ("extend-context", "prepare", "search-rope", "finetune", "evaluate", "advise", "publish")


def schema() -> dict[str, Any]:
    return parameter_schema(extend_context).model_dump_for_openapi()


def fields(of: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for model, definition in of["definitions"].items():
        for name, field in definition.get("properties", {}).items():
            yield f"{model}.{name}", field


def test_the_form_shows_the_fields_in_their_order_with_titles_and_few_choices_of_type() -> None:
    form = schema()
    pipeline = form["definitions"]["PipelineParams"]["properties"]
    assert [name for name, _ in sorted(pipeline.items(), key=lambda item: item[1]["position"])] == list(
        PipelineParams.model_fields
    )
    for name, field in fields(form):
        assert "position" in field, name
        assert "title" in field or "$ref" in field, name
    assert [name for name, field in fields(form) if "anyOf" in field] == [
        "EvaluationParams.longppl_evaluator",
        "TrainingParams.full_attention_layers",
        "TrainingParams.full_attention_heads",
    ]
    titles = {name: field.get("title") for name, field in fields(form)}
    assert titles["TrainingParams.lora_rank"] == "LoRA rank"
    assert titles["EvaluationParams.num_samples"] == "Number of samples"
    assert form["definitions"]["TrainingParams"]["title"] == "Training"


@pytest.mark.parametrize(
    ("path", "value", "accepted"),
    [
        ("model.revision", None, True),  # no choice of None in the form, and yet accepted
        ("training.s2_group_size", None, True),
        ("evaluation.lengths", None, True),
        ("corpus.sources", ["/data/books", {"uri": "/data/code"}], True),
        ("packing.bucket_repeats", {"2048": 2}, True),
        ("model.target_length", 31, False),
        ("model.rope_method", "magic", False),
        ("training.s2_group_size", 1, False),
        ("training.full_attention_layers", None, False),
        ("training.full_attention_layers", "auto", True),
        ("training.full_attention_layers", [0, 3], True),
        ("training.full_attention_layers", "last", False),
        ("training.full_attention_layers", [-1], False),
        ("training.full_attention_heads", [[3, 0], [2, 1]], True),
        ("training.full_attention_heads", [3], False),
        ("training.steps", "many", False),
        ("corpus.sources", [], False),
        ("corpus.sources", ["https://me:pw@host/x"], False),  # no credential gets into Prefect's database
        ("corpus.sources", [{"uri": "https://host/x?token=abc"}], False),
        ("corpus.sources", ["sftp://me@host/x", "https://host/y?page=2"], True),
        ("storage", "s3://key:secret@bucket/x", False),
        ("run_name", "two words", False),
        ("trainning", {}, False),
    ],
)
def test_what_the_api_refuses_and_accepts_is_what_the_parameters_do(path: str, value: Any, accepted: bool) -> None:
    params = load_config("demo").model_dump(mode="json", exclude_unset=True)
    *group, name = path.split(".")
    (params.setdefault(group[0], {}) if group else params)[name] = value
    errors = validate({"params": params}, schema(), allow_none_with_default=True)
    assert (not errors) is accepted, errors
    if accepted:
        PipelineParams.model_validate(params)
    else:
        with pytest.raises(ValueError, match=name):
            PipelineParams.model_validate(params)


def test_the_repository_and_an_installed_package_have_one_file_and_the_demo_is_its_default() -> None:
    assert (ROOT / "prefect.yaml").resolve() == DEFINITIONS.resolve()
    demo = yaml.safe_load((DEFINITIONS.parent / "presets" / "demo.yaml").read_text())
    for definition in definitions():
        assert definition["parameters"] == {"params": demo}


@pytest.fixture(scope="module")
def worker(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """The server, everything deployed from the repository's folder, and a process worker."""
    home = tmp_path_factory.mktemp("worker")
    environment = prefect_server.environment(home)
    for command in (["work-pool", "create", "ropeway", "--type", "process"], ["deploy", "--all", "--no-prompt"]):
        done = subprocess.run([*PREFECT, *command], env=environment, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    with (home / "worker.log").open("w") as log:
        process = subprocess.Popen(
            [*PREFECT, "worker", "start", "--pool", "ropeway"], env=environment, cwd=home, stdout=log, stderr=log
        )
    try:
        yield prefect_server
    finally:
        process.terminate()
        process.wait(HANGS_AFTER_S)


def deployment(server: PrefectServer, flow: str) -> dict[str, Any]:
    found: dict[str, Any] = server.get(f"deployments/name/{flow}/ropeway")
    return found


def finished_run(server: PrefectServer, flow: str, params: dict[str, Any], tags: list[str]) -> dict[str, Any]:
    run = server.post(f"deployments/{deployment(server, flow)['id']}/create_flow_run", parameters={"params": params}, tags=tags)
    wait_until(lambda: server.flow_run(run["id"])["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED"), "the run ends")
    return server.flow_run(run["id"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return small_params(tmp_path_factory.mktemp("small"), tokenizer)


def test_deployed_and_served_are_the_same(worker: PrefectServer) -> None:
    for flow, definition in zip(FLOWS, definitions(), strict=True):
        deployed, ours = deployment(worker, flow), served(definition)
        for name in ("name", "description", "parameters", "entrypoint"):
            assert getattr(ours, name) == deployed[name], name
        assert set(ours.tags) == set(deployed["tags"])
        assert ours.concurrency_limit == deployed["global_concurrency_limit"]["limit"] == 1
        assert deployed["concurrency_options"]["collision_strategy"] == ours.concurrency_options.collision_strategy == "ENQUEUE"
        assert ours._parameter_openapi_schema.model_dump_for_openapi() == deployed["parameter_openapi_schema"]
        assert deployed["work_pool_name"] == "ropeway"
        assert [(s.slug, s.active) for s in ours.schedules] == [(s["slug"], s["active"]) for s in deployed["schedules"]]
    (nightly,) = deployment(worker, "extend-context")["schedules"]
    assert (nightly["slug"], nightly["active"], nightly["schedule"]["timezone"]) == ("nightly", False, "Europe/Berlin")
    assert served(definitions()[0], {"nightly": True}).schedules[0].active  # as somebody switched it on in the UI


def test_a_value_out_of_bounds_never_becomes_a_run(worker: PrefectServer, small: dict[str, Any]) -> None:
    path = f"deployments/{deployment(worker, 'prepare')['id']}/create_flow_run"
    with pytest.raises(AssertionError, match=r"409.*'params.model.target_length'.*minimum of 32"):
        worker.post(path, parameters={"params": small | {"model": small["model"] | {"target_length": 3}}})
    for source in ("s3://key:hunter2@bucket/x", {"uri": "https://host/x?token=hunter2"}):
        with pytest.raises(AssertionError, match="409"):
            worker.post(path, parameters={"params": small | {"corpus": small["corpus"] | {"sources": [source]}}})
    assert "hunter2" not in str(worker.post("flow_runs/filter"))


def test_values_that_do_not_fit_together_end_the_run_in_its_first_second_with_one_sentence(
    worker: PrefectServer, small: dict[str, Any]
) -> None:
    params = small | {"training": small["training"] | {"s2_group_size": 4096}}
    run = finished_run(worker, "extend-context", params, tags=["auto-scheduled"])
    assert (run["state"]["type"], run["state"]["message"]) == (
        "FAILED",
        "Wrong parameters in the run's parameters: training.s2_group_size is 4096, but rows have 128 tokens "
        "(model.target_length): choose fewer, such as a quarter, 32, or set training.attention to full and leave it empty.",
    )
    assert run["total_run_time"] < 1
    assert re.fullmatch(r"small \(base, yarn, 128\) \d{4}-\d\d-\d\d \d\d:\d\d UTC", run["name"])
    assert datetime.fromisoformat(run["start_time"]) <= datetime.fromisoformat(run["end_time"])
    assert not worker.post("task_runs/filter", task_runs={"flow_run_id": {"any_": [run["id"]]}})


def test_a_worker_runs_what_was_deployed_and_a_missing_file_is_one_sentence(
    worker: PrefectServer, small: dict[str, Any]
) -> None:
    done = finished_run(worker, "prepare", small | {"training": small["training"] | {"s2_group_size": None}}, tags=["mine"])
    assert done["state"]["type"] == "COMPLETED", done["state"]["message"]
    assert done["name"] == "prepare small (base, yarn, 128)"
    assert {"mine", "ropeway", "stage", "model:base", "rope:yarn", "length:128", "release:small"} <= set(done["tags"])
    folder = Path(done["state"]["message"].removeprefix("prepared: "))
    assert (folder / "manifest.json").is_file()
    gone = finished_run(worker, "prepare", small | {"model": small["model"] | {"base": "/nowhere/base"}}, tags=[])
    assert gone["state"]["message"].startswith("There is no base model folder /nowhere/base: ")
    logs = worker.post("logs/filter", logs={"flow_run_id": {"any_": [gone["id"]]}})
    assert not [log["message"] for log in logs if "Traceback" in log["message"]]


def test_a_search_by_a_worker_shows_its_table_and_is_that_of_a_job(
    worker: PrefectServer, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    write_searched_base(tmp_path / "base", tokenizer)
    write_corpus(tmp_path / "corpus")
    search = {
        "evaluations": 24,
        "generation_size": 4,
        "samples": 3,
        "finalists": 1,
        "deciding_samples": 4,
        "depths": 2,
        "knots": 2,
    }
    params = {
        "run_name": "searched", "storage": str(tmp_path / "storage"), "corpus": {"sources": [str(tmp_path / "corpus")]},
        "model": {"base": str(tmp_path / "base"), "target_length": 256, "rope_method": "longrope"},
        "rope_search": search | {"text_tokens": 16},
    }  # fmt: skip
    prepare_here(params)
    done = finished_run(worker, "search-rope", params, tags=[])
    assert done["state"]["type"] == "COMPLETED", done["state"]["message"]
    found = Path(done["state"]["message"].removeprefix("searched: "))
    result = read_rope_search(found / RESULT_NAME)
    page = worker.artifacts_of(done["id"])["rope-search"]["data"]
    assert page.startswith("## RoPE factors for 256 tokens")
    assert plain(result.verdict, 400) in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(result.forms)

    elsewhere = params | {"storage": str(tmp_path / "elsewhere")}
    prepare_here(elsewhere)
    given = PipelineParams.model_validate(elsewhere)
    job = search_job(given, Storage(given.storage), lambda _: None, {})
    assert job.digest == found.name
    for name in (FACTORS_NAME, RESULT_NAME):
        assert (job.path / name).read_bytes() == (found / name).read_bytes()
    assert run_plainly(as_search(given), "searched") == job.location, "the terminal finds it"


def test_a_flow_called_from_python_raises_what_is_wrong(prefect_server: PrefectServer, small: dict[str, Any]) -> None:
    from flows.pipeline import run_pipeline

    with temporary_settings({PREFECT_API_URL: prefect_server.url}):
        state = run_pipeline({**small, "ray": {"num_workers": 3}}, "prepared")
    assert state.is_failed()
    with pytest.raises(UserError, match=r"training\.rows_per_step is 2, not a multiple"):
        state.result()
