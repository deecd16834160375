"""`ropeway keys` and `ropeway sign`: make a pair of keys, and sign a release with it."""

from pathlib import Path

from data_schemas.errors import UserError
from data_schemas.releases import resolve_release
from tasks.publish.signing import make_keys, private_key, sign


def write_keys(name: Path) -> None:
    """Print which files hold the keys, and the fingerprint that readers compare."""
    private, public, fingerprint = make_keys(name)
    print(f"{private}: keep it to yourself, and keep a copy")
    print(f"{public}: give it to those who verify your releases")
    print(fingerprint)


def sign_release(release: Path, key: Path) -> None:
    """Sign a version, or the current one of releases/NAME, and print by which key."""
    if not release.is_dir():
        raise UserError(f"There is no folder {release}: give a release, or the folder releases/NAME of the storage.")
    version = resolve_release(release.resolve())
    print(f"{version} is signed by {sign(version, private_key(key))}")
