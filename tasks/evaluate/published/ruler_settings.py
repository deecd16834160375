"""RULER's 13 configurations: prompt texts, parameters and limits (Hsieh et al. 2024, arXiv 2404.06654).

Values from `scripts/synthetic.yaml` and `scripts/data/synthetic/constants.py` of NVIDIA/RULER (Apache-2.0), with the template
`base`: no words around the task, and the prompt ends with the opening of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SEED = 42
NUM_SAMPLES = 500

Haystack = Literal["noise", "essay", "needle"]
Kind = Literal["words", "numbers", "uuids"]

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NEEDLE = "One of the special magic {type_needle_v} for {key} is: {value}."
NEEDLE_TOKENS, TRACKING_TOKENS, COMMON_TOKENS, FREQUENT_TOKENS, QA_TOKENS = 128, 30, 120, 50, 32

NEEDLE_PROMPT = (
    "Some special magic {type_needle_v} are hidden within the following text. Make sure to memorize it. I will quiz you about the "
    "{type_needle_v} afterwards.\n{context}\nWhat are all the special magic {type_needle_v} for {query} mentioned in the provided "
    "text? The special magic {type_needle_v} for {query} mentioned in the provided text are"
)
TRACKING_PROMPT = (
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{context}\nQuestion: Find all variables "
    "that are assigned the value {query} in the text above. Answer: According to the chain(s) of variable assignment in the text "
    "above, {num_v} variables are assigned the value {query}, they are: "
)
COMMON_PROMPT = (
    "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that appear most "
    "often.\n{context}\nQuestion: What are the 10 most common words in the above list? Answer: The top 10 words that appear most "
    "often in the list are:"
)
FREQUENT_PROMPT = (
    "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared coded "
    "words. {context}\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently "
    "appeared words in the above coded text? Answer: According to the coded text above, the three most frequently appeared words are:"
)
QA_PROMPT = (
    "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\nThe following "
    "are given documents.\n\n{context}\n\nAnswer the question based on the given documents. Only give me the answer and do not "
    "output any other words.\n\nQuestion: {query} Answer:"
)
QA_DOCUMENT = "Document {number}:\n{document}"


@dataclass(frozen=True, kw_only=True)
class Needles:
    """A needle configuration: what hides the needles, what keys and values are, and how many there are."""

    haystack: Haystack
    keys: Kind = "words"
    values: Kind = "numbers"
    num_keys: int = 1
    num_values: int = 1
    num_queries: int = 1


NEEDLES = {
    "niah_single_1": Needles(haystack="noise"),
    "niah_single_2": Needles(haystack="essay"),
    "niah_single_3": Needles(haystack="essay", values="uuids"),
    "niah_multikey_1": Needles(haystack="essay", num_keys=4),
    "niah_multikey_2": Needles(haystack="needle"),
    "niah_multikey_3": Needles(haystack="needle", keys="uuids", values="uuids"),
    "niah_multivalue": Needles(haystack="essay", num_values=4),
    "niah_multiquery": Needles(haystack="essay", num_queries=4),
}
NUM_HOPS = 4
SHORT = 4096  # below this many tokens the code takes smaller steps and lists
ZETA_EXPONENT = 2.0
QA_DATASETS = {"qa_1": "squad", "qa_2": "hotpotqa"}
