"""Pushing shards: one commit of a data set or objects of a storage, compared file by file, the token from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_schemas.errors import UserError
from data_schemas.manifest import MANIFEST_NAME
from data_schemas.storage import Artifact, Storage
from tasks.publish.destinations.shards import push_shards
from tests.hub_release_server import TOKEN, Hub
from tests.s3_server import s3_server

FILES = {
    "data-00000-of-00001.arrow": b"rows" * 500,
    "heldout/data-00000-of-00001.arrow": b"held",
    "README.md": b"# Data card\n",
}


def shards(root: Path, stage: str = "prepare", seed: int = 0) -> Artifact:
    def make(folder: Path) -> dict[str, int]:
        for name, content in FILES.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        return {}

    return Storage(str(root)).build("shards", stage=stage, params={"seed": seed}, code_version=1, parents={}, make=make)


def test_a_data_set_gets_one_commit_and_a_tag(tmp_path: Path, hub: Hub) -> None:
    made = shards(tmp_path)
    url = push_shards(made.path, "hub:org/rows")
    assert url == f"{hub.endpoint}/datasets/org/rows/tree/{made.digest}"
    repository = hub.repositories["datasets/org/rows"]
    assert repository.private
    assert len(repository.commits) == 2  # the hub's own first one, and this
    there = repository.commits[repository.tags[made.digest]].files
    assert {name: there[name] for name in FILES} == FILES
    assert there[MANIFEST_NAME] == (made.path / MANIFEST_NAME).read_bytes()
    assert push_shards(made.path, "hub:org/rows") == url
    assert len(repository.commits) == 2
    other = shards(tmp_path, seed=1)
    push_shards(other.path, "hub:org/rows")
    assert len(repository.commits) == 3
    assert not [line for line in hub.requests if "/api/models/" in line]


def test_a_copy_that_the_hub_damaged_is_found(tmp_path: Path, hub: Hub) -> None:
    made = shards(tmp_path)
    push_shards(made.path, "hub:org/rows")
    repository = hub.repositories["datasets/org/rows"]
    repository.commits[repository.tags[made.digest]].files["README.md"] = b"# Data kard\n"
    with pytest.raises(UserError, match=r"hub:org/rows at [0-9a-f]{32} holds other files .*README\.md"):
        push_shards(made.path, "hub:org/rows")


def test_a_token_is_needed_and_never_written(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="needs a token: set HF_TOKEN"):
        push_shards(shards(tmp_path).path, "hub:org/rows")
    assert hub.requests == []
    with pytest.raises(UserError, match="contains credentials") as error:
        push_shards(shards(tmp_path).path, f"hub:org/{TOKEN}")
    assert TOKEN not in str(error.value)


@pytest.mark.usefixtures("servers")
def test_s3_gets_the_shards_where_they_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "cache"))
    made = shards(tmp_path / "here")
    with s3_server() as bucket:
        where = push_shards(made.path, f"{bucket}/corpora")
        assert where == f"{bucket}/corpora/shards/{made.digest}"
        found = Storage(f"{bucket}/corpora").find("shards", made.digest)
        assert found is not None
        assert {name: (found.path / name).read_bytes() for name in FILES} == FILES
        assert push_shards(made.path, f"{bucket}/corpora") == where


def test_another_manifest_and_other_artifacts_are_refused(tmp_path: Path) -> None:
    made = shards(tmp_path / "here")
    there = tmp_path / "there"
    where = push_shards(made.path, f"file://{there}")
    manifest = there / "shards" / made.digest / MANIFEST_NAME
    assert where.endswith(made.digest)
    manifest.write_text("{}")
    with pytest.raises(UserError, match="has another manifest"):
        push_shards(made.path, f"file://{there}")
    assert manifest.read_text() == "{}"
    with pytest.raises(UserError, match="result of the stage 'ingest', not shards"):
        push_shards(shards(tmp_path / "here", stage="ingest").path, "file:///nowhere")
    with pytest.raises(UserError, match="is a folder: copy"):
        push_shards(made.path, str(there))
