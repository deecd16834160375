"""Listing the versions of releases, and going back to one: at a storage and at destinations, here and in a bucket."""

import os
from pathlib import Path

import pytest

from data_schemas.errors import UserError
from data_schemas.manifest import MANIFEST_NAME
from data_schemas.params import PublishParams
from data_schemas.releases import rolled_back_key
from data_schemas.storage import Storage
from tasks.publish.destinations.address import place_at
from tasks.publish.destinations.delivery import deliver
from tasks.publish.destinations.folder import FolderPlace
from tasks.publish.destinations.history import list_releases, rollback, storage_place
from tasks.publish.destinations.objects import ObjectPlace
from tasks.publish.destinations.pointer import Pointed, serve_published
from tasks.publish.destinations.version import read_version
from tasks.publish.releases import current_digest, point_current
from tests.heard import texts_into
from tests.tasks.small_release import NAME, served_folder, write_release


def publish(where: str, *releases: Path) -> None:
    """One after the other, a minute apart where we can set the time."""
    for minute, release in enumerate(releases):
        deliver(NAME, release, PublishParams(destinations=(where,)), lambda _: None)
        if "://" not in where:
            os.utime(Path(where) / NAME / "versions" / release.name / MANIFEST_NAME, (60.0 * minute, 60.0 * minute))


def served(where: str) -> str:
    """What `current` names there."""
    (row,) = [row for row in list_releases(where) if row.is_current]
    return row.digest


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [write_release(tmp_path / "made", seed) for seed in (1, 2, 3)]


@pytest.fixture
def out(tmp_path: Path, three: list[Path]) -> Path:
    publish(str(tmp_path / "out"), *three)
    return tmp_path / "out"


def test_versions_are_listed_newest_first_with_what_they_are(out: Path, three: list[Path]) -> None:
    rows = list_releases(str(out))
    assert [row.digest for row in rows] == [release.name for release in reversed(three)]
    assert [row.is_current for row in rows] == [True, False, False]
    assert {(row.name, row.base, row.target_length, row.is_complete) for row in rows} == {(NAME, "org/base", 256, True)}
    assert rows[0].num_bytes == sum(path.stat().st_size for path in three[2].rglob("*") if path.is_file())
    assert rows[0].created is not None
    assert rows[0].created.timestamp() == 120


def test_rollback_goes_to_the_version_before_and_then_to_the_one_before_that(out: Path, three: list[Path]) -> None:
    first, second, third = (release.name for release in three)
    gone_back = rollback(str(out), NAME)
    assert (gone_back.name, gone_back.before, gone_back.now) == (NAME, third, second)
    assert rollback(str(out), NAME).now == first
    with pytest.raises(UserError, match=f"no version before {first}"):
        rollback(str(out), NAME)
    assert rollback(str(out), NAME, third[:8]).now == third  # the beginning of a digest is enough
    assert (out / NAME / "current").read_text() == f"{third}\n"


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_what_a_rollback_left_is_not_served_again_by_publishing_it(
    kind: str, tmp_path: Path, three: list[Path], bucket: str
) -> None:
    where = str(tmp_path / "served") if kind == "folder" else f"{bucket}/{tmp_path.name}"
    first, second = three[0], three[1]
    publish(where, first, second)
    rollback(where, NAME, first.name)
    told: list[str] = []
    (delivery,) = deliver(NAME, second, PublishParams(destinations=(where,)), texts_into(told))
    assert not delivery.is_new
    assert "was rolled back, so it is not served" in delivery.why_not_served
    assert f"`ropeway rollback {NAME} {second.name} --at {where}` serves it again" in told[0]
    assert {row.digest: (row.is_current, row.is_rolled_back) for row in list_releases(where)} == {
        first.name: (True, False),
        second.name: (False, True),
    }


def test_only_a_rollback_brings_back_what_a_rollback_left(out: Path, three: list[Path], tmp_path: Path) -> None:
    where = str(out)
    first, second, third = (release.name for release in three)
    rollback(where, NAME, second)
    fourth = write_release(tmp_path / "made", 4)
    publish(where, fourth)
    assert served(where) == fourth.name  # a new digest is served as ever,
    publish(where, three[2])
    assert served(where) == fourth.name  # which does not bring back the one that was left
    publish(where, three[0])
    assert served(where) == first  # nothing was said against this one
    rollback(where, NAME, third)
    assert served(where) == third
    publish(where, three[0])
    assert served(where) == third
    assert {row.digest for row in list_releases(where) if row.is_rolled_back} == {first}


