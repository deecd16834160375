"""Progress as a person reads it, collected by tests."""

from data_schemas.progress import ProgressCallback, describe


def texts_into(told: list[str]) -> ProgressCallback:
    """A callback that adds each event's words to `told`."""
    return lambda event: told.append(describe(event))
