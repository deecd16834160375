"""The publish stage with destinations: a real release goes to a folder, a bucket and the hub, from a local and a remote storage."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from tasks.publish.checks import failures
from tasks.publish.destinations.history import list_releases, rollback
from tasks.publish.fetch import release_folder
from tasks.publish.verify import check_files, verify_release
from tests.heard import texts_into
from tests.hub_release_server import Hub
from tests.tasks.release_example import FinishedRun, finished_run
from tests.tasks.small_release import served_folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> FinishedRun:
    run = finished_run(tmp_path_factory.mktemp("run"), tokenizer)
    run.publish()
    return run


def to(params: PipelineParams, *destinations: str) -> PipelineParams:
    return params.model_copy(update={"publish": params.publish.model_copy(update={"destinations": destinations})})


def test_where_a_release_goes_does_not_change_what_it_is(made: FinishedRun, tmp_path: Path, bucket: str, hub: Hub) -> None:
    before = served_folder(made.storage, "tiny")
    told: list[str] = []
    uri, folder = f"{bucket}/{tmp_path.name}", tmp_path / "out"
    release = made.publish(texts_into(told), to(made.params, str(folder), uri, "hub:org/tiny"))
    assert release.reused
    assert release.path == before
    assert len([text for text in told if "copied to and checked at" in text]) == 3
    arrived = folder / "tiny" / "versions" / release.digest
    assert failures(check_files(arrived)) == []
    assert AutoModelForCausalLM.from_pretrained(arrived).config.max_position_embeddings == 256
    for where in (str(folder), uri, "hub:org/tiny"):
        (row,) = list_releases(where)
        assert (row.digest, row.is_current, row.is_complete) == (release.digest, True, True)
        assert (row.base, row.target_length) == ("tiny-base", 256)
    assert b"org/tiny" not in (arrived / "provenance.json").read_bytes()

    told.clear()
    made.publish(texts_into(told), to(made.params, str(folder), uri, "hub:org/tiny"))
    assert len([text for text in told if "unchanged at" in text]) == 3
    for place in (str(folder / "tiny"), f"{uri}/tiny", f"{uri}/tiny/versions/{release.digest}", "hub:org/tiny"):
        with release_folder(place, texts_into(told)) as fetched:
            assert failures(verify_release(fetched)) == [], place
    with pytest.raises(UserError, match="There is no release at"), release_folder(f"{uri}/none", texts_into(told)):
        pass


def test_a_destination_that_cannot_be_one_is_refused_before_any_work(
    made: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    told: list[str] = []
    for wrong in ("hub:org/tiny", "s3://key:secret@bucket/x"):
        with pytest.raises(UserError):
            made.publish(texts_into(told), to(made.params, wrong))
    assert told == []


def test_a_damaged_release_goes_nowhere(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    run = finished_run(tmp_path, tokenizer)
    card = run.publish().path / "README.md"
    card.write_text(card.read_text() + "x")
    with pytest.raises(UserError, match=r"README\.md"):
        run.publish(params=to(run.params, str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_remote_storage_has_its_pointer_in_the_store(
    made: FinishedRun, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "cache"))
    storage = Storage(f"{bucket}/{tmp_path.name}-storage")
    params = made.params.model_copy(update={"storage": f"{bucket}/{tmp_path.name}-storage"})
    run = FinishedRun(params, storage, made.documents, made.shards, made.checkpoint, made.evaluation)
    first = run.publish()
    assert storage.remote is not None
    assert storage.remote.read("releases/tiny/current") == f"{first.digest}\n".encode()
    again: Artifact = run.publish(params=to(params, str(tmp_path / "out")))
    assert again.reused
    second = run.publish(params=params.model_copy(update={"publish": params.publish.model_copy(update={"dtype": "float32"})}))

    monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "another-machine"))
    elsewhere = Storage(storage.remote.uri)
    assert [row.digest for row in list_releases(elsewhere) if row.is_current] == [second.digest]
    assert rollback(elsewhere, "tiny", first.digest).before == second.digest
    found = served_folder(elsewhere, "tiny")
    assert found is not None
    assert json.loads((found / "provenance.json").read_text())["release"]["digest"] == first.digest
    assert failures(check_files(found)) == []
