"""A small corpus of text files, small releases, and servers to send these to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_release_server import TOKEN, Hub, hub_release_server
from tests.s3_server import s3_server
from tests.tasks.small_release import write_release


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    (folder / "deep" / "er").mkdir(parents=True)
    for number in range(8):
        (folder / "deep" / f"{number}.txt").write_text(f"Document number {number}.\n")
    return folder


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_release(tmp_path / "made", 1)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    return write_release(tmp_path / "made", 2)


@pytest.fixture(scope="module")
def bucket(servers: None) -> Iterator[str]:
    """URI of an empty bucket on a real S3 server; clients do not try again."""
    with s3_server() as uri, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        yield uri


@pytest.fixture
def hub(servers: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, which the real client takes for the one; it speaks LFS, as hubs of one's own do."""
    with hub_release_server() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield served
