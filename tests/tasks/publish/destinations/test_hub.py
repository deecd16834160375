"""Releases on the Hugging Face hub: the real client against a server that speaks the hub's protocol over HTTP."""

import logging
import re
import threading
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from data_schemas.errors import UserError
from data_schemas.params import PublishParams
from tasks.publish.checksums import checksum_problems, files_below
from tasks.publish.destinations import hub as hub_module
from tasks.publish.destinations.delivery import deliver
from tasks.publish.destinations.history import list_releases, rollback
from tests.heard import texts_into
from tests.hub_release_server import TOKEN, Hub, Repository
from tests.tasks.small_release import NAME, write_release


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module.time, "sleep", lambda _: None)


def publish(
    release: Path, repo: str = "org/tiny", told: list[str] | None = None, is_to_serve: bool = True, **params: bool
) -> None:
    told = [] if told is None else told
    where = PublishParams(destinations=(f"hub:{repo}",), **params)  # type: ignore[arg-type]
    deliver(NAME, release, where, texts_into(told), is_to_serve=is_to_serve)


def tree(repository: Repository, revision: str) -> dict[str, bytes]:
    oid = repository.resolve(revision)
    assert oid is not None
    return {path: content for path, content in repository.commits[oid].files.items() if path != ".gitattributes"}


def content(release: Path) -> dict[str, bytes]:
    return {p.relative_to(release).as_posix(): p.read_bytes() for p in release.rglob("*") if p.is_file()}


def writes(hub: Hub) -> list[str]:
    return [r for r in hub.requests if re.match(r"(POST .*/(commit|tag|create|batch|verify)|PUT )", r)]


def test_a_release_is_one_commit_and_a_tag_in_a_private_repository(hub: Hub, one: Path) -> None:
    told: list[str] = []
    publish(one, told=told)
    repository = hub.repositories["org/tiny"]
    assert repository.private
    assert len(repository.refs["main"]) == 2  # the hub's own, and the release
    assert repository.tags == {one.name: repository.refs["main"][-1]}
    assert tree(repository, one.name) == content(one)
    assert len(hub.objects) == 3  # two safetensors and a Parquet went ahead through LFS
    assert told == [f"publish: copied to and checked at {hub.endpoint}/org/tiny/tree/{one.name}"]


def test_the_same_release_again_writes_nothing_and_the_next_replaces_its_files(hub: Hub, one: Path, two: Path) -> None:
    publish(one)
    hub.requests.clear()
    publish(one)
    assert writes(hub) == []
    publish(two)
    repository = hub.repositories["org/tiny"]
    assert len(repository.refs["main"]) == 3
    assert tree(repository, "main") == content(two)  # `only-1.txt` is gone from the head
    assert tree(repository, one.name) == content(one)


def test_an_earlier_release_again_leaves_what_main_serves_and_says_so(hub: Hub, one: Path, two: Path) -> None:
    publish(one)
    publish(two)
    told: list[str] = []
    publish(one, told=told)
    assert tree(hub.repositories["org/tiny"], "main") == content(two)
    assert f"`main` has another version and was not changed: load this one by its tag, revision={one.name}" in told[0]


@pytest.mark.parametrize("pull_request", [False, True])
def test_files_of_others_are_not_deleted(hub: Hub, one: Path, two: Path, pull_request: bool) -> None:
    publish(one)
    repository = hub.repositories["org/tiny"]
    repository.add("main", content(one) | {"examples/try.ipynb": b"{}", ".gitattributes": b""}, "an example")
    with pytest.raises(
        UserError, match=r"holds files that are not from a release \(examples/try.ipynb\).*: remove them there first, or"
    ):
        publish(two, hub_pull_request=pull_request)
    assert "examples/try.ipynb" in tree(repository, "main")


def test_what_is_downloaded_from_the_hub_verifies(hub: Hub, one: Path, tmp_path: Path) -> None:
    publish(one)
    (tmp_path / "plain").mkdir()
    plain = snapshot_download("org/tiny", revision=one.name, local_dir=tmp_path / "plain", endpoint=hub.endpoint, token=TOKEN)
    cached = snapshot_download("org/tiny", revision=one.name, cache_dir=tmp_path / "cache", endpoint=hub.endpoint, token=TOKEN)
    assert any(path.is_symlink() for path in Path(cached).iterdir())
    for folder in (Path(plain), Path(cached)):
        assert checksum_problems(folder) == []
        assert files_below(folder).keys() == content(one).keys()
    weights = Path(cached) / "model.safetensors"
    weights.unlink()
    weights.symlink_to("nowhere")
    assert checksum_problems(Path(cached)) == ["model.safetensors has other content than recorded"]


