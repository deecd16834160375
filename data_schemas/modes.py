"""Permissions of what is written: those that the umask gives, whatever library wrote it.

Temporary files and folders are made for their owner alone (mode 0600 and 0700), and keep that when they are renamed: safetensors
before 0.9 writes so, and `tempfile.mkdtemp`. Another user's server could not read such a release.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


def follow_umask(directory: Path) -> None:
    """Give `directory` and all files and folders below it at least the permissions of a plain `open` or `mkdir`.

    None is taken away. Links are left alone, and so is what belongs to another user.
    """
    mask = umask()
    for folder, folders, names in os.walk(directory):
        for path in (folder, *(os.path.join(folder, name) for name in (*folders, *names))):
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                continue
            wanted = (0o777 if stat.S_ISDIR(mode) else 0o666) & ~mask
            if wanted & ~mode:
                with contextlib.suppress(PermissionError):
                    os.chmod(path, stat.S_IMODE(mode) | wanted)


def umask() -> int:
    """This process's umask. Linux tells it; elsewhere it is set and put back, which other threads could notice."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("Umask:")), 8)
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
