"""What was read from units of earlier corpora, kept in the storage: a unit that is in this corpus too is not read again.

units/read-KEY.parquet …      the parts that `survey.py` made of a unit, as hard links, so that keeping them copies nothing
units/used/CORPUS             the keys of the units of one corpus; only the units of the latest corpora stay
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_schemas.addresses import is_remote
from data_schemas.parts import Parts
from tasks.ingest.corpus_units import Corpus, ReadUnit
from tasks.ingest.survey import READ_PARTS

FOLDER = "units"
_NUM_CORPORA = 3
_RESULT = "read-{}.json"  # what the unit's function returned; as `tasks.work.run_units` keeps it, after the other parts


class KeptUnits:
    """Kept units below the storage root.

    `recorded`: the parameters of the corpus as its manifest has them; with the code's version they belong to every key.
    """

    def __init__(self, root: Path, recorded: Mapping[str, Any], code_version: int) -> None:
        self._folder = root / FOLDER
        self._key_of_all = json.dumps([code_version, _reading(recorded)], sort_keys=True)

    def adopt(self, corpus: Corpus, parts: Parts) -> int:
        """Put the kept units of this corpus among the parts, as if read now; returns how many there are."""
        if is_remote(parts.place):
            return 0
        place = Path(parts.place)
        return sum(self._adopt(unit, place) for unit in corpus.units if unit.content)

    def keep(self, corpus: Corpus, parts: Parts) -> None:
        """Keep the units of a corpus that was read without a change, and drop those of corpora before the latest three."""
        if is_remote(parts.place):
            return
        used = self._folder / "used"
        used.mkdir(parents=True, exist_ok=True)
        keys = {self._key(unit): unit for unit in corpus.units if unit.content}
        listed = used / corpus.fingerprint
        listed.write_text("\n".join(keys))  # before the units, which another run would drop without it
        os.utime(listed)
        for key, unit in keys.items():
            self._keep(unit, key, Path(parts.place))
        self._prune(used)

    def _adopt(self, unit: ReadUnit, place: Path) -> bool:
        key, number = self._key(unit), f"{unit.index:05d}"
        result = self._folder / _RESULT.format(key)
        if (place / _RESULT.format(number)).exists() or not result.exists():
            return False
        place.mkdir(parents=True, exist_ok=True)
        try:
            for name in (*READ_PARTS, _RESULT):
                kept = self._folder / name.format(key)
                if kept.exists():
                    _link(kept, place / name.format(number))
        except OSError:
            return False  # another run has just dropped it
        return True

    def _keep(self, unit: ReadUnit, key: str, place: Path) -> None:
        if (self._folder / _RESULT.format(key)).exists():
            return
        number = f"{unit.index:05d}"
        with contextlib.suppress(OSError):  # such as a file system without links
            for name in (*READ_PARTS, _RESULT):
                part = place / name.format(number)
                if part.exists():
                    _link(part, self._folder / name.format(key))

    def _prune(self, used: Path) -> None:
        lists = sorted(used.iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for old in lists[_NUM_CORPORA:]:
            old.unlink(missing_ok=True)
        keys = {key for path in lists[:_NUM_CORPORA] for key in path.read_text().split()}
        for kept in self._folder.glob("*-*.*"):
            if kept.name.split("-", 1)[1].split(".")[0] not in keys:
                kept.unlink(missing_ok=True)

    def _key(self, unit: ReadUnit) -> str:
        return hashlib.sha256(f"{self._key_of_all}\n{unit.content}".encode()).hexdigest()


def _link(existing: Path, name: Path) -> None:
    with contextlib.suppress(FileExistsError):
        os.link(existing, name)


def _reading(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that decide what a unit's parts hold: all but those of later steps. The sources are in the units' digests."""
    later = {
        "near_duplicates": ("similarity",),
        "excerpts": ("remove", "share", "max_documents"),
        "decontamination": tuple(name for name in recorded["decontamination"] if name not in ("enabled", "ngram_words")),
    }
    return {
        name: {key: one for key, one in value.items() if key not in later[name]} if name in later else value
        for name, value in recorded.items()
        if name != "sources"
    }
