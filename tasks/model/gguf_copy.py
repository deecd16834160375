"""What transformers read from a GGUF base, kept as plain files, so that a file is parsed once and not by every stage and worker.

Parsing takes longer than anything else in a short run where the vocabulary is large: Gemma 3 270M has 262,144 tokens, and reading
its configuration takes half a minute of processor time, its tokenizer a little more, and its weights as long. The weights of small files
are kept too, in float32; those of large ones would fill the disk, and are read from the file each time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_schemas.cache_folder import cache_folder

MOST_KEPT_BYTES = 512 << 20  # of a file whose weights are kept: at 4 bits a weight, they take 8 times as much


def kept_part(fingerprint: str, part: str, read: Callable[[], Any], again: Callable[[str], Any]) -> Any:
    """`again(folder)` of what `read()` gave before for this base, else `read()`, which is kept for the next time.

    `part` is "config" or "tokenizer": an object with `save_pretrained`. Files of another version of transformers are not read. A cache
    that cannot be written or read only costs time.
    """
    folder = _folder(fingerprint, part)
    if folder.is_dir():
        with contextlib.suppress(OSError, ValueError):
            return again(str(folder))
    found = read()
    with contextlib.suppress(OSError):
        _keep(found, folder)
    return found


def kept_weights(file: Path, fingerprint: str, read: Callable[[], Any]) -> str | None:
    """The folder of a small file's weights as safetensors, made with the model that `read()` gives if there is none yet.

    None for a large file, and where the cache cannot be written.
    """
    if file.stat().st_size > MOST_KEPT_BYTES:
        return None
    folder = _folder(fingerprint, "weights")
    if not folder.is_dir():
        with contextlib.suppress(OSError):
            _keep(read(), folder)
    return str(folder) if folder.is_dir() else None


def _folder(fingerprint: str, part: str) -> Path:
    return cache_folder() / "gguf" / f"{fingerprint}-{version('transformers')}" / part


def _keep(found: Any, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        found.save_pretrained(staging)
        os.rename(staging, folder)  # fails if another process was first, whose files are the same
    finally:
        shutil.rmtree(staging, ignore_errors=True)
