"""What an earlier run made of units of work, kept in the storage: a unit with the same content is not worked on again.

units/KIND/read-KEY.parquet …   the parts that a unit's function wrote, as hard links, so that keeping them copies nothing
units/KIND/used/NAME            the keys of the units of one run; only the units of the latest three stay
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_schemas.addresses import is_remote
from data_schemas.parts import Parts

FOLDER = "units"
_NUM_RUNS = 3


class KeptUnits:
    """Kept units of one kind below the storage root.

    Args:
        parts: names of a unit's parts, with `{}` for the unit's number; the last one is its result, as `tasks.work.run_units` keeps it.
        making: everything beside a unit's content that decides what is made of it; the code's version belongs to it.
    """

    def __init__(self, root: Path, kind: str, parts: Sequence[str], making: Any) -> None:
        self._folder = root / FOLDER / kind
        self._names = tuple(parts)
        self._making = json.dumps(making, sort_keys=True)

    def adopt(self, contents: Mapping[int, str], parts: Parts) -> int:
        """Put the kept units among the parts, as if made now; returns how many there are. `contents`: number -> digest."""
        if is_remote(parts.place) or not contents:
            return 0
        num_adopted = 0
        with contextlib.suppress(OSError), self._alone():
            for number, content in contents.items():
                num_adopted += self._adopt(number, self._key(content), Path(parts.place))
        return num_adopted

    def keep(self, name: str, contents: Mapping[int, str], parts: Parts) -> None:
        """Keep the units of the run `name`, all of which are among the parts, and drop those of runs before the latest three.

        A run that is done never fails here: what cannot be kept is worked on again later.
        """
        if is_remote(parts.place):
            return
        with contextlib.suppress(OSError), self._alone():
            used = self._folder / "used"
            used.mkdir(exist_ok=True)
            keys = {self._key(content): number for number, content in contents.items()}
            listed = used / name
            listed.write_text("\n".join(keys))
            os.utime(listed)
            for key, number in keys.items():
                self._keep(number, key, Path(parts.place))
            self._prune(used)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One run at a time keeps, drops or adopts units."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _adopt(self, number: int, key: str, place: Path) -> bool:
        result = self._names[-1]
        if (place / result.format(f"{number:05d}")).exists() or not (self._folder / result.format(key)).exists():
            return False
        place.mkdir(parents=True, exist_ok=True)
        for name in self._names:  # the result last: it vouches for the parts
            kept = self._folder / name.format(key)
            if kept.exists():
                _link(kept, place / name.format(f"{number:05d}"))
        return True

    def _keep(self, number: int, key: str, place: Path) -> None:
        if (self._folder / self._names[-1].format(key)).exists():
            return
        with contextlib.suppress(OSError):  # such as a file system without links
            for name in self._names:
                part = place / name.format(f"{number:05d}")
                if part.exists():
                    _link(part, self._folder / name.format(key))

    def _prune(self, used: Path) -> None:
        lists = sorted(used.iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for old in lists[_NUM_RUNS:]:
            old.unlink(missing_ok=True)
        keys = {key for path in lists[:_NUM_RUNS] for key in path.read_text().split()}
        stale = [kept for kept in self._folder.glob("*-*.*") if kept.name.rsplit("-", 1)[1].split(".")[0] not in keys]
        result = self._names[-1].partition("{}")[0]
        for kept in sorted(stale, key=lambda path: not (path.suffix == ".json" and path.name.startswith(result))):
            kept.unlink(missing_ok=True)  # results first, as they vouch for the parts

    def _key(self, content: str) -> str:
        return hashlib.sha256(f"{self._making}\n{content}".encode()).hexdigest()


def _link(existing: Path, name: Path) -> None:
    with contextlib.suppress(FileExistsError):
        os.link(existing, name)
