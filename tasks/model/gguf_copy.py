"""What transformers read from a GGUF base, kept as plain files, so that a file is parsed once and not by every stage and worker.

Parsing takes longer than anything else in a short run where the vocabulary is large: Gemma 3 270M has 262,144 tokens, and reading
its configuration takes half a minute of processor time, its tokenizer a little more. Weights are not kept: they are read from the file
each time they are needed.
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


def kept_part(fingerprint: str, part: str, read: Callable[[], Any], again: Callable[[str], Any]) -> Any:
    """`again(folder)` of what `read()` gave before for this base, else `read()`, which is kept for the next time.

    `part` is "config" or "tokenizer": an object with `save_pretrained`. Files of another version of transformers are not read. A cache
    that cannot be written or read only costs time.
    """
    folder = cache_folder() / "gguf" / f"{fingerprint}-{version('transformers')}" / part
    if folder.is_dir():
        with contextlib.suppress(OSError, ValueError):
            return again(str(folder))
    found = read()
    with contextlib.suppress(OSError):
        _keep(found, folder)
    return found


def _keep(found: Any, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        found.save_pretrained(staging)
        os.rename(staging, folder)  # fails if another process was first, whose files are the same
    finally:
        shutil.rmtree(staging, ignore_errors=True)
