"""Signatures of releases: Ed25519 over `SHA256SUMS`, which has the hash of every file.

`SHA256SUMS.sig` holds the public key and the signature. A signature alone shows that nothing changed since somebody signed; who that
was is known only by comparing the key with one that came another way. Keys are PEM files, as OpenSSL writes and reads them.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from data_schemas.errors import UserError
from data_schemas.manifest import MANIFEST_NAME, Manifest
from data_schemas.storage import write_atomically
from tasks.publish.checks import Check, ProblemFound, run_check
from tasks.publish.checksums import CHECKSUMS, SIGNATURE, checksum_problems

_ALGORITHM = "ed25519"


def make_keys(name: Path) -> tuple[Path, Path, str]:
    """Write NAME.key, for this user alone, and NAME.pub; returns both paths and the key's fingerprint. UserError if one exists."""
    private_file, public_file = Path(f"{name}.key"), Path(f"{name}.pub")
    for path in (private_file, public_file):
        if path.exists():
            raise UserError(f"{path} exists: give another name, because a key that is lost cannot be made again.")
    key = Ed25519PrivateKey.generate()
    try:
        with os.fdopen(os.open(private_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public_file.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    except OSError as error:
        raise UserError(f"Cannot write the keys {name}.key and {name}.pub: {error.strerror}; give another folder.") from error
    return private_file, public_file, fingerprint(key.public_key())


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA256: and the hash of the raw public key in base64, which tells keys apart."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(_raw(key)).digest()).decode().rstrip("=")


def private_key(path: Path) -> Ed25519PrivateKey:
    """UserError for a file that is missing, readable by others, or not an Ed25519 key without a password."""
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise UserError(f"Other users can read the private key {path}: run chmod 600 on it.")
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path} cannot be read as a private key ({error}): make one with `ropeway keys NAME`.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{path} is not an Ed25519 key: make one with `ropeway keys NAME`.")
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """UserError for a file that is missing or not an Ed25519 public key."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path} cannot be read as a public key ({error}): give the signer's .pub file.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UserError(f"{path} is not an Ed25519 public key: give the signer's .pub file.")
    return key


def sign(directory: Path, key: Ed25519PrivateKey) -> str:
    """Write the signature of a version and return the key's fingerprint. UserError if its files are not as `SHA256SUMS` says."""
    problems = [f"{CHECKSUMS} is missing"] if not (directory / CHECKSUMS).is_file() else checksum_problems(directory)
    if problems:
        raise UserError(f"{directory} is not signed, because {problems[0]}: publish it again, then sign it.")
    if _is_in_manifest(directory) and _raw(_read(directory / SIGNATURE)[0]) != _raw(key.public_key()):
        raise UserError(
            f"{directory} was published with the signature of another key, which is part of it: publish it again with "
            "publish.signing_key set to your key."
        )
    signed = {
        "algorithm": _ALGORITHM,
        "public_key": base64.b64encode(_raw(key.public_key())).decode(),
        "signature": base64.b64encode(key.sign((directory / CHECKSUMS).read_bytes())).decode(),
    }
    write_atomically(directory / SIGNATURE, json.dumps(signed, indent=1) + "\n")
    return fingerprint(key.public_key())


def _is_in_manifest(directory: Path) -> bool:
    """Whether the signature is one of the files that make the version."""
    manifest = directory / MANIFEST_NAME
    return manifest.is_file() and any(
        entry.path == SIGNATURE for entry in Manifest.model_validate_json(manifest.read_bytes()).files
    )


def check_signature(directory: Path, signed_by: Ed25519PublicKey | None = None) -> Check:
    """Whether the release is signed, and by which key. It fails for a wrong signature, and where `signed_by` did not sign."""
    return run_check("signature", lambda: _signature(directory, signed_by))


def _signature(directory: Path, signed_by: Ed25519PublicKey | None) -> str:
    path = directory / SIGNATURE
    if not path.is_file():
        if signed_by is not None:
            raise ProblemFound(f"unsigned, but it should be signed by {fingerprint(signed_by)}")
        return "unsigned"
    key, signature = _read(path)
    try:
        key.verify(signature, (directory / CHECKSUMS).read_bytes())
    except InvalidSignature:
        raise ProblemFound(f"does not match: {SIGNATURE} is not a signature of this {CHECKSUMS}") from None
    if signed_by is None:
        return f"signed by {fingerprint(key)}, whoever that is; --signed-by checks for a key that you know"
    if _raw(key) != _raw(signed_by):
        raise ProblemFound(f"signed by {fingerprint(key)}, not by {fingerprint(signed_by)}")
    return f"signed by {fingerprint(key)}"


def _read(path: Path) -> tuple[Ed25519PublicKey, bytes]:
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        signed = json.loads(path.read_text(encoding="utf-8"))
        if signed["algorithm"] == _ALGORITHM:
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(signed["public_key"], validate=True))
            return key, base64.b64decode(signed["signature"], validate=True)
    raise ProblemFound(f"does not match: {path.name} cannot be read as a signature")


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
