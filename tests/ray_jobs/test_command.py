"""The jobs' command line: parameters from anywhere, all of them documented."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from data_schemas.absolute_paths import absolute_paths
from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.params_help import describe_params
from data_schemas.params_reading import load_params
from data_schemas.progress import decode, describe
from ray_jobs.evaluate import evaluation_stage
from ray_jobs.finetune import checkpoint_stage
from ray_jobs.prepare import job as prepare_job
from ray_jobs.submit.submission import submission_name
from tests import PYTHONPATH, ROOT
from tests.s3_server import s3_server

DETERMINING: dict[str, Any] = {
    "prepare": prepare_job.determining, "finetune": checkpoint_stage.determining, "evaluate": evaluation_stage.determining,
}  # fmt: skip
GIVEN: dict[str, Any] = {
    "training": {"precision": "bf16"},  # the precision of `auto` is that of the machine
    "run_name": "r", "storage": "store", "corpus": {"sources": ["texts", "s3://b/x", "hf:a/b"]},
    "model": {"base": "demo", "target_length": 128},
}  # fmt: skip


def names_of(schema: dict[str, Any], definitions: dict[str, Any], prefix: str = "") -> set[str]:
    """Dotted names from pydantic's own schema, by another way than the help's."""
    found = set()
    for name, field in schema["properties"].items():
        options = [field, field.get("items", {}), *field.get("anyOf", []), *field.get("items", {}).get("anyOf", [])]
        inner = [option["$ref"].rsplit("/", 1)[1] for option in options if "$ref" in option]
        models = [definitions[key] for key in inner if "properties" in definitions[key]]
        many = "[]" if field.get("type") == "array" else ""
        found |= names_of(models[0], definitions, f"{prefix}{name}{many}.") if models else {prefix + name}
    return found


def test_help_names_every_parameter_with_choices_default_and_meaning() -> None:
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ray_jobs.evaluate", "--help"], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "pydantic" in imported
    assert not imported & {"ray", "torch", "transformers"}
    schema = PipelineParams.model_json_schema()
    listed = {line.split()[0]: line for line in describe_params().splitlines() if line.startswith("  ") and line[2] != " "}
    assert names_of(schema, schema["$defs"]) <= set(listed)
    assert all(line in shown.stdout for line in listed.values())
    assert listed["training.attention"].split(None, 1)[1] == "s2 | full  [s2]"
    assert "(required)" in listed["model.target_length"]
    assert ">= 32" in listed["model.target_length"]
    assert "Peak learning rate of the LoRA weights." in shown.stdout


@pytest.mark.usefixtures("servers")
def test_params_from_a_file_text_and_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(GIVEN)
    expected = PipelineParams.model_validate(GIVEN)
    (tmp_path / "p.json").write_text(text)
    for given in (text, str(tmp_path / "p.json"), f"file://{tmp_path}/p.json"):
        assert load_params(given) == expected
    with s3_server() as bucket:
        import fsspec

        with fsspec.open(f"{bucket}/p.yaml", "wb") as file:
            file.write(text.encode())
        assert load_params(f"{bucket}/p.yaml") == expected
        with pytest.raises(UserError, match="There is no parameter file"):
            load_params(f"{bucket}/other.yaml")
    (tmp_path / "large.json").write_bytes(b"{" + b" " * 5_000_000)
    for given, sentence in (
        (f"file://{tmp_path}/large.json", "larger than 4 MB"),
        (f"file://{tmp_path}/none.json", "There is no parameter file"),
        ("https://me:secret@127.0.0.1:1/p.json", "contains credentials"),
        ("https://127.0.0.1:1/p.json?X-Amz-Signature=secret", "contains credentials"),
        ("nowhere://x/p.json", "cannot be used|needs a package"),
    ):
        with pytest.raises(UserError, match=sentence) as raised:
            load_params(given)
        assert "secret" not in str(raised.value)


def test_an_outcome_is_written_for_what_fails_before_anything_runs(tmp_path: Path) -> None:
    params = json.dumps(GIVEN | {"storage": str(tmp_path)})
    digest = "0" * 32
    done = subprocess.run(
        [sys.executable, "-m", "ray_jobs.finetune", "--params", params, "--given", f"shards={digest}", "--outcome", "o.json"],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": PYTHONPATH}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"There is no shards/{digest} below the storage {tmp_path}" in done.stderr
    assert f"error: {json.loads((tmp_path / 'o.json').read_text())['error']}\n" in done.stderr


def test_a_followed_job_writes_events(tmp_path: Path) -> None:
    params = json.dumps(GIVEN | {"storage": str(tmp_path)})
    done = subprocess.run(
        [sys.executable, "-m", "ray_jobs.finetune", "--params", params, "--given", "shards=0", "--progress", "json"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    [event] = [found for line in done.stderr.splitlines() if (found := decode(line)) is not None]
    assert describe(event).startswith("error: --given shards=0 is not KIND=DIGEST: give 32 hex digits as DIGEST")


def test_a_job_refuses_artifacts_that_it_would_not_use(tmp_path: Path) -> None:
    params = json.dumps(GIVEN | {"storage": str(tmp_path)})
    for job, kind, kinds in (("finetune", "releases", "documents, shards, checkpoints"), ("prepare", "shards", "documents")):
        done = subprocess.run(
            [sys.executable, "-m", f"ray_jobs.{job}", "--params", params, "--given", f"{kind}=1"],
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert f"as KIND one of {kinds}." in done.stderr


def test_a_submitted_job_outlives_the_folder_it_was_uploaded_to(tmp_path: Path) -> None:
    (tmp_path / "uploaded").mkdir()
    code = (
        "import os, shutil, sys\n"
        "from ray_jobs.command import job_parser, run_command\n"
        "from data_schemas.errors import UserError\n"
        "def stage(params, storage, tell, given):\n"
        "    shutil.rmtree(sys.argv[-1])\n"
        "    raise UserError(f'{os.getcwd()} {params.corpus.sources[0].uri}')\n"
        "run_command(job_parser('prepare', '', ()).parse_args(sys.argv[1:-1]), stage)\n"
    )
    params = json.dumps(GIVEN | {"storage": str(tmp_path / "store")})
    done = subprocess.run(
        [sys.executable, "-c", code, "--params", params, "--outcome", "../o.json", str(tmp_path / "uploaded")],
        capture_output=True, text=True, cwd=tmp_path / "uploaded", check=False,
        env=os.environ | {"PYTHONPATH": PYTHONPATH, "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"},
    )  # fmt: skip
    assert done.returncode == 2
    error = json.loads((tmp_path / "o.json").read_text())["error"]
    assert error == f"{tempfile.gettempdir()} {tmp_path}/uploaded/texts"


def test_the_same_job_has_the_same_name_wherever_it_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def name(job: Any = "finetune", **groups: Any) -> str:
        params = PipelineParams.model_validate(GIVEN | groups)
        return submission_name(job, params, "checkpoints", {}, DETERMINING[job])

    assert name() == name(run_name="other") == name(ray={"address": "http://h:1", "env_vars": ["A"]})
    assert name() == name(evaluation={"num_documents": 3}, publish={"name": "n"})
    assert name("evaluate") != name("evaluate", evaluation={"num_documents": 3})
    different = {name(training={"steps": 1}), name(ray={"num_workers": 2}), name(storage="elsewhere"), name("prepare"), name()}
    assert len(different) == 5


def test_submission_ids_are_those_of_earlier_versions() -> None:
    """Recorded before the stages named what determines their jobs. A new parameter changes them: then record them again."""
    params = PipelineParams.model_validate(GIVEN)
    recorded = {
        ("prepare", "documents"): "ropeway-prepare-1483df113abca28d",
        ("finetune", "checkpoints"): "ropeway-finetune-cc0fbc63167a4658",
        ("evaluate", "evaluations"): "ropeway-evaluate-63982a46c69fe5d6",
    }
    given = {"evaluate": {"documents": "d", "checkpoints": "c"}}
    for (job, kind), expected in recorded.items():
        assert submission_name(job, params, kind, given.get(job, {}), DETERMINING[job]) == expected


def test_paths_are_absolute_and_names_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    params = absolute_paths(PipelineParams.model_validate(GIVEN | {"ray": {"working_dir": "."}}))
    assert [source.uri for source in params.corpus.sources] == [f"{tmp_path}/texts", "s3://b/x", "hf:a/b"]
    assert (params.storage, params.model.base, params.ray.working_dir) == (f"{tmp_path}/store", "demo", str(tmp_path))
