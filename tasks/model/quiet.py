"""Hide progress bars and notices of libraries, which would interrupt a run's own progress lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Show only errors in the block; restore the settings after it."""
    from transformers.utils import logging as notices

    shown, level = notices.is_progress_bar_enabled(), notices.get_verbosity()
    notices.disable_progress_bar()
    notices.set_verbosity_error()
    try:
        yield
    finally:
        notices.set_verbosity(level)
        if shown:
            notices.enable_progress_bar()
