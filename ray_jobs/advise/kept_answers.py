"""Answers of earlier runs: what other prices, another level or more questions do not change is not asked again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from data_schemas.params import PipelineParams
from data_schemas.storage import Storage
from ray_jobs.advise.asking_units import Unit
from tasks.advise.questions import Question
from tasks.kept_units import KeptUnits

_OF_ANSWERS = {"answer_tokens", "note_tokens", "controls"}


def kept_answers(params: PipelineParams, storage: Storage, inputs: dict[str, Any]) -> KeptUnits:
    """Of this model and these settings. `inputs`: the arguments of the artifact's digest."""
    making = inputs | {
        "params": inputs["params"]
        | {
            "advise": params.advise.model_dump(mode="json", include=_OF_ANSWERS),
            "weighs_itself": "route" in params.advise.ways,
        },
        "parents": {name: digest for name, digest in inputs["parents"].items() if name not in ("documents", "qa")},
    }
    return KeptUnits(storage.root, "answers", ("asked-{}.json",), making)


def contents_of(units: Sequence[Unit], questions: Sequence[Question]) -> dict[int, str]:
    """What decides a unit's answers beside that, by its number: the way, and the question with its document."""
    asked = [json.dumps(asdict(question)) for question in questions]
    return {
        number: hashlib.sha256(f"{unit.way.model_dump_json()}\n{asked[unit.question]}".encode()).hexdigest()
        for number, unit in enumerate(units)
    }