def test_a_public_repository_on_request(hub: Hub, one: Path) -> None:
    publish(one, hub_private=False)
    assert not hub.repositories["org/tiny"].private


def test_a_pull_request_is_checked_found_again_and_tagged_after_its_merge(hub: Hub, one: Path) -> None:
    told: list[str] = []
    for _ in range(2):
        publish(one, told=told, hub_pull_request=True)
    repository = hub.repositories["org/tiny"]
    assert repository.pull_requests == [f"Release tiny {one.name}"]
    assert tree(repository, "refs/pr/1") == content(one)
    assert tree(repository, "main") == {}
    assert repository.tags == {}
    page = f"{hub.endpoint}/org/tiny/discussions/1"
    assert told == [f"publish: copied to and checked at {page}", f"publish: unchanged at {page}"]

    merged = repository.add("main", repository.commits[repository.refs["refs/pr/1"][-1]].files, "Merge")
    publish(one, hub_pull_request=True)
    assert repository.tags == {one.name: merged}
    assert len(repository.pull_requests) == 1


@pytest.mark.parametrize("how", ["a commit", "a pull request"])
def test_what_the_hub_damaged_is_found_and_gets_no_tag(hub: Hub, one: Path, how: str) -> None:
    hub.damage = lambda sent: sent[:-1] + bytes([sent[-1] ^ 1])
    with pytest.raises(UserError, match=r"model\.safetensors has other content than recorded"):
        publish(one, hub_pull_request=how == "a pull request")
    assert hub.repositories["org/tiny"].tags == {}


def test_a_tag_that_holds_something_else_is_refused(hub: Hub, one: Path) -> None:
    publish(one)
    repository = hub.repositories["org/tiny"]
    files = dict(repository.commits[repository.tags[one.name]].files)
    repository.tags[one.name] = repository.add("main", files | {"config.json": b"{}       ", "new.txt": b""}, "by hand")
    with pytest.raises(UserError, match=r"holds other files than this release \(config\.json .*; new\.txt is extra\)"):
        publish(one)


def test_a_crash_between_commit_and_tag_is_mended_by_the_next_run(hub: Hub, one: Path) -> None:
    hub.before = lambda method, path: 403 if "/tag/" in path else None
    with pytest.raises(UserError, match="the hub refuses it: set HF_TOKEN"):
        publish(one)
    assert hub.repositories["org/tiny"].tags == {}
    hub.before = lambda method, path: None
    publish(one)
    assert len(hub.repositories["org/tiny"].refs["main"]) == 2  # not committed again
    assert list(hub.repositories["org/tiny"].tags) == [one.name]


@pytest.mark.parametrize("status", [0, 503])
@pytest.mark.parametrize("step", ["/refs", "/commit/", "/tag/", "/lfs-store/", "/tree/"])
def test_a_passing_fault_at_any_step_is_tried_again(hub: Hub, one: Path, step: str, status: int) -> None:
    left = [1]

    def fail_once(method: str, path: str) -> int | None:
        return status if step in path and left and left.pop() else None

    hub.before = fail_once
    publish(one)
    assert not left
    assert len(hub.repositories["org/tiny"].refs["main"]) == 2


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub: Hub, one: Path) -> None:
    left = [1]
    hub.after = lambda method, path: 0 if "/commit/" in path and left and left.pop() else None
    publish(one)
    assert not left
    assert len(hub.repositories["org/tiny"].refs["main"]) == 2
    assert tree(hub.repositories["org/tiny"], one.name) == content(one)


def test_a_hub_that_stays_broken_leaves_what_is_served_and_a_sentence(hub: Hub, one: Path, two: Path) -> None:
    publish(one)
    hub.before = lambda method, path: 500 if "/commit/" in path else None
    with pytest.raises(UserError, match=r"not at 1 of 1 .*hub:org/tiny: the hub answers with an error \(500\)"):
        publish(two)
    assert tree(hub.repositories["org/tiny"], "main") == content(one)
    hub.before = lambda method, path: None
    publish(two)
    assert tree(hub.repositories["org/tiny"], "main") == content(two)


