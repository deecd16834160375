"""What `evaluation.published` adds to the workload: prompts of the published tasks, and texts of the published perplexities."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data_schemas.errors import UserError
from data_schemas.evaluation_params import EvaluationParams
from data_schemas.parts import Parts
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.protocols import PROTOCOLS_OF, Protocol, ProtocolText, ProtocolWindow, protocol_windows
from tasks.evaluate.published.key_tokens import NUM_DOCUMENTS, SHORT_CONTEXT
from tasks.tokens.encoding import encoder_of
from tasks.tokens.special_tokens import special_tokens

_TEXTS = "published-texts.npz"
LONGPPL = "longppl"


@dataclass(frozen=True)
class PublishedTexts:
    """The texts that published perplexities run over, in the file's order, without special tokens.

    `bos` is the tokenizer's first token if it has one, `adds_bos` whether it adds it by itself, and `longest` the longest measured
    length. All lengths have the same texts: for yarn those of at least `longest` tokens, else of at least half.
    """

    texts: tuple[ProtocolText, ...]
    bos: int | None
    adds_bos: bool
    longest: int

    def windows(self, protocol: Protocol, length: int) -> list[list[ProtocolWindow]]:
        """The windows of each text that has some."""
        bos = self.bos if protocol != "longlora" or self.adds_bos else None
        chosen = (
            self.texts if protocol == "longlora" else self.at_least(self.longest if protocol == "yarn" else self.longest // 2)
        )
        found: dict[str, list[ProtocolWindow]] = {}
        for window in protocol_windows(protocol, chosen, length, bos):
            found.setdefault(window.doc_id, []).append(window)
        return list(found.values())

    def at_least(self, num_tokens: int) -> tuple[ProtocolText, ...]:
        """The texts of at least `num_tokens` tokens, or of one fewer, as BOS takes a place."""
        return tuple(text for text in self.texts if len(text.token_ids) >= num_tokens - 1)

    def of_longppl(self, length: int) -> tuple[ProtocolText, ...]:
        """The texts cut to `length` - 1 tokens; none where a length leaves no token beyond the short context."""
        if length - 1 <= SHORT_CONTEXT:
            return ()
        cut = [ProtocolText(text.doc_id, text.token_ids[: length - 1]) for text in self.at_least(self.longest // 2)]
        return tuple(text for text in cut if len(text.token_ids) > SHORT_CONTEXT)[:NUM_DOCUMENTS]


NO_TEXTS = PublishedTexts((), None, False, 0)


def perplexities(evaluation: EvaluationParams) -> tuple[str, ...]:
    """The published perplexities that are asked for."""
    named = [PROTOCOLS_OF.get(name, (name,) if name == LONGPPL else ()) for name in dict.fromkeys(evaluation.published)]
    return tuple(name for names in named for name in names)


def published_prompts(
    evaluation: EvaluationParams, lengths: Sequence[int], tokenizer: Any
) -> tuple[dict[tuple[str, int], tuple[TaskPrompt, ...]], dict[str, str]]:
    """The prompts by task and length, and the published tasks that fit no length, with the reason.

    Raises:
        UserError: a file or package is missing, or a prompt of RULER does not fit.
    """
    from tasks.evaluate.published.files import refuse_missing

    refuse_missing(evaluation)
    asked = sorted(set(evaluation.task_lengths or lengths))
    prompts: dict[tuple[str, int], tuple[TaskPrompt, ...]] = {}
    left_out: dict[str, str] = {}
    if "ruler" in evaluation.published:
        from tasks.evaluate.published.ruler import ruler_prompts

        for length in asked:
            prompts |= {(task, length): tuple(made) for task, made in ruler_prompts(length, evaluation, tokenizer).items()}
    if "lost_in_the_middle" in evaluation.published:
        from tasks.evaluate.published.lost_in_the_middle import middle_prompts, middle_texts

        for task, texts in middle_texts(evaluation).items():
            made = middle_prompts(texts, asked[-1], tokenizer)
            most = max(len(prompt.tokens) + prompt.max_new_tokens for prompt in made)
            if most > asked[-1]:
                left_out[task] = f"its longest prompt needs {most} tokens and the longest measured length is {asked[-1]}"
                continue
            length = next(length for length in asked if length >= most)
            prompts[task, length] = tuple(middle_prompts(texts, length, tokenizer))
    if LONGPPL in evaluation.published and max(lengths) - 1 <= SHORT_CONTEXT:
        left_out[LONGPPL] = f"its short context is {SHORT_CONTEXT} tokens and the longest measured length is {max(lengths)}"
    return prompts, left_out


def published_texts(
    evaluation: EvaluationParams, lengths: Sequence[int], heldout: Sequence[tuple[str, np.ndarray]], tokenizer: Any
) -> PublishedTexts:
    """The user's texts, else the held-out ones, given as (id, tokens without special ones).

    Raises:
        UserError: the file cannot be read, or no text is long enough.
    """
    path, longest = evaluation.published_data.texts, max(lengths)
    found = _read_texts(path, tokenizer) if path else heldout
    texts = tuple(ProtocolText(name, ids) for name, ids in found)
    made = PublishedTexts(texts, tokenizer.bos_token_id, special_tokens(tokenizer).bos is not None, longest)
    needed = longest if "yarn" in evaluation.published else longest // 2
    if not made.at_least(needed):
        where = f"evaluation.published_data.texts {path}" if path else "the held-out documents"
        raise UserError(f"No text of {where} has {needed} tokens: give longer texts or lower evaluation.lengths.")
    return made


def _read_texts(path: str, tokenizer: Any) -> Iterator[tuple[str, np.ndarray]]:
    try:
        with Path(path).expanduser().open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    (encoded,) = encoder_of(tokenizer).encode([str(json.loads(line)["text"])])
                    yield f"line-{number:06d}", encoded.ids
    except (OSError, ValueError, KeyError, TypeError) as error:
        detail = " ".join(repr(error).split())[:150]
        raise UserError(
            f"evaluation.published_data.texts {path} cannot be read ({detail}): give a JSONL file with one {{text}} a line."
        ) from error


def write_texts(texts: PublishedTexts, parts: Parts) -> None:
    """Among the parts, unless an interrupted run has written them."""
    if not texts.texts or parts.has(_TEXTS):
        return
    with parts.writing(_TEXTS) as path, path.open("wb") as file:
        np.savez(
            file,
            doc_ids=np.array([text.doc_id for text in texts.texts], dtype=np.str_),
            ends=np.cumsum([len(text.token_ids) for text in texts.texts]),
            tokens=np.concatenate([text.token_ids for text in texts.texts]),
            bos=np.array(-1 if texts.bos is None else texts.bos),
            adds_bos=np.array(texts.adds_bos),
            longest=np.array(texts.longest),
        )


@lru_cache(maxsize=1)
def read_texts(parts: Parts) -> PublishedTexts:
    """What `write_texts` wrote."""
    with parts.reading(_TEXTS) as path, np.load(path, allow_pickle=False) as kept:
        pieces = np.split(kept["tokens"], kept["ends"][:-1])
        texts = tuple(ProtocolText(str(name), piece) for name, piece in zip(kept["doc_ids"], pieces, strict=True))
        bos = int(kept["bos"])
        return PublishedTexts(texts, None if bos < 0 else bos, bool(kept["adds_bos"]), int(kept["longest"]))
