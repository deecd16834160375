"""Errors of the hub's client: each in one sentence, and whether to try again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from data_schemas.errors import UserError

MOVED = (409, 412)  # another publisher committed first
_GONE_WRONG = (408, 429, 500, 502, 503, 504)


def status_of(error: BaseException) -> int | None:
    """The HTTP status of the hub's answer; None if there was no answer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def may_be_tried_again(error: BaseException) -> bool:
    """Whether another publisher committed first, the server failed, or the connection was lost."""
    if isinstance(error, UserError):
        return error.__cause__ is not None and may_be_tried_again(error.__cause__)
    status = status_of(error)
    if status is not None:
        return status in (*MOVED, *_GONE_WRONG)
    cause = error.__cause__
    is_cut = type(error).__module__.startswith("httpx") and not isinstance(error, ValueError)
    return is_cut or (isinstance(error, RuntimeError) and cause is not None and may_be_tried_again(cause))


def reason_of(error: BaseException) -> str:
    """The error in one phrase, with what to do."""
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # the client's wrapping of a failed upload
        return reason_of(error.__cause__)
    status = status_of(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "the hub client is offline: unset HF_HUB_OFFLINE and publish again"
    if status in (401, 403) or isinstance(error, RepositoryNotFoundError):
        return (
            "the hub refuses it: set HF_TOKEN, or the secret in `publish.token_secret`, to a token that may write there, "
            "and check the repository's name"
        )
    if status in MOVED:
        return "others keep committing there: publish again when they have finished"
    if status is not None and status >= 500:
        return f"the hub answers with an error ({status}): no tagged release has changed; publish again later"
    text = (" ".join(str(error).split()) or type(error).__name__)[:200].rstrip(".")
    if status is not None or isinstance(error, ValueError):
        return f"the hub refuses it ({text}): correct that and publish again"
    return f"the hub does not answer as expected ({text}): check HF_ENDPOINT and the connection, then publish again"


@contextlib.contextmanager
def quiet_client() -> Iterator[None]:
    """Hide the client's progress bars and its advice against Parquet files, of which a release has a few on purpose."""
    import warnings

    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    were_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
            yield
    finally:
        if not were_disabled:
            enable_progress_bars()
