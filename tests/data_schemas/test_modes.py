"""What is written can be read by whom the umask lets read it, whoever wrote it."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from data_schemas.modes import follow_umask, umask
from data_schemas.storage import Storage
from tests.modes import narrower_than_umask


@pytest.fixture(params=[0o022, 0o027, 0o077])
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def make(directory: Path) -> dict[str, int]:
    """As stages write: with libraries that write a private file and rename it, and through temporary files and folders."""
    save_file({"x": torch.zeros(2)}, directory / "model.safetensors")
    Path(tempfile.mkdtemp(dir=directory)).rename(directory / "inner")
    handle, name = tempfile.mkstemp(dir=directory / "inner")
    os.close(handle)
    Path(name).rename(directory / "inner" / "file.json")
    (directory / "plain.txt").write_text("x")
    (directory / "run.sh").touch(0o755)
    return {}


def test_an_artifact_and_its_folders_follow_the_umask(tmp_path: Path, mask: int) -> None:
    root = tmp_path / "storage"
    artifact = Storage(str(root)).build("checkpoints", stage="x", params={}, code_version=1, parents={}, make=make)
    assert umask() == mask
    assert narrower_than_umask(root, mask) == []
    assert not stat.S_IMODE((artifact.path / "model.safetensors").stat().st_mode) & mask, "nothing is wider either"
    assert (artifact.path / "run.sh").stat().st_mode & 0o700 == 0o700


def test_a_link_is_left_alone(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.touch(0o600)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(outside)
    follow_umask(tmp_path / "folder")
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
