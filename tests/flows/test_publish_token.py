"""The hub's token from a Prefect Secret block: it reaches the hub, and is written nowhere on the way."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.blocks.system import Secret
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import State
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import PublishParams
from tasks.prefect_tasks.publish import hub_token, publish
from tasks.publish.event import RELEASED
from tests.flows.prefect_server import PrefectServer
from tests.hub_release_server import TOKEN, Hub, hub_release_server
from tests.tasks.release_example import FinishedRun, finished_run
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def server(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    with temporary_settings({PREFECT_API_URL: prefect_server.url}):
        yield prefect_server


@pytest.fixture
def hub(servers: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_release_server() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield served


@flow(name="publish-with-a-secret", validate_parameters=False, persist_result=False)
def only_publish(run: dict[str, Any], block: str) -> str:
    made: FinishedRun = run["made"]
    changed = made.params.publish.model_copy(update={"destinations": ("hub:org/tiny",), "token_secret": block})
    params = made.params.model_copy(update={"publish": changed})
    return publish(params, made.documents, made.shards, made.checkpoint, made.evaluation).digest


def published(run: FinishedRun, block: str) -> State[str]:
    state: State[str] = only_publish({"made": run}, block, return_state=True)
    return state


def test_the_token_of_a_block_reaches_the_hub_and_is_written_nowhere(
    server: PrefectServer, hub: Hub, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, capfd: pytest.CaptureFixture[str]
) -> None:
    """The hub answers 401 without the token, so what it holds was sent with it."""
    Secret(value=TOKEN).save("hub-token", overwrite=True)
    run = finished_run(tmp_path, tokenizer)
    without = run.publish().digest
    state = published(run, "hub-token")
    assert state.result() == without  # neither the block nor where a release goes changes what it is
    assert list(hub.repositories["org/tiny"].tags) == [without]

    def events() -> list[dict[str, Any]]:
        about = {"event": {"name": [RELEASED]}, "resource": {"id": [f"ropeway.release.{run.params.release_name}"]}}
        found: list[dict[str, Any]] = server.post("events/filter", filter=about)["events"]
        return found

    [event] = wait_until(events)  # what was published without Prefect is told by the first run that can
    assert (event["payload"]["digest"], event["payload"]["name"]) == (without, run.params.release_name)
    assert published(run, "hub-token").result() == without
    assert len(events()) == 1

    run_id = str(state.state_details.flow_run_id)
    logs = {"logs": {"flow_run_id": {"any_": [run_id]}}, "limit": 200}
    wait_until(lambda: any("org/tiny" in line["message"] for line in server.post("logs/filter", **logs)))
    of_run = {"flow_runs": {"id": {"any_": [run_id]}}}
    told = [server.post("logs/filter", **logs), server.post("task_runs/filter", **of_run), server.flow_run(run_id)]
    told += [server.artifacts_of(run_id), hub.requests, *capfd.readouterr()]
    assert len(server.artifacts_of(run_id)) > 1
    assert TOKEN not in json.dumps(told, default=str)
    kept = [path for root in (tmp_path, server.home) for path in root.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in kept)  # the server's own: blocks are encrypted in it
    assert [path for path in kept if TOKEN.encode() in path.read_bytes()] == []
    committed = [content for commit in hub.repositories["org/tiny"].commits.values() for content in commit.files.values()]
    assert not any(TOKEN.encode() in content or b"hub-token" in content for content in (*committed, *hub.objects.values()))


def test_a_wrong_token_and_a_missing_block_are_a_sentence_each(
    server: PrefectServer, hub: Hub, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    Secret(value="hf_wrongtokenwrongtoken").save("wrong-token", overwrite=True)
    Secret(value={"token": TOKEN}).save("a-mapping", overwrite=True)
    run = finished_run(tmp_path, tokenizer)
    with pytest.raises(
        UserError, match=r"the hub refuses it: set HF_TOKEN, or the secret in `publish\.token_secret`"
    ) as refusal:
        published(run, "wrong-token").result()
    assert "wrongtoken" not in str(refusal.value)
    with pytest.raises(UserError, match=r"Prefect has no Secret block of that name: create it .*'no-such-token'"):
        published(run, "no-such-token").result()
    with pytest.raises(UserError, match="does not hold text"):
        hub_token(PublishParams(token_secret="a-mapping"))
    with pytest.raises(UserError, match="Only Prefect flows can read"):
        run.publish(params=run.params.model_copy(update={"publish": PublishParams(token_secret="hub-token")}))
    assert hub.repositories == {}
