"""What transformers read from a GGUF base, kept as plain files, so that a file is parsed once and not by every stage and worker.

Parsing takes longer than anything else in a short run where the vocabulary is large: Gemma 3 270M has 262,144 tokens, and reading
its configuration takes half a minute of processor time, its tokenizer a little more, and its weights as long. The weights of small files
are kept too, in float32; those of large ones would fill the disk, and are read from the file each time.

A copy is whole if it has the files of its list, which is written last, each as long as the list says. Another one, or one that cannot be
read, is removed and made anew. All copies together stay below a bound: the one that was not used for the longest time goes first.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from data_schemas.cache_folder import cache_folder
from data_schemas.storage import fsync_tree

MOST_KEPT_BYTES = 512 << 20  # of a file whose weights are kept: at 4 bits a weight, they take 8 times as much
MOST_CACHE_BYTES = 16 << 30  # of all copies
_LIST = "kept_files.json"
_LONGEST_WRITE_S = 24 * 3600  # what was begun before that was left by a process that was killed


def kept_part(fingerprint: str, part: str, read: Callable[[], Any], again: Callable[[str], Any]) -> Any:
    """`again(folder)` of what `read()` gave before for this base, else `read()`, which is kept for the next time.

    `part` is "config" or "tokenizer": an object with `save_pretrained`. Files of another version of transformers or gguf are not read.
    A cache that cannot be written or read only costs time.
    """
    folder = _folder(fingerprint, part)
    kept = _read(folder, again)
    if kept is not None:
        return kept
    found = read()
    _keep(found, folder)
    return found


def kept_weights(file: Path, fingerprint: str, read: Callable[[], Any], again: Callable[[str], Any]) -> Any | None:
    """`again(folder)` of a small file's weights as safetensors, which are made with the model that `read()` gives if there are none.

    None for a large file, and where the cache cannot be written or read.
    """
    if file.stat().st_size > MOST_KEPT_BYTES:
        return None
    folder = _folder(fingerprint, "weights")
    kept = _read(folder, again)
    if kept is not None:
        return kept
    _keep(read(), folder)
    return _read(folder, again)


def _folder(fingerprint: str, part: str) -> Path:
    return cache_folder() / "gguf" / "-".join((fingerprint, _version("transformers"), _version("gguf"))) / part


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _read(folder: Path, again: Callable[[str], Any]) -> Any | None:
    """None if there is no copy, or it is damaged and now removed."""
    if not folder.exists():
        return None
    if _is_whole(folder):
        with suppress(Exception):  # a damaged file raises whatever its parser raises; reading the base itself gives the reason
            found = again(str(folder))
            with suppress(OSError):  # the cache may belong to another user
                os.utime(folder / _LIST)
            return found
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _LIST).read_text())
        return bool(sizes) and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _keep(found: Any, folder: Path) -> None:
    """Write `found` to `folder`, all or nothing. Whatever goes wrong, such as a full disk, only leaves no copy."""
    staging = folder.parent / f".{folder.name}-{uuid.uuid4().hex}"
    with suppress(Exception):  # safetensors has an error of its own for a full disk
        try:
            staging.mkdir(parents=True)
            found.save_pretrained(staging)
            sizes = {str(path.relative_to(staging)): path.stat().st_size for path in staging.rglob("*") if path.is_file()}
            (staging / _LIST).write_text(json.dumps(sizes))
            fsync_tree(staging)
            os.rename(staging, folder)  # fails if another process was first, whose files are the same
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        _tidy(folder)


def _tidy(newest: Path) -> None:
    """Remove what killed processes left, and the copies used longest ago until all are within the bound; `newest` stays."""
    parts = list((cache_folder() / "gguf").glob("*/*"))
    copies: list[tuple[float, int, Path]] = []
    for folder in parts:
        with suppress(OSError):  # another process removed it
            if folder.name.startswith("."):
                if folder.stat().st_mtime < time.time() - _LONGEST_WRITE_S:
                    shutil.rmtree(folder, ignore_errors=True)
            else:
                used = (folder / _LIST).stat().st_mtime if (folder / _LIST).is_file() else 0.0
                copies.append((used, sum(path.stat().st_size for path in folder.rglob("*")), folder))
    total = sum(size for _, size, _ in copies)
    for _, size, folder in sorted(copies):
        if total > MOST_CACHE_BYTES and folder != newest:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
