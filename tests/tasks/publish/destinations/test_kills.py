"""Publishers that are killed, several at once, and stores that fail: what is served stays whole, and a rerun completes."""

import os
import queue
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_schemas.errors import UserError
from data_schemas.params import PublishParams
from data_schemas.remote import Remote
from tasks.publish.destinations.delivery import deliver
from tasks.publish.destinations.folder import FolderPlace
from tasks.publish.destinations.objects import ObjectPlace
from tasks.publish.destinations.pointer import Pointed, serve_published
from tasks.publish.destinations.version import problems_at, read_version
from tests.fault_proxy import Faults, fault_proxy
from tests.heard import texts_into
from tests.s3_server import s3_server
from tests.tasks.publish.destinations.publishers import Publishers, publishers
from tests.tasks.small_release import NAME, write_release


@pytest.fixture(scope="module")
def bucket(servers: None) -> Iterator[Remote]:
    """A bucket, as we look at it, without any faults."""
    with s3_server() as uri:
        remote = Remote(uri)
        remote.exists("current")  # connects, while the environment still names the server itself
        yield remote


@pytest.fixture(scope="module")
def faults(bucket: Remote) -> Iterator[Faults]:
    """A server before that bucket which breaks requests; publishers find it by the environment."""
    with fault_proxy(os.environ["AWS_ENDPOINT_URL"]) as served, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", served.endpoint)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")  # s3fs tries again as well, and waits less
        yield served


