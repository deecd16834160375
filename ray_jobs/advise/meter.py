"""How far asking has come, as progress events."""

from __future__ import annotations

import time
from collections.abc import Sequence

from data_schemas.progress import ProgressCallback, SamplesMeasured

_EVERY_S = 5.0


class Meter:
    """Counts finished units, of which an interrupted run has `kept` some; tells at most every 5 seconds."""

    def __init__(self, num_units: int, kept: Sequence[bool], progress: ProgressCallback) -> None:
        self._num_units, self._progress = num_units, progress
        self._kept = list(kept)
        self._done = self._asked = 0
        self._started = self._told = time.monotonic()

    def finished(self) -> None:
        """One more unit is done, in the order of the units."""
        self._asked += not self._kept[self._done]
        self._done += 1
        now = time.monotonic()
        if now - self._told < _EVERY_S and self._done < self._num_units:
            return
        self._told = now
        seconds = now - self._started
        left = self._num_units - self._done - sum(self._kept[self._done :])
        self._progress(
            SamplesMeasured(
                num_done=self._done,
                num_samples=self._num_units,
                share=self._done / self._num_units,
                seconds=seconds,
                seconds_left=seconds / self._asked * left if self._asked else None,
                stage="advise",
            )
        )
