"""Facts of a small world scattered in held-out text, with one-word answers that need one, two or three of them.

After BABILong (Kuratov et al. 2024, arXiv 2406.10149); `small_world` makes the facts. The needed facts keep the order of time within
a quarter of the text, and that quarter is swept over the depths. Samples need one, two and three facts in turn. The asked person has
been elsewhere before, at the start of the text, and another person's move comes last.
"""

from __future__ import annotations

import numpy as np

from tasks.evaluate.prompts.content_words import words
from tasks.evaluate.prompts.evidence import Evidence, Place, evidence_prompts, shortest_evidence
from tasks.evaluate.prompts.material import Material
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.small_world import MOST_FACTS, make_story

DISTANCE = 0.25  # from the first needed fact to the last, as a share of the text
OPENING = "# Follow the people and their things.\n"


def fact_prompts(length: int, material: Material) -> list[TaskPrompt]:
    places = [Place(depth, DISTANCE) for depth in material.depths]
    return [
        prompt
        for sample in range(material.num_samples)
        for prompt in evidence_prompts(
            "facts_in_text", _evidence, length, sample, places, material, neighbours=material.num_depths
        )
    ]


def shortest_facts(material: Material) -> int:
    return shortest_evidence(_evidence, material, MOST_FACTS)


def _evidence(rng: np.random.Generator, hay_text: str, sample: int, material: Material) -> Evidence:
    story = make_story(1 + sample % MOST_FACTS, words(hay_text), rng)
    return Evidence(
        opening=OPENING,
        needed=tuple(fact.text for fact in story.needed),
        gold=story.gold,
        distractors=tuple(fact.text for fact in story.others),
        first=story.earlier.text,
        last=(story.later.text,),
        question=story.question,
        answer=story.answer,
    )
