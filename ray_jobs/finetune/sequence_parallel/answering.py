"""What happens when another worker vanishes: waiting for it ends with a sentence, and never lasts for ever.

This is how gloo behaves, which workers on CPUs use. NCCL's wait raises no error at the limit: torch's watchdog ends the process. That
was not tried.

A worker that is killed closes its connections, so the others learn of it at once. One that hangs is noticed when the limit of the process
group has passed (`ray.exchange_timeout_s`). Ray then starts all workers again from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

GROUP_LIMIT = "the limit of their process group (ray.exchange_timeout_s where workers share rows, else 30 minutes)"


class WorkerLostError(RuntimeError):
    """Another worker does not answer. Starting all workers again may help, so it is no `UserError`."""


@contextmanager
def answering(occasion: str, limit: str) -> Iterator[None]:
    """Turns the library's error into a `WorkerLostError`. Only messages between workers belong inside."""
    try:
        yield
    except WorkerLostError:
        raise
    except RuntimeError as error:
        raise _lost(error, occasion, limit) from error


@contextmanager
def answering_among_others(occasion: str, limit: str = GROUP_LIMIT) -> Iterator[None]:
    """As `answering`, around work that has messages of libraries in it, such as FSDP's: an error of another kind stays what it is."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, WorkerLostError) and _is_of_message(error):
            raise _lost(error, occasion, limit) from error
        raise


def _is_of_message(error: RuntimeError) -> bool:
    """Gloo's errors are plain ones that name the file of gloo in which they were raised."""
    import torch.distributed as dist  # not above: a run with nothing to do loads this file, and no torch

    return isinstance(error, dist.DistError) or "gloo/" in str(error)


def _lost(error: RuntimeError, occasion: str, limit: str) -> WorkerLostError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return WorkerLostError(
        f"A worker does not answer while {occasion}: it was lost, or took longer than {limit}; this step is made again from the last "
        f"checkpoint when the workers start again ({first[:160]})."
    )
