"""The whole chain in real processes: run, run again, killed in every stage and run again."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from data_schemas.modes import umask
from flows.config import load_config
from flows.finished import find_finished
from tests.flows.prefect_server import copy_tables
from tests.flows.small_run import CHAT_TEMPLATE, small_params, with_conversations, write_params
from tests.modes import narrower_than_umask
from tests.waiting import HANGS_AFTER_S, EndedTooSoon, interrupted, wait_until

ROPEWAY = str(Path(sys.executable).parent / "ropeway")
pytestmark = pytest.mark.usefixtures("servers")


def start(config, home, *options, **variables):
    environment = os.environ | {"PREFECT_HOME": str(home / "prefect"), "OMP_NUM_THREADS": "1"} | variables
    log = (home / "log.txt").open("a")
    return subprocess.Popen(
        [ROPEWAY, "run", config, *options],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=environment,
        start_new_session=True,
    )


def finish(config, home, *options, **variables):
    process = start(config, home, *options, **variables)
    output, _ = process.communicate(timeout=HANGS_AFTER_S)
    assert process.returncode == 0, (home / "log.txt").read_text()[-4000:]
    return Path(output.strip().splitlines()[-1]), output


def record(storage):
    return json.loads((storage / "runs" / "small.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(prefect_server, prefect_tables, tmp_path_factory, tokenizer):
    """(home, release, output) of a run that nothing happened to, on a temporary server whose tables are those of the running one."""
    home = tmp_path_factory.mktemp("undisturbed")
    copy_tables(prefect_tables, home / "prefect")
    params = with_conversations(
        small_params(home, tokenizer, ray={"num_workers": 1}), home
    )  # two: test_job.py and test_actors.py
    release, output = finish(write_params(home / "run.yaml", params), home)
    return home, release, output


def test_documents_in_a_release_out(undisturbed):
    home, release, output = undisturbed
    assert release.is_dir()
    current = home / "storage" / "releases" / "small" / "current"
    assert current.read_text().strip() == release.name
    for name in (
        "config.json",
        "chunk_reorder.json",
        "README.md",
        "provenance.json",
        "data_card.md",
        "data_card.json",
        "SHA256SUMS",
        "adapter/adapter_config.json",
    ):
        assert (release / name).is_file(), name
    for said in ("Run small: documents ", "Does it work at 128 tokens?", "evaluation/report.html", "Next:"):
        assert said in output
    assert len(output.splitlines()) <= 24
    page = (release / "evaluation" / "report.html").read_text()
    for said in ("float32 on CPU", "base, scaling only, fine-tuned", "corpus, chats; "):
        assert said in page
    assert str(home) not in page
    assert subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=release).returncode == 0
    documents = json.loads((Path(record(home / "storage")["documents"]["path"]) / "manifest.json").read_text())
    assert documents["summary"]["quarantined"] == {"undecodable": 1, "no_role": 1}


def test_instruction_data_is_learned_asked_and_published(undisturbed):
    home, release, _ = undisturbed
    told = json.loads((release / "provenance.json").read_text())["instructions"]
    assert 0 < told["answer_tokens"] < told["tokens"]
    assert f"{told['conversations']} conversations with {told['answers']} answers" in (release / "data_card.md").read_text()
    log = [json.loads(line) for line in (Path(record(home / "storage")["checkpoint"]["path"]) / "training_log.jsonl").open()]
    assert all("weighted_loss" in step for step in log)
    assert "asked through the chat template" in (release / "evaluation" / "report.html").read_text()
    assert CHAT_TEMPLATE in (release / "chat_template.jinja").read_text()


def test_whom_the_umask_lets_read_reads_every_artifact(undisturbed):
    home, _, _ = undisturbed
    stages = [home / "storage" / kind for kind in ("documents", "shards", "checkpoints", "evaluations", "releases", "runs")]
    assert [line for stage in stages for line in narrower_than_umask(stage, umask())] == []


def test_the_release_verifies_from_the_command_line(undisturbed):
    _, release, _ = undisturbed
    done = subprocess.run([ROPEWAY, "verify", str(release)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_running_again_makes_nothing(undisturbed):
    home, release, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in release.rglob("*")}
    again, _ = finish(str(home / "run.yaml"), home)
    assert again == release
    assert all(entry["reused"] for entry in record(home / "storage").values())
    assert {path: path.stat().st_mtime_ns for path in release.rglob("*")} == before


def test_a_run_with_nothing_to_do_loads_nothing_heavy(undisturbed):
    home, release, _ = undisturbed
    code = (
        "import sys; sys.argv = ['ropeway', 'run', sys.argv[1]]\n"
        "from flows.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'ray', 'prefect', 'spacy', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(home / "run.yaml")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == str(release)
    assert "release reused" in done.stdout


def test_a_changed_parameter_is_not_found_finished(undisturbed):
    home, *_ = undisturbed
    for changes, is_found in (([], True), (["training.steps=7"], False), (["publish.dtype=bfloat16"], False)):
        params = load_config(str(home / "run.yaml"), changes)
        assert bool(find_finished(params, "published", announces=True)) is is_found, changes


def test_a_release_whose_event_was_not_sent_is_not_finished_with_prefect(undisturbed):
    home, *_ = undisturbed
    params = load_config(str(home / "run.yaml"), [])
    announced = next((home / "storage" / "releases").rglob("announced"))
    content = announced.read_bytes()
    announced.unlink()
    try:
        assert find_finished(params, "published", announces=True) is None
        assert find_finished(params, "published", announces=False)
    finally:
        announced.write_bytes(content)


@pytest.mark.slow
def test_a_model_that_is_no_better_is_kept_and_the_command_says_so_and_exits_3(undisturbed, prefect_server, tmp_path):
    home, _, _ = undisturbed
    params = yaml.safe_load((home / "run.yaml").read_text())
    params |= {"run_name": "kept", "publish": params["publish"] | {"name": "kept", "current": "if_better"}}
    process = start(write_params(tmp_path / "run.yaml", params), tmp_path, PREFECT_API_URL=prefect_server.url)
    output, _ = process.communicate(timeout=HANGS_AFTER_S)
    assert process.returncode == 3, (tmp_path / "log.txt").read_text()[-4000:]
    *page, last = output.strip().splitlines()
    kept = Path(last)
    assert (kept / "manifest.json").is_file()
    assert not (kept.parents[1] / "current").exists()
    assert "Not served: this version is kept, and kept serves no version yet." in page
    assert f"  ropeway rollback kept {kept.name[:12]} --at {params['storage']}" in page


def test_a_prefect_server_shows_the_run_with_tables_and_plots(undisturbed, prefect_server, tmp_path):
    home, release, _ = undisturbed
    params = yaml.safe_load((home / "run.yaml").read_text())
    params |= {"run_name": "seen", "publish": params["publish"] | {"name": "small"}}
    again, _ = finish(write_params(tmp_path / "run.yaml", params), tmp_path, PREFECT_API_URL=prefect_server.url)
    assert again == release
    (run,) = prefect_server.runs_of("seen")
    assert run["state"]["type"] == "COMPLETED"
    assert {"model:base", "length:128", "rope:yarn"} <= set(run["tags"])
    tasks = prefect_server.post("task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
    assert sorted(task["name"] for task in tasks) == [
        f"{stage} base 64 -> 128 yarn" for stage in ("evaluate", "finetune", "ingest", "prepare", "publish")
    ]
    assert all({"model:base", "length:128", "rope:yarn"} <= set(task["tags"]) for task in tasks)
    log = [entry["message"] for entry in prefect_server.post("logs/filter", logs={"flow_run_id": {"any_": [run["id"]]}})]
    for name in ("ingest", "prepare", "finetune", "evaluate", "publish"):
        assert any(line.startswith(f"{name}: base 64 -> 128 yarn, on this machine, storage ") for line in log), log
        assert any(line.startswith(f"{name}: found in ") and str(home / "storage") in line for line in log), log
    assert_pages_are_shown(prefect_server.artifacts_of(run["id"]))


def assert_pages_are_shown(artifacts):
    for stage in ("ingest", "prepare", "finetune", "evaluate", "publish"):
        assert artifacts[f"{stage}-summary"]["type"] == "table"
    told = {
        "corpus": ("corpus/broken.txt |", "undecodable", "| corpus | unknown | 14 |", "held out"),
        "packing": ("rows of up to 128 tokens", "### Tokens by source and length of document", "| corpus | 128 and longer |"),
        "training": ("Step 6 of 6.", "| held-out loss, full attention |", "RoPE: yarn x2"),
        "evaluation-tables": (
            "Open `report.html` in `",
            "Does it work at 128 tokens?",
            "| fine-tuned |",
            "### Effective context length",
        ),
        "release": ("## Release small", "| storage |", "Served: it is the current version of small"),
        "release-serving": (f"| transformers {version('transformers')} | yes |",),
    }
    for key, texts in told.items():
        for text in texts:
            assert text in artifacts[key]["data"], (key, text)
    plots = {"packing-plot", "training-loss", "evaluation-perplexity", "evaluation-passkey"}
    for plot in plots:
        assert artifacts[plot]["data"].startswith("data:image/png;base64,")
        assert len(artifacts[plot]["data"]) < 300_000


def test_an_unreachable_prefect_server_is_one_sentence(undisturbed, tmp_path):
    home, *_ = undisturbed
    changed = ("--set", "training.steps=7")  # else nothing is to do, and no server is asked
    process = start(str(home / "run.yaml"), tmp_path, *changed, PREFECT_API_URL="http://127.0.0.1:1/api")
    process.communicate(timeout=HANGS_AFTER_S)
    log = (tmp_path / "log.txt").read_text()
    assert (process.returncode, "does not answer" in log, "Traceback" in log) == (2, True, False)


def kill(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


FOLDERS = ("documents", "shards", "checkpoints", "evaluations", "releases")  # in the order in which a run makes them


def test_sigkill_in_every_stage_with_and_without_prefect_changes_nothing_in_the_end(undisturbed, prefect_server, tmp_path):
    """Two of the runs are Prefect's: the one that is killed in `documents`, together with a server of its own, and the one that
    takes over the training and is killed in `evaluations`. So every stage is made without Prefect, at least in part.
    """
    home, release, _ = undisturbed
    storage, log = tmp_path / "storage", tmp_path / "log.txt"
    without_prefect = ("--no-prefect",), {"PREFECT_API_URL": "http://127.0.0.1:1/api"}  # where nothing answers
    with_prefect = {
        "documents": ((), {"PREFECT_HOME": str(home / "prefect")}),
        "evaluations": ((), {"PREFECT_API_URL": prefect_server.url}),
    }
    params = yaml.safe_load((home / "run.yaml").read_text()) | {"storage": str(storage)}
    config = write_params(tmp_path / "run.yaml", params)
    finished = []

    def kill_a_run_in(folder):
        """Kill a run in the stage that fills `folder`; EndedTooSoon, with that stage undone, where it was over before."""
        options, variables = with_prefect.get(folder, without_prefect)
        log.unlink(missing_ok=True)
        process = start(config, tmp_path, *options, **variables)

        def in_stage():
            if folder == "checkpoints":  # far enough that there is a checkpoint to go on from
                return any(len(p.read_text().splitlines()) >= 3 for p in storage.glob("work/finetune/*/progress.jsonl"))
            return any(storage.glob(f".staging/{folder}-*"))

        def is_over():
            return any((storage / folder).rglob("manifest.json"))

        try:
            wait_until(lambda: in_stage() or is_over() or process.poll(), folder, process, step_s=0.01)
        finally:
            kill(process)
        assert process.returncode in (0, -signal.SIGKILL), log.read_text()[-4000:]
        assert folder in with_prefect or "Prefect" not in log.read_text()
        if is_over():
            for undone in FOLDERS[FOLDERS.index(folder) :]:
                shutil.rmtree(storage / undone, ignore_errors=True)
            raise EndedTooSoon(folder)

    for folder in FOLDERS:
        interrupted(lambda _, folder=folder: kill_a_run_in(folder), range(20))
        assert not any(storage.glob("releases/*/current"))
        for earlier in finished:
            assert len(list(storage.glob(f"{earlier}/*/manifest.json"))) == 1
        finished.append(folder)
    log.unlink()
    options, variables = without_prefect
    again, _ = finish(config, tmp_path, *options, **variables)
    assert again.name == release.name
    assert (again / "SHA256SUMS").read_text() == (release / "SHA256SUMS").read_text()
    there, here = record(home / "storage"), record(storage)
    assert {stage: entry["digest"] for stage, entry in here.items()} == {stage: there[stage]["digest"] for stage in there}
    assert not any((storage / ".staging").iterdir())
    assert "publish: small is verified" in log.read_text()
    assert "Prefect" not in log.read_text()


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        ({"model": {"target_length": 4096, "rope_method": "linear"}, "evaluation": {"lengths": [64]}}, "4096"),
        ({"corpus": {"sources": ["HOME/empty"]}}, "empty"),
    ],
)
def test_what_shows_only_in_the_data_is_one_sentence(undisturbed, prefect_server, tmp_path, groups, sentence):
    home, *_ = undisturbed
    (home / "empty").mkdir(exist_ok=True)
    params = yaml.safe_load((home / "run.yaml").read_text()) | {"storage": str(tmp_path / "storage")}
    for group, values in groups.items():
        params[group] |= values
    if "corpus" in groups:
        params["corpus"]["sources"] = [source.replace("HOME", str(home)) for source in groups["corpus"]["sources"]]
    process = start(write_params(tmp_path / "run.yaml", params), tmp_path, PREFECT_API_URL=prefect_server.url)
    process.communicate(timeout=HANGS_AFTER_S)
    log = (tmp_path / "log.txt").read_text()
    assert process.returncode == 2
    assert sentence in log
    assert "Traceback" not in log
    assert not any((tmp_path / "storage").glob("releases/*"))