def test_going_back_without_a_digest_passes_over_what_was_left_before(out: Path, three: list[Path], tmp_path: Path) -> None:
    first, second, _ = (release.name for release in three)
    rollback(str(out), NAME)
    publish(str(out), write_release(tmp_path / "made", 4))
    os.utime(out / NAME / "versions" / served(str(out)) / MANIFEST_NAME, (600.0, 600.0))
    assert rollback(str(out), NAME).now == second
    assert rollback(str(out), NAME).now == first
    rollback(str(out), NAME, second)
    with pytest.raises(UserError, match=rf"Every version of {NAME} .* before {second} was rolled back or never served:"):
        rollback(str(out), NAME)


def test_a_rollback_during_publishing_is_not_undone_by_it(out: Path, three: list[Path]) -> None:
    """The publisher has seen what is served, and that nothing was left; then somebody goes back, and back again."""
    first, second, third = (release.name for release in three)
    rollback(str(out), NAME, first)
    rollback(str(out), NAME, third)

    rollbacks = [second, first]

    class Interrupted(FolderPlace):
        def read(self, path: str) -> bytes | None:
            found = super().read(path)
            while path == rolled_back_key(NAME) and rollbacks:
                rollback(str(out), NAME, rollbacks.pop(0))
            return found

    assert serve_published(Interrupted(out), NAME, second) is Pointed.ROLLED_BACK
    assert not rollbacks
    assert served(str(out)) == first


def test_a_pointer_or_list_that_holds_nonsense_is_mended(out: Path, three: list[Path]) -> None:
    (out / rolled_back_key(NAME)).write_bytes(b"\xff nonsense\n")
    (out / NAME / "current").write_bytes(b"\xff\n")
    publish(str(out), three[2])
    assert served(str(out)) == three[2].name
    rollback(str(out), NAME)
    assert (out / rolled_back_key(NAME)).read_text() == f"{three[2].name}\n"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda version: (version / MANIFEST_NAME).unlink(), "incomplete: its manifest.json cannot be read"),
        (lambda version: (version / "config.json").write_text('{"seed": 9}'), "config.json has other content"),
        (lambda version: (version / "config.json").unlink(), "config.json is missing"),
        (lambda version: (version / "extra.bin").write_text("x"), "extra.bin is extra"),
        (lambda version: (version / "SHA256SUMS").write_text(""), "SHA256SUMS does not list these files"),
        (lambda version: (version / MANIFEST_NAME).write_text("{}"), "incomplete: its manifest.json cannot be read"),
    ],
)
def test_an_incomplete_or_altered_version_is_not_gone_back_to(out: Path, three: list[Path], damage, reason: str) -> None:
    damage(out / NAME / "versions" / three[0].name)
    with pytest.raises(UserError, match=reason):
        rollback(str(out), NAME, three[0].name)
    assert (out / NAME / "current").read_text() == f"{three[2].name}\n"


def test_the_version_before_is_the_last_complete_one(out: Path, three: list[Path]) -> None:
    (out / NAME / "versions" / three[1].name / MANIFEST_NAME).unlink()
    assert [row.is_complete for row in list_releases(str(out))] == [True, True, False]
    assert rollback(str(out), NAME).now == three[0].name


def test_a_release_that_is_not_there_or_not_one_version_is_said(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no release 'other'"):
        rollback(str(out), "other")
    with pytest.raises(UserError, match="'ffffffff' does not name exactly one version of tiny"):
        rollback(str(out), NAME, "ffffffff")
    with pytest.raises(UserError, match="There is no folder"):
        list_releases(str(tmp_path / "nowhere"))
    (out / NAME / "current").unlink()
    with pytest.raises(UserError, match="no current version to go back from"):
        rollback(str(out), NAME)


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_storage_is_listed_and_rolled_back_by_its_root_or_its_object(
    kind: str, tmp_path: Path, three: list[Path], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "cache"))
    root = str(tmp_path / "storage") if kind == "folder" else f"{bucket}/{tmp_path.name}"
    storage = Storage(root)
    place = storage_place(storage)
    assert isinstance(place, FolderPlace if kind == "folder" else ObjectPlace)
    assert served_folder(storage, NAME) is None
    for release in three[:2]:
        place.put(read_version(NAME, release))
        assert point_current(storage, NAME, release.name) is Pointed.MOVED
        assert point_current(storage, NAME, release.name) is Pointed.UNMOVED
    assert list_releases(root) == list_releases(storage)
    assert len(list_releases(root)) == 2
    assert rollback(storage, NAME, three[0].name).before == three[1].name
    assert current_digest(storage, NAME) == three[0].name
    found = served_folder(storage, NAME)
    assert found is not None
    assert (found / "model.safetensors").read_bytes() == (three[0] / "model.safetensors").read_bytes()
    assert rollback(root, NAME, three[1].name).now == three[1].name


def test_a_release_may_be_called_releases(tmp_path: Path, three: list[Path]) -> None:
    place = place_at(str(tmp_path / "out"))
    assert isinstance(place, FolderPlace)
    place.put(read_version("releases", three[0]))
    assert [row.name for row in list_releases(str(tmp_path / "out"))] == ["releases"]
