"""The one folder of this machine for what can be made or fetched again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Absolute path: ROPEWAY_CACHE if that is set, else `ropeway` in the user's cache folder (XDG_CACHE_HOME or ~/.cache)."""
    cache = os.environ.get("ROPEWAY_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "ropeway")
    return Path(cache).expanduser().absolute()
