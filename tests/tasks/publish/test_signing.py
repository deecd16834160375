"""Signatures: made with one key, checked with another program, and no change of a signed release goes unseen."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.storage import Artifact
from flows.commands.sign import sign_release
from tasks.publish.checks import Check
from tasks.publish.checksums import CHECKSUMS, SIGNATURE, write_checksums
from tasks.publish.destinations.folder import FolderPlace
from tasks.publish.destinations.version import problems_at
from tasks.publish.signing import check_signature, fingerprint, make_keys, private_key, public_key, sign
from tasks.publish.verify import check_files, verify_release
from tests.tasks.release_example import FinishedRun, finished_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> FinishedRun:
    return finished_run(tmp_path_factory.mktemp("run"), tokenizer)


@pytest.fixture(scope="module")
def original(finished: FinishedRun) -> Path:
    return finished.publish().path


@pytest.fixture
def release(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "release"))


@pytest.fixture
def me(tmp_path: Path) -> tuple[Path, Path]:
    private, public, _ = make_keys(tmp_path / "me")
    return private, public


def signature(release: Path, public: Path | None = None) -> Check:
    return check_signature(release, public_key(public) if public else None)


def test_an_unsigned_release_verifies_and_says_so(release: Path, me: tuple[Path, Path]) -> None:
    assert signature(release) == Check("signature", True, "unsigned")
    asked = signature(release, me[1])
    assert not asked.ok
    assert asked.detail == f"unsigned, but it should be signed by {fingerprint(public_key(me[1]))}"


def test_a_signed_release_verifies_and_names_the_key(
    release: Path, me: tuple[Path, Path], capsys: pytest.CaptureFixture
) -> None:
    private, public = me
    sign_release(release, private)
    name = fingerprint(public_key(public))
    assert capsys.readouterr().out == f"{release} is signed by {name}\n"
    assert signature(release, public) == Check("signature", True, f"signed by {name}")
    assert signature(release).ok
    assert f"signed by {name}, whoever that is" in signature(release).detail
    checks = verify_release(release, signed_by=public)
    assert [check.detail for check in checks if not check.ok] == []
    assert f"signed by {name}" in [check.detail for check in checks]


def test_another_s_signature_is_found(release: Path, me: tuple[Path, Path], tmp_path: Path) -> None:
    private, _, _ = make_keys(tmp_path / "mallory")
    sign(release, private_key(private))
    assert signature(release).ok
    found = signature(release, me[1])
    assert not found.ok
    assert f"not by {fingerprint(public_key(me[1]))}" in found.detail


def test_no_change_of_a_signed_release_goes_unseen(release: Path, me: tuple[Path, Path]) -> None:
    private, public = me
    sign(release, private_key(private))
    config = release / "config.json"
    content = config.read_bytes()
    config.write_bytes(content.replace(b"{", b"{ ", 1))
    assert signature(release, public).ok, "it covers the list of hashes"
    assert not all(check.ok for check in check_files(release))
    write_checksums(release)  # as one would who hides the change
    assert signature(release, public).detail.startswith("does not match")
    assert signature(release).detail.startswith("does not match"), "also where no key is asked for"
    config.write_bytes(content)
    with pytest.raises(UserError, match=r"is not signed, because config\.json"):
        sign(release, private_key(private))


def test_every_flipped_bit_of_a_signature_is_found(release: Path, me: tuple[Path, Path]) -> None:
    sign(release, private_key(me[0]))
    file = release / SIGNATURE
    good = json.loads(file.read_text())
    for field in ("signature", "public_key"):
        raw = base64.b64decode(good[field])
        for place in range(0, len(raw) * 8, 5):
            changed = bytearray(raw)
            changed[place // 8] ^= 1 << place % 8
            file.write_text(json.dumps(good | {field: base64.b64encode(bytes(changed)).decode()}))
            assert not signature(release, me[1]).ok, (field, place)
    for broken in (
        "",
        "{}",
        "[]",
        "null",
        '"x"',
        json.dumps(good | {"signature": "?"}),
        json.dumps(good | {"algorithm": "none"}),
    ):
        file.write_text(broken)
        assert signature(release).detail == f"does not match: {SIGNATURE} cannot be read as a signature"
        assert not signature(release).ok


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_agrees(release: Path, me: tuple[Path, Path], tmp_path: Path) -> None:
    sign(release, private_key(me[0]))
    raw = tmp_path / "signature"
    raw.write_bytes(base64.b64decode(json.loads((release / SIGNATURE).read_text())["signature"]))
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        me[1],
        "-rawin",
        "-in",
        release / CHECKSUMS,
        "-sigfile",
        raw,
    ]
    assert "Verified Successfully" in subprocess.run(command, capture_output=True, text=True).stdout


def published(finished: FinishedRun, **changes: object) -> Artifact:
    publish = finished.params.publish.model_copy(update=changes)
    return finished.publish(params=finished.params.model_copy(update={"publish": publish}))


def test_the_publish_stage_signs_and_destinations_get_the_signature(
    finished: FinishedRun, me: tuple[Path, Path], tmp_path: Path
) -> None:
    place = tmp_path / "served"
    release = published(finished, signing_key=str(me[0]), destinations=(str(place),))
    assert signature(release.path, me[1]).ok
    copied = next(place.rglob(SIGNATURE)).parent
    assert signature(copied, me[1]).ok
    assert all(check.ok for check in check_files(copied))
    assert release.digest != finished.publish().digest, "who signed belongs to the version"
    assert str(me[0]) not in (release.path / "provenance.json").read_text()
    other, *_ = make_keys(tmp_path / "other")
    with pytest.raises(UserError, match="with the signature of another key, which is part of it: publish it again"):
        sign(release.path, private_key(other))
    sign(release.path, private_key(me[0]))
    assert all(check.ok for check in check_files(release.path))
    assert published(finished, signing_key=str(me[0]), destinations=(str(place),)).reused


def test_a_copy_that_was_signed_later_is_still_the_version(
    finished: FinishedRun, me: tuple[Path, Path], tmp_path: Path
) -> None:
    place = tmp_path / "served"
    release = published(finished, destinations=(str(place),))
    copied = next(place.rglob(CHECKSUMS)).parent
    sign(copied, private_key(me[0]))
    assert published(finished, destinations=(str(place),)).digest == release.digest
    assert problems_at(FolderPlace(place), finished.params.release_name, release.digest) == []


def test_keys_are_for_their_owner_and_never_overwritten(tmp_path: Path) -> None:
    private, public, name = make_keys(tmp_path / "me")
    assert private.stat().st_mode & 0o777 == 0o600
    assert fingerprint(private_key(private).public_key()) == fingerprint(public_key(public)) == name
    with pytest.raises(UserError, match=r"me\.key exists: give another name"):
        make_keys(tmp_path / "me")
    with pytest.raises(UserError, match="Cannot write the keys"):
        make_keys(tmp_path / "no folder" / "me")


def test_a_wrong_key_file_is_one_sentence(tmp_path: Path) -> None:
    private, public, _ = make_keys(tmp_path / "me")
    with pytest.raises(UserError, match="cannot be read as a private key"):
        private_key(tmp_path / "missing.key")
    os.chmod(public, 0o600)
    with pytest.raises(UserError, match="cannot be read as a private key"):
        private_key(public)
    with pytest.raises(UserError, match=r"cannot be read as a public key .*: give the signer's \.pub file"):
        public_key(private)
    os.chmod(private, 0o640)
    with pytest.raises(UserError, match="Other users can read the private key"):
        private_key(private)
