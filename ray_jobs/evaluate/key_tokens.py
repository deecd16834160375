"""The evaluator of LongPPL as published: finds the key tokens of each text once, before the models are measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data_schemas.errors import UserError
from data_schemas.parts import Parts
from ray_jobs.evaluate.arms import ArmModel, forget_model
from ray_jobs.evaluate.published_work import LONGPPL, PublishedTexts, read_texts
from ray_jobs.evaluate.scoring import Window, score_positions, score_windows
from tasks.evaluate.published.key_tokens import SHORT_CONTEXT, STEP, Span, is_key, key_spans, short_windows
from tasks.work import Workers, run_units

_SPANS = "key-spans.json"
TextSpans = Mapping[int, Sequence[Sequence[Span]]]  # by length, of each text


def find_key_spans(
    model: Any, tokenizer: Any, text: str, *, batch_tokens: int, short: int = SHORT_CONTEXT, step: int = STEP
) -> list[Span]:
    """Characters of the text's key tokens by this evaluator, ascending.

    Args:
        short: tokens of the short context.
        step: tokens that share one.
    """
    encoding = tokenizer(text, return_offsets_mapping=True, verbose=False)
    ids, offsets = np.asarray(encoding["input_ids"], np.int32), encoding["offset_mapping"]
    windows = short_windows(len(ids), short=short, step=step)
    if not windows:
        return []
    full_loss = -score_positions(model, ids)
    scored = [Window(ids[w.start : w.end], w.end - w.first) for w in windows]
    found = dict(score_windows(model, scored, batch_tokens=batch_tokens))
    keys: list[int] = []
    for number, window in enumerate(windows):
        chosen = is_key(full_loss[window.first - 1 : window.end - 1], -found[number].logprobs)
        keys += (window.first + np.flatnonzero(chosen)).tolist()
    return key_spans(offsets, keys)


@dataclass(frozen=True)
class FindKeyTokens:
    """On a worker: the spans of text number `place` at a length, given as (length, place)."""

    models: ArmModel
    evaluator: str
    parts: Parts
    batch_tokens: int

    def __call__(self, unit: tuple[int, int]) -> list[Span]:
        length, place = unit
        model, tokenizer = _evaluator(self.evaluator, self.models.params.ray.use_gpu)
        text = read_texts(self.parts).of_longppl(length)[place]
        return find_key_spans(model, tokenizer, self.models.tokenizer().decode(text.token_ids), batch_tokens=self.batch_tokens)


def write_key_spans(texts: PublishedTexts, lengths: Sequence[int], job: FindKeyTokens, workers: Workers, parts: Parts) -> None:
    """Find all spans and write them among the parts, where the measuring workers read them."""
    units = [(length, place) for length in lengths for place in range(len(texts.of_longppl(length)))]
    found: dict[str, list[list[Span]]] = {}
    for (length, _), spans in zip(units, run_units(workers, job, units, parts, "key_tokens"), strict=True):
        found.setdefault(str(length), []).append(spans)
    with parts.writing(_SPANS) as path:
        path.write_text(json.dumps(found))


@lru_cache(maxsize=1)
def read_key_spans(parts: Parts) -> TextSpans:
    """What `write_key_spans` wrote."""
    found = json.loads(parts.kept(_SPANS).read_text())
    return {int(length): [[(start, end) for start, end in text] for text in texts] for length, texts in found.items()}


def asks_longppl(perplexities: Sequence[str]) -> bool:
    """Whether an evaluator is needed."""
    return LONGPPL in perplexities


@lru_cache(maxsize=1)
def _evaluator(folder: str, use_gpu: bool) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    forget_model()
    try:
        path = str(Path(folder).expanduser())
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype="auto", local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        detail = " ".join(str(error).split())[:150]
        raise UserError(
            f"evaluation.published_data.longppl_evaluator {folder} is not a model that transformers loads ({detail}): "
            "give the folder of a causal language model with its tokenizer."
        ) from error
    return model.to("cuda" if use_gpu else "cpu").eval(), tokenizer


def forget_evaluator() -> None:
    """Free the evaluator's memory in this process."""
    _evaluator.cache_clear()