@pytest.fixture(autouse=True)
def _mended(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "faults" in request.fixturenames:
        served: Faults = request.getfixturevalue("faults")
        served.before = served.after = lambda method, path, number: None
        served.requests.clear()


@pytest.fixture(scope="module")
def started(faults: Faults, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publishers]:
    with publishers(tmp_path_factory.mktemp("publishers")) as running:
        yield running


def current(place: FolderPlace | ObjectPlace) -> str:
    return (place.read(f"{NAME}/current") or b"").decode().strip()


def whole(place: FolderPlace | ObjectPlace, *releases: Path) -> bool:
    return all(problems_at(place, NAME, release.name) == [] for release in releases)


def publish(place: ObjectPlace, release: Path) -> None:
    """What a delivery does, with a client that is there already."""
    place.put(read_version(NAME, release))
    serve_published(place, NAME, release.name)


def require_served(place: FolderPlace | ObjectPlace, *releases: Path) -> None:
    """`current` names one of the releases, and that one is whole."""
    served = next((release for release in releases if release.name == current(place)), None)
    assert served is not None, current(place)
    assert whole(place, served)


@pytest.mark.parametrize("kind", ["a destination", "the storage"])
def test_sigkill_at_any_file_operation_leaves_what_was_served_and_a_rerun_completes(
    started: Publishers, tmp_path: Path, one: Path, two: Path, kind: str
) -> None:
    def target(case: str) -> tuple[str, FolderPlace]:
        root = tmp_path / case
        if kind == "a destination":
            return str(root), FolderPlace(root)
        return f"storage:{root}", FolderPlace(root / "releases")

    where, place = target("uncut")
    assert started.run(where, one) == [0]
    operations = started.count_operations(where, two)
    assert operations > 20
    moments = sorted(random.Random().sample(range(1, operations + 1), 10))
    for moment in moments:
        where, place = target(f"cut-at-{moment}")
        assert started.run(where, one) == [0]
        assert started.run(where, two, die_at=moment) == [-signal.SIGKILL], f"{moment} of {operations}"
        require_served(place, one, two)
        assert whole(place, one)
        assert started.run(where, two) == [0], f"{moment} of {operations}"
        assert current(place) == two.name
        assert whole(place, one, two)
        assert not list(place.root.parent.rglob(".staging/*"))


def test_sigkill_at_any_request_leaves_what_was_served_and_a_rerun_completes(
    started: Publishers, faults: Faults, bucket: Remote, tmp_path: Path, one: Path, two: Path
) -> None:
    uncut = f"s3://ropeway/{tmp_path.name}/uncut"
    assert started.run(uncut, one) == [0]
    faults.requests.clear()
    assert started.run(uncut, two) == [0]
    requests = len(faults.requests)
    assert requests > 20
    victim: queue.SimpleQueue[int] = queue.SimpleQueue()
    for case, moment in enumerate(sorted(random.Random().sample(range(1, requests + 1), 8))):
        where, place = f"{uncut[:-5]}cut-{moment}", ObjectPlace(bucket.below(f"{tmp_path.name}/cut-{moment}"))
        publish(place, one)

        def kill(method: str, path: str, number: int, at: int = moment) -> int | None:
            if number != at:
                return None
            os.kill(victim.get(), signal.SIGKILL)
            return 0

        faults.requests.clear()
        # half of them before the server has carried the request out, half of them after
        setattr(faults, "before" if case % 2 else "after", kill)
        victim.put(started.start(where, two)[0])
        assert started.wait() == [-signal.SIGKILL], f"{moment} of {requests}"
        faults.before = faults.after = lambda method, path, number: None
        require_served(place, one, two)
        publish(place, two)
        assert current(place) == two.name
        assert whole(place, one, two)


def test_a_rollback_killed_at_any_file_operation_is_completed_by_the_next_and_then_stays(
    started: Publishers, tmp_path: Path, one: Path, two: Path
) -> None:
    def published(case: str) -> FolderPlace:
        root = tmp_path / case
        assert [started.run(str(root), release) for release in (one, two)] == [[0], [0]]
        return FolderPlace(root)

    operations = started.count_operations(f"rollback:{published('uncut').root}", one)
    assert 10 < operations < 60
    moved = set()
    for moment in range(1, operations + 1, 2):
        place = published(f"cut-at-{moment}")
        assert started.run(f"rollback:{place.root}", one, die_at=moment) == [-signal.SIGKILL]
        require_served(place, one, two)
        before = current(place)
        moved.add(before)
        assert started.run(str(place.root), two) == [0]
        assert current(place) == before, f"{moment} of {operations}"
        assert started.run(f"rollback:{place.root}", one) == [0]
        assert started.run(str(place.root), two) == [0]
        assert current(place) == one.name, f"{moment} of {operations}"
    assert moved == {one.name, two.name}


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_two_publishers_at_once_do_not_mix(
    started: Publishers, bucket: Remote, tmp_path: Path, one: Path, two: Path, kind: str
) -> None:
    for turn in range(2):
        where = str(tmp_path / f"out{turn}") if kind == "folder" else f"s3://ropeway/{tmp_path.name}/{turn}"
        place = FolderPlace(Path(where)) if kind == "folder" else ObjectPlace(bucket.below(f"{tmp_path.name}/{turn}"))
        pair = (one, one) if turn == 1 else (one, two)
        assert started.run(where, *pair) == [0, 0], started.told.read_text()
        require_served(place, one, two)
        assert whole(place, *pair)


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_of_two_with_one_digest_and_other_bytes_one_is_published_and_one_refused(
    started: Publishers, bucket: Remote, tmp_path: Path, one: Path, kind: str
) -> None:
    other = write_release(tmp_path / "made", 7, same_digest_as=1)
    for turn in range(2):
        where = str(tmp_path / f"out{turn}") if kind == "folder" else f"s3://ropeway/{tmp_path.name}/{turn}"
        place = FolderPlace(Path(where)) if kind == "folder" else ObjectPlace(bucket.below(f"{tmp_path.name}/{turn}"))
        assert sorted(started.run(where, one, other)) == [0, 3]
        assert whole(place, one)
        sums = place.read(f"{NAME}/versions/{one.name}/SHA256SUMS")
        assert sums in ((one / "SHA256SUMS").read_bytes(), (other / "SHA256SUMS").read_bytes())


@pytest.mark.parametrize(("status", "reason"), [(403, "broken on purpose"), (500, "broken on purpose"), (0, "")])
def test_a_store_that_fails_leaves_current_and_a_sentence_and_a_rerun_completes(
    faults: Faults, bucket: Remote, tmp_path: Path, one: Path, two: Path, status: int, reason: str
) -> None:
    where, place = f"s3://ropeway/{tmp_path.name}", ObjectPlace(bucket.below(tmp_path.name))
    params = PublishParams(destinations=(where,))
    publish(place, one)
    faults.before = lambda method, path, number: status if method == "PUT" and "adapter" in path else None
    with pytest.raises(UserError, match=rf"not at 1 of 1 .*publish again.*{where}.*{reason}.*check the address") as refusal:
        deliver(NAME, two, params, lambda _: None)
    assert "Traceback" not in str(refusal.value)
    assert current(place) == one.name
    assert whole(place, one)
    assert not whole(place, two)
    faults.before = lambda method, path, number: None
    faults.requests.clear()
    deliver(NAME, two, params, lambda _: None)
    assert current(place) == two.name
    assert whole(place, two)
    again = [request for request in faults.requests if request.startswith("PUT") and "README" in request]
    assert again == []  # what had arrived is not sent again


def test_bytes_that_changed_in_the_store_are_found_before_current_moves(
    faults: Faults, bucket: Remote, tmp_path: Path, one: Path, two: Path
) -> None:
    """Of the same size, and the store itself has accepted them: only reading back tells."""
    remote = bucket.below(tmp_path.name)
    place = ObjectPlace(remote)
    publish(place, one)
    stored = f"{NAME}/versions/{two.name}/model.safetensors"

    def rot(method: str, path: str, number: int) -> None:
        if method == "PUT" and path.endswith(stored):
            remote.write(stored, bytes(20_000))

    faults.after = rot
    params = PublishParams(destinations=(f"s3://ropeway/{tmp_path.name}",))
    with pytest.raises(UserError, match=r"The copy at .* differs from the release \(model\.safetensors has other content"):
        deliver(NAME, two, params, lambda _: None)
    assert current(place) == one.name
    faults.after = lambda method, path, number: None
    deliver(NAME, two, params, lambda _: None)
    assert current(place) == two.name
    assert whole(place, one, two)


@pytest.mark.parametrize("status", [0, 503])
def test_a_passing_fault_is_tried_again_by_the_client(
    faults: Faults, bucket: Remote, tmp_path: Path, one: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")  # an answer without a body, as to HEAD, is tried again by botocore alone
    broken: list[str] = []

    def every_sixth(method: str, path: str, number: int) -> int | None:
        if number % 6 == 0 and f"{method} {path}" not in broken:
            broken.append(f"{method} {path}")
            return status
        return None

    faults.requests.clear()
    faults.before = every_sixth
    deliver(NAME, one, PublishParams(destinations=(f"s3://ropeway/{tmp_path.name}",)), lambda _: None)
    assert len(broken) > 3
    assert whole(ObjectPlace(bucket.below(tmp_path.name)), one)


def test_an_answer_that_is_lost_is_not_taken_for_another_publisher(
    faults: Faults, bucket: Remote, tmp_path: Path, one: Path
) -> None:
    """The conditional writes are carried out, their answers cut: the client's second try is refused by the condition."""
    lost: list[str] = []

    def lose(method: str, path: str, number: int) -> int | None:
        if method == "PUT" and path.endswith(("SHA256SUMS", "manifest.json", "current")) and path not in lost:
            lost.append(path)
            return 0
        return None

    faults.after = lose
    deliver(NAME, one, PublishParams(destinations=(f"s3://ropeway/{tmp_path.name}",)), lambda _: None)
    assert len(lost) == 3
    place = ObjectPlace(bucket.below(tmp_path.name))
    assert current(place) == one.name
    assert whole(place, one)


def test_the_pointer_is_swapped_only_by_who_has_seen_it(bucket: Remote, tmp_path: Path, one: Path, two: Path) -> None:
    """Another publisher moves `current` between our look at it and our write; the store refuses ours, and we look again."""
    remote = bucket.below(tmp_path.name)
    place = ObjectPlace(remote)
    for release in (one, two):
        place.put(read_version(NAME, release))
    serve_published(place, NAME, one.name)
    seen = remote.read(f"{NAME}/current")
    assert remote.swap(f"{NAME}/current", b"moved\n", seen)
    assert not remote.swap(f"{NAME}/current", b"mine\n", seen)
    assert remote.read(f"{NAME}/current") == b"moved\n"
    assert serve_published(place, NAME, two.name) is Pointed.MOVED
    assert current(place) == two.name


def test_credentials_are_written_and_told_nowhere(
    faults: Faults, bucket: Remote, tmp_path: Path, one: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "AKIAnevertobewritten0123456789"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    told: list[str] = []
    params = PublishParams(destinations=(f"s3://ropeway/{tmp_path.name}", "s3://nobucket/x", str(tmp_path / "out")))
    with pytest.raises(UserError) as refusal:
        deliver(NAME, one, params, texts_into(told))
    place = ObjectPlace(bucket.below(tmp_path.name))
    stored = [place.read(path) or b"" for path in place.sizes()]
    stored += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(stored) > 20
    assert not any(secret.encode() in content for content in stored)
    assert not any(secret in text for text in (*told, str(refusal.value), caplog.text))
