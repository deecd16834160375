"""RULER's prompts as published (Hsieh et al. 2024, arXiv 2404.06654; NVIDIA/RULER, Apache-2.0)."""

from __future__ import annotations

from typing import Any

from data_schemas.evaluation_params import EvaluationParams
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.published.encoding import published_prompt, token_counter
from tasks.evaluate.published.files import (
    read_english_words,
    read_essays,
    read_questions,
    sentence_splitter,
)
from tasks.evaluate.published.names import RULER_CONFIGURATIONS, RULER_PREFIX
from tasks.evaluate.published.ruler_needles import needle_samples
from tasks.evaluate.published.ruler_questions import question_samples
from tasks.evaluate.published.ruler_settings import (
    COMMON_TOKENS,
    FREQUENT_TOKENS,
    NEEDLE_TOKENS,
    NEEDLES,
    NUM_SAMPLES,
    QA_DATASETS,
    QA_TOKENS,
    SEED,
    TRACKING_TOKENS,
)
from tasks.evaluate.published.ruler_sizing import Drawn
from tasks.evaluate.published.ruler_tracking import tracking_samples
from tasks.evaluate.published.ruler_word_lists import counted_words, key_words
from tasks.evaluate.published.ruler_words import common_word_samples, frequent_word_samples


def new_tokens(configuration: str) -> int:
    """How many tokens are generated."""
    if configuration in NEEDLES:
        return NEEDLE_TOKENS
    return {"vt": TRACKING_TOKENS, "cwe": COMMON_TOKENS, "fwe": FREQUENT_TOKENS}.get(configuration, QA_TOKENS)


def drawn_samples(configuration: str, length: int, evaluation: EvaluationParams, tokenizer: Any) -> list[Drawn]:
    """The texts of one configuration's prompts, at `length` tokens with their outputs; BOS is not counted.

    Raises:
        UserError: a prompt does not fit, or a file does not have the authors' form.
    """
    count, number = token_counter(tokenizer), evaluation.published_samples or NUM_SAMPLES
    if configuration in NEEDLES:
        settings = NEEDLES[configuration]
        essay = read_essays(evaluation) if settings.haystack == "essay" else ""
        return needle_samples(configuration, settings, length, number, count, key_words(), essay, sentence_splitter())
    if configuration == "vt":
        return tracking_samples(length, number, count)
    if configuration == "cwe":
        return common_word_samples(length, number, count, counted_words(), read_english_words(evaluation))
    if configuration == "fwe":
        return frequent_word_samples(length, number, count)
    found = read_questions(evaluation, QA_DATASETS[configuration])
    return question_samples(configuration, found, length, number, count)


def ruler_prompts(length: int, evaluation: EvaluationParams, tokenizer: Any) -> dict[str, list[TaskPrompt]]:
    """The prompts of all 13 configurations at one length, by the name of the task."""
    return {
        f"{RULER_PREFIX}{name}": [
            published_prompt(
                task=f"{RULER_PREFIX}{name}",
                length=length,
                sample=sample,
                seed=SEED,
                text=drawn.text,
                golds=drawn.golds,
                answer=f" {drawn.golds[0] if name in QA_DATASETS else ', '.join(drawn.golds)}",
                max_new_tokens=new_tokens(name),
                tokenizer=tokenizer,
            )
            for sample, drawn in enumerate(drawn_samples(name, length, evaluation, tokenizer))
        ]
        for name in RULER_CONFIGURATIONS
    }
