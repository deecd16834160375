"""Answers of earlier runs: what other prices, another level, more questions or another training do not change is not asked again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from data_schemas.params import PipelineParams
from data_schemas.parts import Parts
from data_schemas.storage import Storage
from ray_jobs.advise.asking_units import Unit
from ray_jobs.evaluate.evaluation_key import stated_theta
from tasks.advise.questions import Question
from tasks.kept_units import KeptUnits

_OF_ANSWERS = {"answer_tokens", "note_tokens", "controls"}
_OF_QUESTIONS = {"max_seen_share"}  # these decide what is asked, not what is answered
_QUESTION_PARENTS = {"documents", "qa"}


class KeptAnswers:
    """Of one base and these settings. A unit is kept by what decides its own answers: those of the base by nothing that extends it.

    Args:
        inputs: the arguments of the artifact's digest.
    """

    def __init__(self, params: PipelineParams, storage: Storage, inputs: dict[str, Any]) -> None:
        of_extension = {"target_length", "rope_method", *stated_theta(params.model)}
        given, parents = inputs["params"], inputs["parents"]
        extension = {name: given[name] for name in sorted(of_extension)} | {"rope_factors": parents.get("rope_factors")}
        self._of_arm = {"base": "", "scaling_only": json.dumps(extension)}
        self._of_arm["fine_tuned"] = json.dumps(extension | {"checkpoint": parents.get("checkpoint")})
        making = inputs | {
            "params": {name: value for name, value in given.items() if name not in of_extension | _OF_QUESTIONS}
            | {
                "advise": params.advise.model_dump(mode="json", include=_OF_ANSWERS),
                "weighs_itself": "route" in params.advise.ways,
            },
            "parents": {
                name: digest
                for name, digest in parents.items()
                if name not in _QUESTION_PARENTS | {"checkpoint", "rope_factors"}
            },
        }
        self._units = KeptUnits(storage.root, "answers", ("asked-{}.json",), making)
        settings = hashlib.sha256(json.dumps([making, extension], sort_keys=True).encode()).hexdigest()
        self._name = f"{parents['documents'][:32]}-{settings[:16]}"

    def adopt(self, units: Sequence[Unit], questions: Sequence[Question], parts: Parts) -> int:
        """Put kept answers among the parts; returns how many there are."""
        return self._units.adopt(self._contents(units, questions), parts)

    def keep(self, units: Sequence[Unit], questions: Sequence[Question], parts: Parts) -> None:
        """Keep all answers for later runs. Those of the latest three corpora and settings stay."""
        self._units.keep(self._name, self._contents(units, questions), parts)

    def _contents(self, units: Sequence[Unit], questions: Sequence[Question]) -> dict[int, str]:
        """What decides a unit's answers, by its number: the way, its model, and the question with its document."""
        asked = [json.dumps(asdict(question)) for question in questions]

        def content(unit: Unit) -> str:
            of_unit = (unit.way.model_dump_json(), self._of_arm[unit.way.arm], asked[unit.question])
            return hashlib.sha256("\n".join(of_unit).encode()).hexdigest()

        return {number: content(unit) for number, unit in enumerate(units)}
