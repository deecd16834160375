"""Which files and folders have fewer permissions than the umask gives."""

import stat
from pathlib import Path


def narrower_than_umask(root: Path, mask: int) -> list[str]:
    """`root` itself and all below it, each with its mode, where a plain `open` or `mkdir` would have given more."""
    found = []
    for path in (root, *root.rglob("*")):
        mode = path.lstat().st_mode
        wanted = (0o777 if stat.S_ISDIR(mode) else 0o666) & ~mask
        if not stat.S_ISLNK(mode) and wanted & ~mode:
            found.append(f"{path.relative_to(root)} has mode {stat.S_IMODE(mode):o}")
    return found
