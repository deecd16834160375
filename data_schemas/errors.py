"""The error that a user reads, and how a full disk and full memory are recognised."""

import errno
import re


class UserError(Exception):
    """Something the user can fix. The message says in one sentence what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """


_NO_SPACE = re.compile(r"os error (28|122)\b|Errno (28|122)\b|No space left on device|Disk quota exceeded", re.IGNORECASE)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether `error` or its cause is a full disk. Libraries wrap that in many types, some of which keep only the text."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if _NO_SPACE.search(str(error)):
            return True
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
    return False


_NO_MEMORY = re.compile(r"CPUAllocator: .*you tried to allocate|out of memory|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether `error`, or what it was raised for, is an allocation that failed, on a GPU or in the main memory.

    torch has a type for it on GPUs alone, which is found by its name, since nothing here imports torch.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, UserError):
            return False
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)):
            return True
        error = getattr(error, "cause", None) or error.__cause__
    return False


def out_of_memory(remedy: str) -> UserError:
    """The sentence for a unit of work that did not fit. `remedy`: what to change."""
    return UserError(f"A worker ran out of memory: {remedy} and run again; finished units are kept.")


def as_user_error(error: BaseException) -> UserError | None:
    """The sentence for a full disk or full memory that no stage has told by itself; None for any other error."""
    if is_disk_full(error):
        return UserError("No space left on the disk: free some in `storage` and in the temporary folder, then run again.")
    if is_out_of_memory(error):
        return UserError(
            "Memory ran out: lower training.micro_batch_rows, evaluation.batch_tokens, ray.num_workers or model.target_length, then run "
            "again; what is finished is kept."
        )
    return None
