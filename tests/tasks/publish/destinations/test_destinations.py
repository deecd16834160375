"""Releases at folders and URIs: whole or not at all, never rewritten, never another's, and `current` only ever at a whole one."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_schemas.errors import UserError
from data_schemas.manifest import MANIFEST_NAME
from data_schemas.params import PublishParams
from data_schemas.remote import Remote
from tasks.publish.destinations.address import place_at
from tasks.publish.destinations.delivery import check_destinations, deliver
from tasks.publish.destinations.folder import FolderPlace
from tasks.publish.destinations.objects import ObjectPlace
from tasks.publish.destinations.version import problems_at
from tests.heard import texts_into
from tests.tasks.small_release import NAME, write_release


def quiet(_: str) -> None:
    pass


@pytest.fixture(params=["folder", "s3", "memory", "local"])
def where(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> str:
    """A folder, a bucket, a store without conditional writes, and one that has folders to make besides (as SFTP)."""
    return {
        "folder": str(tmp_path / "out"),
        "s3": f"{bucket}/{tmp_path.name}",
        "memory": f"memory://{tmp_path.name}",
        "local": f"local://{tmp_path}/out",
    }[request.param]


def publish(release: Path, *destinations: str) -> None:
    deliver(NAME, release, PublishParams(destinations=destinations), quiet)


@functools.cache
def place(where: str) -> FolderPlace | ObjectPlace:
    """To look there: one client for all looks at a bucket."""
    found = place_at(where)
    assert isinstance(found, FolderPlace | ObjectPlace)
    return found


def current(where: str) -> str:
    return (place(where).read(f"{NAME}/current") or b"").decode()


def whole(where: str, release: Path) -> bool:
    return problems_at(place(where), NAME, release.name) == []


def written(where: str) -> dict[str, object]:
    """When each object was written, to see that none is again."""
    return {path: place(where).written_at(path) for path in place(where).sizes()}


@functools.cache
def remote(where: str) -> Remote:
    return Remote(where)


def put_object(where: str, path: str, content: bytes) -> None:
    if "://" in where:
        remote(where).write(path, content)
    else:
        (Path(where) / path).parent.mkdir(parents=True, exist_ok=True)
        (Path(where) / path).write_bytes(content)


def drop_object(where: str, path: str) -> None:
    if "://" in where:
        remote(where).remove(path)
    else:
        (Path(where) / path).unlink()


def test_a_release_arrives_whole_beside_the_one_before(where: str, one: Path, two: Path) -> None:
    publish(one, where)
    assert current(where) == f"{one.name}\n"
    publish(two, where)
    assert current(where) == f"{two.name}\n"
    assert whole(where, one)
    assert whole(where, two)
    here = {p.relative_to(one).as_posix() for p in one.rglob("*") if p.is_file()}
    assert place(where).sizes(f"{NAME}/versions/{one.name}").keys() == here


def test_the_same_digest_again_writes_nothing(where: str, one: Path) -> None:
    publish(one, where)
    before = written(where)
    told: list[str] = []
    deliver(NAME, one, PublishParams(destinations=(where,)), texts_into(told))
    assert written(where) == before
    assert "unchanged" in told[0]


def test_an_incomplete_version_is_completed(where: str, one: Path) -> None:
    publish(one, where)
    version = f"{NAME}/versions/{one.name}"
    for lost in (MANIFEST_NAME, "model.safetensors"):
        drop_object(where, f"{version}/{lost}")
    put_object(where, f"{version}/config.json", b"{")  # cut short
    drop_object(where, f"{NAME}/current")
    assert not whole(where, one)
    publish(one, where)
    assert whole(where, one)
    assert current(where) == f"{one.name}\n"


@pytest.mark.parametrize("path", ["model.safetensors", "extra.txt", MANIFEST_NAME])
@pytest.mark.parametrize("where", ["folder", "memory"], indirect=True)
def test_a_finished_version_with_other_files_is_refused_and_left(where: str, one: Path, two: Path, path: str) -> None:
    publish(one, where)
    publish(two, where)
    found = place(where).read(f"{NAME}/versions/{one.name}/{path}") or b""
    other = found[:-1] + b" " if path != MANIFEST_NAME else found + b"\n"  # of the same size, or the same meaning
    put_object(where, f"{NAME}/versions/{one.name}/{path}", other)
    before = written(where)
    with pytest.raises(UserError, match=f"holds other files than this release.*{path}"):
        publish(one, where)
    assert written(where) == before
    assert current(where) == f"{two.name}\n"


def test_two_versions_of_one_digest_with_other_bytes_do_not_mix(bucket: str, tmp_path: Path, one: Path) -> None:
    """The other publisher has begun: what says which bytes the version will have is there, the manifest is not."""
    where = f"{bucket}/{tmp_path.name}"
    other = write_release(tmp_path / "made", 5, same_digest_as=1)
    assert other.name == one.name
    put_object(where, f"{NAME}/versions/{one.name}/SHA256SUMS", (other / "SHA256SUMS").read_bytes())
    put_object(where, f"{NAME}/versions/{one.name}/config.json", (other / "config.json").read_bytes())
    before = written(where)
    with pytest.raises(UserError, match="Another publisher has started to write other files"):
        publish(one, where)
    assert written(where) == before
    publish(other, where)
    assert whole(where, other)


def test_a_release_altered_on_the_way_does_not_become_current(where: str, one: Path, two: Path) -> None:
    publish(one, where)
    content = bytearray((two / "model.safetensors").read_bytes())
    content[100] ^= 1
    (two / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors has other content than recorded"):
        publish(two, where)
    assert current(where) == f"{one.name}\n"
    assert whole(where, one)


def test_one_destination_that_fails_does_not_keep_the_others_from_theirs(tmp_path: Path, bucket: str, one: Path) -> None:
    good, bad = str(tmp_path / "good"), "s3://no-such-bucket/x"
    told: list[str] = []
    with pytest.raises(UserError, match=r"not at 1 of 2 destinations.*s3://no-such-bucket/x.*bucket does not exist"):
        deliver(NAME, one, PublishParams(destinations=(bad, good)), texts_into(told))
    assert whole(good, one)
    assert len(told) == 2


def test_a_folder_that_may_not_be_written_is_one_sentence(tmp_path: Path, one: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"Cannot use the folder .*/file/out \(Not a directory\)"):
        publish(one, str(tmp_path / "file" / "out"))


FULL = """
    import sys
    from pathlib import Path
    from data_schemas.errors import UserError
    from data_schemas.params import PublishParams
    from tasks.publish.destinations.delivery import deliver
    for release in sys.argv[2:]:
        try:
            deliver("tiny", Path(release), PublishParams(destinations=(sys.argv[1],)), lambda _: None)
            print("done")
        except UserError as error:
            print(error)
