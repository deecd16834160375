"""bitsandbytes, where it is installed: loaded only by what needs it."""

from __future__ import annotations

import logging
import sys
from typing import Any

from data_schemas.errors import UserError


def bitsandbytes_functional() -> Any:
    """The module `bitsandbytes.functional`, without its notice of missing optional kernels. UserError if it is not installed."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import bitsandbytes.functional as functional
    except ImportError as error:
        raise UserError(
            "training.base_precision needs the package bitsandbytes, which is not installed: run pip install 'ropeway[quantized]', or "
            "choose full."
        ) from error
    return functional


def load_peft() -> None:
    """Import peft without bitsandbytes, which it would load too: two seconds for layers that Ropeway does not use.

    peft remembers that there is none, so it also wraps quantised layers (`tasks.model.quantised_linear`) as the linear ones they are.
    """
    if "peft" in sys.modules:
        return
    before: Any = sys.modules.get("bitsandbytes")
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
    try:
        from peft.import_utils import is_bnb_4bit_available, is_bnb_available

        is_bnb_available(), is_bnb_4bit_available()
    finally:
        del sys.modules["bitsandbytes"]
        if before is not None:
            sys.modules["bitsandbytes"] = before
