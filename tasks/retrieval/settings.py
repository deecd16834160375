"""Checks of `retrieval` before a document is read, and which names a tokenizer can write."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.retrieval_params import RetrievalFamily
from tasks.retrieval.chat import ChatFrame, chat_frame
from tasks.retrieval.draft import Draft, NotMade
from tasks.retrieval.families.forms import ALWAYS, SIGNS, sample_lines
from tasks.retrieval.families.names import DIGITS, LETTERS
from tasks.retrieval.families.negatives import Negatives
from tasks.retrieval.families.registry import MAKERS
from tasks.retrieval.families.request import Request
from tasks.retrieval.fitting import fit
from tasks.retrieval.rendering import Renderer
from tasks.retrieval.text_supply import SourceText, TextSupply
from tasks.tokens.encoding import Encoder, encoder_of
from tasks.tokens.special_tokens import special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_PROBES = {
    name: f"{probe}.[]<>()@_:=-" for name, probe in (("letters", LETTERS), ("capitals", LETTERS.upper()), ("digits", DIGITS))
}
_NEEDS_NAMES = ("key_value", "key_value_rounds", "paragraph_order", "shuffled_chunks")
_PROBED_CHARS = 8  # a token, at most
_PROBED_WORDS = 600
_LONGEST_PROBE = 768  # tokens: what fits these fits more


def frame_of(params: PipelineParams, tokenizer: PreTrainedTokenizerFast) -> ChatFrame | None:
    """The chat template's frame, if `retrieval.chat_template` asks for it and the tokenizer has one."""
    return chat_frame(tokenizer) if params.retrieval.chat_template else None


def writable_symbols(encoder: Encoder) -> tuple[str, ...]:
    """Of "letters", "capitals" and "digits", those whose names and signs come back from their tokens as they were.

    "capitals" only beside "letters": no name is of capitals where small letters cannot be written.
    """
    found = [name for name, probe in _PROBES.items() if _comes_back(probe, encoder)]
    return tuple(name for name in found if name != "capitals" or "letters" in found)


def writable_signs(encoder: Encoder) -> str:
    """Of the signs around keys and values, those that come back from their tokens as they were."""
    return "".join(sign for sign in SIGNS if _comes_back(f"{LETTERS[0]}{sign}{LETTERS[0]}{sign}", encoder) or sign in ALWAYS)


def name_cost(encoder: Encoder, chars_per_token: float) -> float:
    """Characters of text that take as many tokens as one character of a line of key and value; at least 1."""
    symbols = writable_symbols(encoder)
    if not symbols:
        return 1.0
    lines = sample_lines(symbols, writable_signs(encoder))
    num_tokens = len(next(encoder.encode([lines], is_start=False)).ids)
    return max(1.0, num_tokens * chars_per_token / len(lines))


def check_retrieval(params: PipelineParams, tokenizer: PreTrainedTokenizerFast) -> None:
    """UserError for a kind of document that a row is too short for, or whose names the tokenizer cannot write."""
    if not params.retrieval.share:
        return
    encoder = encoder_of(tokenizer)
    symbols = writable_symbols(encoder)
    renderer = Renderer(encoder, special_tokens(tokenizer), frame_of(params, tokenizer))
    for family in params.retrieval.trained_families:
        if family in _NEEDS_NAMES and not symbols:
            raise UserError(
                f"The tokenizer can write neither Latin letters nor digits, which retrieval.families {family} needs: leave {family} out."
            )
        if (reason := _too_short(family, params, renderer, symbols)) is not None:
            raise UserError(
                f"Rows of {params.row_tokens} tokens are too short for retrieval.families {family} ({reason}): "
                f"leave {family} out, or raise {params.row_limit}."
            )


def _too_short(family: RetrievalFamily, params: PipelineParams, renderer: Renderer, symbols: tuple[str, ...]) -> str | None:
    """Why no document of a family can be made of plain words; None if one can."""
    length = min(params.row_tokens, _LONGEST_PROBE)
    texts = [_probe_text(number, _PROBED_CHARS * length) for number in range(3)]
    documents = [SourceText(f"probe-{number}", text, "", "") for number, text in enumerate(texts)]
    sample = next(renderer.encoder.encode([texts[0][:20_000]]))
    chars_per_token = len(sample.text) / max(1, len(sample.ids))
    num_chars = int(length * chars_per_token)
    request = Request(
        TextSupply(documents, np.random.default_rng(0)),
        Negatives(documents, max(40, num_chars // 16)),
        params.retrieval.questions_of(length),
        num_chars,
        symbols,
        writable_signs(renderer.encoder),
        name_cost(renderer.encoder, chars_per_token),
    )
    reason = None
    for seed in range(3):
        try:
            fit(partial(_probe, family, request, seed), renderer, length, chars_per_token)
            return None
        except NotMade as not_made:
            reason = str(not_made)
    return reason


def _probe(family: RetrievalFamily, request: Request, seed: int, num_chars: int) -> Draft:
    return MAKERS[family](request, num_chars, np.random.default_rng(seed))


def _probe_text(seed: int, num_chars: int) -> str:
    """Sentences of made-up words."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("etaoinshrdlu"), int(rng.integers(2, 9)))) for _ in range(_PROBED_WORDS)]
    sentences, size = [], 0
    while size < num_chars:
        sentences.append(" ".join(words[i] for i in rng.integers(0, len(words), 9).tolist()).capitalize() + ".")
        size += len(sentences[-1]) + 1
    return " ".join(sentences)


def _comes_back(text: str, encoder: Encoder) -> bool:
    ids = next(encoder.encode([text], is_start=False)).ids
    return "".join(encoder.text(ids).split()) == text
