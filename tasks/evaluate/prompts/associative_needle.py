"""A needle that shares no content word with its question: only world knowledge connects the two.

After the idea of NoLiMa (Modarressi et al. 2025, arXiv 2502.05167), with the pairs of `associations`: the text says who rents a room
beside the Rialto Bridge, and the question asks who lives in Venice. Other people do the same elsewhere; one of them comes last.
"""

from __future__ import annotations

import numpy as np

from tasks.evaluate.prompts.associations import ASSOCIATIONS, NAMES
from tasks.evaluate.prompts.content_words import content_words, words
from tasks.evaluate.prompts.evidence import Evidence, Place, evidence_prompts, shortest_evidence
from tasks.evaluate.prompts.material import Material
from tasks.evaluate.prompts.prompt import TaskPrompt

NUM_PEOPLE = 4  # one is asked for
OPENING = "# Remember the people in this text.\n"


def association_prompts(length: int, material: Material) -> list[TaskPrompt]:
    places = [Place(depth, 0.0) for depth in material.depths]
    return [
        prompt
        for sample in range(material.num_samples)
        for prompt in evidence_prompts(
            "associative_needle", _evidence, length, sample, places, material, neighbours=material.num_depths
        )
    ]


def shortest_associations(material: Material) -> int:
    return shortest_evidence(_evidence, material)


def _evidence(rng: np.random.Generator, hay_text: str, sample: int, material: Material) -> Evidence:
    """Words of the haystack are avoided while there are enough pairs and names."""
    taken = words(hay_text)
    shuffled = [ASSOCIATIONS[i] for i in rng.permutation(len(ASSOCIATIONS)).tolist()]
    asked, *others = sorted(shuffled, key=lambda one: bool(content_words(one.place + " " + one.clue) & taken))
    alike = {one.place: one for one in others if one.kind == asked.kind and one.place != asked.place}
    chosen = [asked, *list(alike.values())[: NUM_PEOPLE - 1]]
    names = [NAMES[i] for i in rng.permutation(len(NAMES)).tolist()]
    names.sort(key=lambda name: name.casefold() in taken)
    needed, *distractors = [one.needle(name) for one, name in zip(chosen, names, strict=False)]
    return Evidence(
        opening=OPENING,
        needed=(needed,),
        gold=0,
        distractors=tuple(distractors[:-1]),
        last=(distractors[-1],),
        question=asked.question,
        answer=names[0],
    )