"""


def test_a_full_disk_leaves_the_version_before_and_no_half_one(tmp_path: Path, one: Path) -> None:
    """A real one, of 128 kB, in a mount namespace of its own."""
    large = write_release(tmp_path / "made", 3, size=200_000)
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    code = "\n".join(line[4:] for line in FULL.splitlines())
    script = 'mount -t tmpfs -o size=128k none "$1" && "$2" -c "$3" "$1/out" "$4" "$5" && cp -r "$1/out" "$6" && find "$1"'
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", disk, sys.executable, code, one, large, kept],
        capture_output=True,
        text=True,
    )
    if "permission denied" in result.stderr.lower() or "not permitted" in result.stderr.lower():
        pytest.skip("this machine does not let a test mount a file system")
    lines = result.stdout.splitlines()
    assert lines[0] == "done", result.stderr
    assert "No space left in" in lines[1]
    assert "publish again" in lines[1]
    assert current(str(kept)) == f"{one.name}\n"
    assert whole(str(kept), one)
    assert not any(large.name in line or ".staging" in line for line in lines[2:])


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("s3://me:secret@bucket/x", "contains credentials or a query, by its `@`"),
        ("/data/hf_" + 34 * "a", "contains credentials.*a token of the hub"),
        ("s3://bucket/x?token=abc", "contains credentials.*a name such as token="),
        ("simplecache::sftp://me:pw@host/x", "contains credentials"),
        ("hub:org/name?token=hf_abcdefghij", "contains credentials"),
        ("s3://bucket/x?sig=abc", "contains credentials.*a name such as token="),
        ("s3://bucket/x?versionId=abc", "contains credentials or a query, by what stands behind"),
        ("hub:hf_abcdefghijkl@org/name", "contains credentials or a query, by its `@`"),
        ("hub:name", "is not a hub repository"),
        ("hub:org/name/deep", "is not a hub repository"),
        ("hf://models/org/name", "use hub:organisation/name"),
        ("https://example.org/x", "cannot be written to"),
        ("nonsense://x", "cannot be used as storage"),
    ],
)
def test_what_cannot_be_a_destination_is_refused_before_any_work(where: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as refusal:
        check_destinations(PublishParams(destinations=(where,)))
    assert not any(secret in str(refusal.value) for secret in ("secret@", "abc", "pw@", "hf_"))


def test_ordinary_names_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + 34 * "a")
    for where in ("./hf_releases", "/data/hf_checkpoints/out", "hub:acme/hf_longcontext", "exp/sig=3/lr"):
        check_destinations(PublishParams(destinations=(where,)))


def test_the_hub_needs_a_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UserError, match="set HF_TOKEN in the environment"):
        check_destinations(PublishParams(destinations=("hub:org/name",)))


def test_a_folder_is_given_as_a_path_or_a_file_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {place_at(text).uri for text in ("x/y", f"file://{tmp_path}/x/y", f"{tmp_path}/x/z/../y")} == {str(tmp_path / "x/y")}


def test_a_copied_folder_can_be_read_by_others(tmp_path: Path, one: Path) -> None:
    publish(one, str(tmp_path / "out"))
    assert (tmp_path / "out" / NAME / "versions" / one.name).stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_what_is_no_finished_release_is_not_copied(one: Path, tmp_path: Path) -> None:
    (one / MANIFEST_NAME).write_text("{")
    with pytest.raises(UserError, match="is not a finished release"):
        publish(one, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
