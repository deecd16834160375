"""Hide progress bars and notices of libraries, which would interrupt a run's own progress lines."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# What peft says of its own use of transformers, and of embeddings that are trained on purpose.
_OF_PEFT = ("`is_gradient_checkpointing` is deprecated", "Setting `save_embedding_layers` to `True`")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Show only errors of transformers and warnings of others in the block; restore the settings after it."""
    from transformers.utils import logging as notices

    shown, level = notices.is_progress_bar_enabled(), notices.get_verbosity()
    notices.disable_progress_bar()
    notices.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            for message in _OF_PEFT:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        notices.set_verbosity(level)
        if shown:
            notices.enable_progress_bar()
