"""Which answers of an earlier run are still those of this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_schemas.parts import Parts
from data_schemas.storage import Storage
from ray_jobs.advise.asking_units import Unit
from ray_jobs.advise.kept_answers import KeptAnswers
from tasks.advise.questions import Question
from tests.ray_jobs.advise.advice_example import advice_params
from tests.tasks.advise.rows_example import full

UNITS = [Unit(full(arm), 0) for arm in ("base", "scaling_only", "fine_tuned")]  # type: ignore[arg-type]
QUESTIONS = [Question("a", "local", "d1", "Ann is here.", "Bob is here.", "Who?", ("Ann",), ((0, 12),))]


def kept(folder: Path, checkpoint: str = "c1", base: str = "b1", **changes: Any) -> KeptAnswers:
    params = advice_params(folder)
    given = {
        "target_length": 1024,
        "rope_method": "yarn",
        "rope_theta": None,
        "rope_length": None,
        "max_seen_share": 0.2,
    } | changes
    parents = {"documents": "d" * 64, "base": base, "checkpoint": checkpoint}
    return KeptAnswers(params, Storage(params.storage), {"params": given, "code_version": 1, "parents": parents})


def adopted(folder: Path, answers: KeptAnswers, name: str) -> list[int]:
    parts = Parts(str(folder / name))
    num = answers.adopt(UNITS, QUESTIONS, parts)
    found = [number for number in range(len(UNITS)) if parts.has(f"asked-{number:05d}.json")]
    assert len(found) == num
    return found


def test_only_what_another_training_or_extension_changes_is_asked_again(tmp_path: Path) -> None:
    parts = Parts(str(tmp_path / "parts"))
    for number in range(len(UNITS)):
        with parts.writing(f"asked-{number:05d}.json") as path:
            path.write_text("{}")
    kept(tmp_path).keep(UNITS, QUESTIONS, parts)
    assert adopted(tmp_path, kept(tmp_path, max_seen_share=0.1), "stricter") == [0, 1, 2]
    assert adopted(tmp_path, kept(tmp_path, checkpoint="c2"), "trained") == [0, 1]
    assert adopted(tmp_path, kept(tmp_path, rope_method="ntk"), "scaled") == [0]
    assert adopted(tmp_path, kept(tmp_path, base="b2"), "based") == []
    kept(tmp_path, base="b2").keep(UNITS, QUESTIONS, parts)
    assert adopted(tmp_path, kept(tmp_path), "again") == [0, 1, 2], "another base on the same corpus drops nothing"
