"""The error that a user reads, and how a full disk is recognised."""

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