def test_two_publishers_at_once_leave_two_whole_releases(hub: Hub, one: Path, two: Path) -> None:
    publish(write_release(one.parents[1], 9))  # the repository is there
    meeting = threading.Barrier(2)
    failed: list[Exception] = []

    def work(release: Path) -> None:
        try:
            meeting.wait()
            publish(release)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(release,)) for release in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    repository = hub.repositories["org/tiny"]
    assert tree(repository, one.name) == content(one)
    assert tree(repository, two.name) == content(two)
    assert tree(repository, "main") in (content(one), content(two))


def test_a_commit_that_another_publisher_forestalled_is_made_upon_that_one(hub: Hub, one: Path, two: Path) -> None:
    publish(one)
    repository = hub.repositories["org/tiny"]
    left = [1]

    def forestall(method: str, path: str) -> int | None:
        if "/commit/" in path and left and left.pop():
            repository.add("main", {"README.md": b"by hand", ".gitattributes": b""}, "by hand")
        return None

    hub.before = forestall
    publish(two)
    assert not left
    assert tree(repository, "main") == content(two)
    assert len(repository.refs["main"]) == 4


@pytest.mark.parametrize("token", ["hf_wrongtokenwrongtoken", TOKEN])
def test_no_right_to_write_is_one_sentence(hub: Hub, one: Path, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=r"the hub refuses it: set HF_TOKEN.* to a token that may write there") as refusal:
        publish(one, "elsewhere/tiny")
    assert token not in str(refusal.value)


def test_what_the_hub_finds_wrong_with_the_release_is_said(hub: Hub, one: Path) -> None:
    hub.before = lambda method, path: 400 if path == "/api/validate-yaml" else None
    with pytest.raises(UserError, match=r"the hub refuses it \(Invalid metadata in README\.md"):
        publish(one)
    assert len(hub.repositories["org/tiny"].refs["main"]) == 1


def test_a_token_that_cannot_be_sent_is_not_quoted(hub: Hub, one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\n")  # as files of secrets end
    publish(one)
    monkeypatch.setenv("HF_TOKEN", "hf_first\nhf_second")
    with pytest.raises(UserError, match="needs a token") as refusal:
        publish(one)
    assert "hf_first" not in str(refusal.value)


def test_offline_and_out_of_reach_are_said(hub: Hub, one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="the hub does not answer as expected"):
        publish(one)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="unset HF_HUB_OFFLINE"):
        publish(one)


def test_the_token_is_written_and_told_nowhere(
    hub: Hub, one: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    with caplog.at_level(logging.DEBUG):
        publish(one, told=told)
        hub.before = lambda method, path: 500 if "/commit/" in path else None
        with pytest.raises(UserError) as refusal:
            publish(write_release(tmp_path / "made", 2))
    printed = capfd.readouterr()
    seen = [*told, str(refusal.value), caplog.text, printed.out, printed.err, *hub.requests]
    committed = [content for r in hub.repositories.values() for c in r.commits.values() for content in c.files.values()]
    on_disk = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(TOKEN in text for text in seen)
    assert not any(TOKEN.encode() in blob for blob in (*committed, *hub.objects.values(), *on_disk))


def test_releases_are_listed_by_their_tags_and_not_rolled_back(hub: Hub, one: Path, two: Path) -> None:
    publish(one)
    publish(two)
    hub.repositories["org/tiny"].tags["v1"] = hub.repositories["org/tiny"].refs["main"][0]  # somebody's own
    newer, older = list_releases("hub:org/tiny")
    assert (newer.digest, newer.is_current, older.digest, older.is_current) == (two.name, True, one.name, False)
    assert newer.created is not None
    assert older.created is not None
    assert newer.created > older.created
    assert (older.name, older.base, older.target_length, older.is_complete) == ("org/tiny", "org/base", 256, True)
    assert older.num_bytes == sum(len(data) for data in content(one).values())
    with pytest.raises(UserError, match=r"cannot be rolled back from here.*revision"):
        rollback("hub:org/tiny", "tiny")
    with pytest.raises(UserError, match=r"The repository hub:.* cannot be read"):
        list_releases("hub:org/none")


def test_a_version_that_is_not_to_be_served_changes_no_main(hub: Hub, one: Path, two: Path) -> None:
    publish(one)
    told: list[str] = []
    publish(two, told=told, is_to_serve=False)
    repository = hub.repositories["org/tiny"]
    assert tree(repository, "main") == content(one)
    assert list(repository.tags) == [one.name]
    assert told == ["publish: unchanged at hub:org/tiny; this version is not to be served, and `main` would serve it"]
    publish(two, is_to_serve=False, hub_pull_request=True)
    assert tree(repository, "main") == content(one)
    assert repository.pull_requests == [f"Release tiny {two.name}"]
