"""Units for testing workers, in a module that is light to import on a worker."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from data_schemas.errors import UserError


@dataclass(frozen=True)
class Square:
    """Slower for early units, so that results come in another order; unit `dies` kills its process, `times` times."""

    folder: str
    dies: int = -1
    times: int = 0

    def __call__(self, unit: int) -> tuple[int, int]:
        if unit == 13:
            raise UserError("thirteen cannot be squared: take another number")
        deaths = Path(self.folder, "deaths")
        if unit == self.dies and len(list(deaths.glob("*"))) < self.times:
            deaths.mkdir(parents=True, exist_ok=True)
            (deaths / f"{time.monotonic_ns()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02 * (unit < 2))
        return unit * unit, os.getpid()
