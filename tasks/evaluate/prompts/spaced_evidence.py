"""Recall by the distance between two pieces of evidence, both needed for the answer.

LongPiBench (Tian et al. 2024, arXiv 2410.14641) found that this distance matters more than the depth. One needle says whose
locker is whose, the other which code opens it; other people's lockers and codes are spread over the text, and one to three of
their codes come last.
There are `evaluation.num_depths` evenly spaced distances, from 0 (together) to 1 (at both ends of the text). Every prompt is a sample
with its own text; over the samples of a distance, the depths fill what the distance leaves evenly.
"""

from __future__ import annotations

import numpy as np

from tasks.evaluate.prompts.evidence import Evidence, Place, evidence_prompts, shortest_evidence
from tasks.evaluate.prompts.hidden import spread_depths
from tasks.evaluate.prompts.material import Material, depth_grid, sample_seed
from tasks.evaluate.prompts.numbers import absent_numbers
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.words import key_names

NUM_LOCKERS = 4  # a model that reads the codes alone is right in one of four
NUM_DIGITS = 5
OPENING = "# Remember the lockers and their codes.\n"
OWNER = "\n# {name} owns locker {locker}.\n"
CODE = "\n# Locker {locker} opens with {code}.\n"
QUESTION = "\n# Which code opens the locker of {name}? It opens with"


def spaced_prompts(length: int, material: Material) -> list[TaskPrompt]:
    """`num_samples` prompts for each distance, distances in turn."""
    distances = depth_grid(material.num_depths)
    offsets = np.random.default_rng(sample_seed(material.seed, "spaced_evidence places", length, 0)).random(len(distances))
    prompts: list[TaskPrompt] = []
    for sample in range(material.num_samples * len(distances)):
        turn, which = divmod(sample, len(distances))
        (depth,) = spread_depths(1, turn, offsets[which : which + 1])
        place = Place(depth, distances[which])
        prompts += evidence_prompts(
            "spaced_evidence", _evidence, length, sample, [place], material, neighbours=2, is_swept=False
        )
    return prompts


def shortest_spaced(material: Material) -> int:
    return shortest_evidence(_evidence, material)


def _evidence(rng: np.random.Generator, hay_text: str, sample: int, material: Material) -> Evidence:
    names = key_names(NUM_LOCKERS, rng)
    numbers = absent_numbers(2 * NUM_LOCKERS, NUM_DIGITS, hay_text, rng)
    lockers, codes = numbers[:NUM_LOCKERS], numbers[NUM_LOCKERS:]
    owners = [OWNER.format(name=name, locker=locker) for name, locker in zip(names, lockers, strict=True)]
    opened = [CODE.format(locker=locker, code=code) for locker, code in zip(lockers, codes, strict=True)]
    num_last = int(rng.integers(1, NUM_LOCKERS))  # else the last code but one would mostly be right
    spread = [*owners[1:], *opened[1 : NUM_LOCKERS - num_last]]
    return Evidence(
        opening=OPENING,
        needed=(owners[0], opened[0]),
        gold=1,
        distractors=tuple(spread[i] for i in rng.permutation(len(spread)).tolist()),
        last=tuple(opened[NUM_LOCKERS - num_last :]),
        question=QUESTION.format(name=names[0]),
        answer=codes[0],
    )
