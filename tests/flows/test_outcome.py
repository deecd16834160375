"""What a terminal shows when a run has ended."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.params import PipelineParams
from data_schemas.report import record_json
from data_schemas.storage import Artifact, Storage
from flows.commands.from_samples import show_recomputed
from flows.commands.outcome import print_checks, print_outcome
from flows.commands.search_rope import show_search
from flows.config import load_config
from tasks.evaluate.report.result_files import SETTINGS_NAME, write_results
from tasks.publish.checks import Check
from tasks.publish.releases import point_current
from tasks.rope_search.plans import as_search, with_result
from tests.flows.test_training_stages import search_that_chose
from tests.tasks.evaluate.six_models import SETTINGS, six_samples
from tests.tasks.release_example import finished_run

STAGES = ("documents", "shards", "checkpoint", "evaluation", "release")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    write_results(folder, six_samples(), SETTINGS)
    six_samples().write(folder)
    (folder / SETTINGS_NAME).write_text(record_json(SETTINGS))
    return folder


@pytest.mark.parametrize("folder", ["", "evaluation"])
def test_the_closing_page_fits_one_screen(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setattr("flows.commands.outcome.serving_table", lambda release, address: [])  # there is no model to serve
    params = PipelineParams.model_validate(
        {
            "run_name": "nightly",
            "storage": str(tmp_path),
            "corpus": {"sources": ["x"]},
            "model": {"base": "demo", "target_length": 2048},
        }
    )

    def make(directory: Path) -> dict[str, Any]:
        (directory / folder).mkdir(exist_ok=True)
        for file in evaluated.iterdir():
            (directory / folder / file.name).write_bytes(file.read_bytes())
        return {}

    storage = Storage(params.storage)
    artifact: Artifact = storage.build("evaluations", stage="x", params={}, code_version=1, parents={}, make=make)
    entry = {"digest": artifact.digest, "path": artifact.location, "reused": False, "seconds": 1234.5}
    record = {stage: entry for stage in STAGES} | {"shards": entry | {"reused": True}, "old": entry | {"of_earlier_run": True}}
    storage.record_run(params.run_name, record)
    point_current(storage, params.release_name, artifact.digest)
    print_outcome(params, artifact.location)
    *page, last = capsys.readouterr().out.splitlines()
    assert last == artifact.location
    assert len(page) <= 22, "the path may need two rows"
    assert max(len(line) for line in page if str(tmp_path) not in line) <= 80
    text = "\n".join(page)
    assert "Run nightly: documents 20.6 min, shards reused" in text
    assert "old" not in text.split()
    assert f"Every figure and table: {artifact.path / folder / 'report.html'}" in text
    assert (artifact.path / folder / "report.html").is_file()
    assert "Does it work at 131072 tokens?" in text
    assert ("Served: it is the current version of nightly." in text) == bool(folder)


def test_a_release_that_is_served_names_three_commands(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished_run(tmp_path, tokenizer, current="always")
    release = run.publish()
    print_outcome(run.params, release.location)
    said = capsys.readouterr().out
    *_, title, verify, serve, reorder, last = said.splitlines()
    assert (title, last) == ("Next:", release.location)
    assert verify == f"  ropeway verify {release.path}"
    assert serve == f"  vllm serve {release.path} --max-model-len 256"
    assert reorder == f"  ropeway reorder --config {release.path} PASSAGES.jsonl"
    held = finished_run(tmp_path / "held", tokenizer, current="never")
    print_outcome(held.params, held.publish().location)
    said = capsys.readouterr().out
    assert "Next:" not in said
    assert "To serve it all the same:" in said


def test_from_samples_writes_the_page_and_prints_the_verdict(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_recomputed(evaluated, tmp_path / "again")
    assert (tmp_path / "again" / "report.html").read_bytes() == (evaluated / "report.html").read_bytes()
    said = capsys.readouterr().out
    assert "Does it work at 131072 tokens?" in said
    assert "All figures equal those" in said


def test_words_in_square_brackets_stay_in_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_checks([Check("files", False, "[text] is no file")])
    assert "[text] is no file" in capsys.readouterr().out
    show_search(search_that_chose(Storage(str(tmp_path)), "yarn"), load_config("demo"))
    assert "[interval], nats" in capsys.readouterr().out


@pytest.mark.parametrize("chosen", ["longrope", "yarn", "yarn_1.5", "ntk_critical"])
@pytest.mark.parametrize("config", ["demo-long", "demo"])
def test_what_a_search_tells_to_set_works_with_the_config_that_it_was_asked_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chosen: str, config: str
) -> None:
    stated = {  # a search on the base is refused with stages, and says to leave them out
        "demo": ["model.rope_length=null", "model.rope_method=auto", "model.rope_theta=3e5"],
        "demo-long": ["training.stages=[]"],
    }
    asked = ["model.target_length=2048", *stated[config]]
    params = load_config(config, asked)
    assert params.model.rope_length or params.model.rope_theta
    search = search_that_chose(Storage(str(tmp_path)), chosen)
    show_search(search, params)
    line = next(line for line in capsys.readouterr().out.splitlines() if "--set" in line)
    told = [word for word in line.split() if word.startswith("model.")]
    assert load_config(config, [*asked, *told]).model == with_result(as_search(params), search).model


@pytest.mark.parametrize("chosen", ["longrope", "yarn", "yarn_1.5", "ntk_critical"])
def test_what_a_search_tells_to_set_never_gives_the_evaluation_another_theta(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chosen: str
) -> None:
    asked = [
        "model.target_length=2048",
        "model.rope_length=null",
        "model.rope_theta=3e5",
        "evaluation.rope_methods=[theta,ntk]",
    ]
    params, search = load_config("demo", asked), search_that_chose(Storage(str(tmp_path)), chosen)
    show_search(search, params)
    line = next(line for line in capsys.readouterr().out.splitlines() if "--set" in line)
    told = [word for word in line.split() if word.startswith(("model.", "evaluation."))]
    taken = load_config("demo", [*asked, *told])
    assert taken.model.rope_method == with_result(as_search(params), search).model.rope_method
    assert "ntk" in taken.evaluation.rope_methods
    assert ("theta" in taken.evaluation.rope_methods) == (taken.model.rope_theta == 3e5)
