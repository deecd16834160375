"""A release from any place, as a folder of this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_schemas.addresses import is_remote, local_path
from data_schemas.errors import UserError
from data_schemas.progress import ProgressCallback, message
from data_schemas.releases import CURRENT, parse_pointer, version_below
from data_schemas.remote import Remote
from tasks.publish.destinations.address import place_at
from tasks.publish.destinations.hub import HubPlace


@contextmanager
def release_folder(where: str, progress: ProgressCallback) -> Iterator[Path]:
    """A local folder itself. A release at an fsspec URI or `hub:org/name` is downloaded, and removed at the end of the block.

    A URI may name a version, or `releases/NAME`, whose `current` is followed. UserError if there is no release.
    """
    place = place_at(where)
    if not isinstance(place, HubPlace) and not is_remote(where):
        folder = local_path(where)
        if not folder.is_dir():
            raise UserError(f"There is no release folder {where}: `ropeway releases` lists releases.")
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ropeway-release-") as temporary:
        progress(message(f"downloading {where}"))
        folder = Path(temporary).resolve()
        if isinstance(place, HubPlace):
            _from_hub(place, folder)
        else:
            _from_store(Remote(where), folder)
        yield folder


def _from_hub(place: HubPlace, folder: Path) -> None:
    try:
        place.api.snapshot_download(place.repo_id, local_dir=folder)
    except Exception as error:
        raise UserError(
            f"{place.uri} cannot be downloaded ({type(error).__name__}): check its name, the connection, and HF_TOKEN if it is private."
        ) from error


def _from_store(remote: Remote, folder: Path) -> None:
    digest = parse_pointer(remote.read(CURRENT))
    version = remote.below(version_below(digest)) if digest else remote
    names = version.sizes()
    if not names:
        raise UserError(f"There is no release at {version.uri}: give the URI of a version, or of releases/NAME.")
    for name in names:
        target = (folder / name).resolve()
        if not target.is_relative_to(folder):
            raise UserError(
                f"{version.uri} holds a file {name!r} outside its folder, so Ropeway did not write it: do not use it."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        version.download(name, target)
