"""Greedy generation: the tokens of `model.generate(do_sample=False)`, in fewer forward passes.

What prompts have in common from the start is computed once (see `tree_passes`). After each prompt, tokens are guessed by looking
up what followed the last few tokens earlier in the prompt or the output (prompt lookup decoding, a draft as in Leviathan et al.
2023, arXiv 2211.17192). One forward pass shows, for all prompts of a group, how many of the guesses the model would have chosen
itself. Only those are kept, so guesses change the time but not the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ray_jobs.evaluate.logprobs import TargetScores
from ray_jobs.evaluate.prefixes import common_prefix
from ray_jobs.evaluate.scoring import Window, greedy_next, score_windows
from ray_jobs.evaluate.tree_passes import Passes, Pieces, Rows, TreeScores, can_share
from tasks.model.rotary_modules import forget_lengths

# Guesses in one pass: the least and first, and the most. Up to 8 hardly make a pass longer.
LEAST_DRAFT, MAX_DRAFT = 8, 32
# Tokens that must be equal for what followed them to be guessed; the longest match counts.
_MATCH_LENGTHS = (3, 2)


def generate(
    model: Any,
    prompts: Sequence[np.ndarray],
    max_new_tokens: Sequence[int],
    *,
    eos_ids: Sequence[int],
    batch_tokens: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Continue every prompt greedily; (its index, its new tokens) in the order in which they are done.

    Args:
        model: a causal language model of transformers, in eval mode.
        prompts: int32 token ids, of any lengths of at least 1.
        max_new_tokens: of each prompt, at least 1; generation ends there, or in front of the first of `eos_ids`.
        batch_tokens: tokens in one forward pass, at least one prompt; those in it are continued together.

    New tokens are int32, without the end-of-sequence token. Each token is the most likely next one; where two are equal
    to the last digits of the model's dtype, either may come out.
    """
    _check(prompts, max_new_tokens)
    if can_share(model):
        no_answers = [np.empty(0, np.int32)] * len(prompts)
        for index, new, _ in _answer_shared(model, prompts, no_answers, max_new_tokens, frozenset(eos_ids), batch_tokens):
            yield index, new
    else:
        yield from _generate_alone(model, prompts, max_new_tokens, eos_ids, batch_tokens)


def generate_scored(
    model: Any,
    prompts: Sequence[np.ndarray],
    answers: Sequence[np.ndarray],
    max_new_tokens: Sequence[int],
    *,
    eos_ids: Sequence[int],
    batch_tokens: int,
) -> Iterator[tuple[int, np.ndarray, TargetScores]]:
    """`generate`, and the log-probabilities of each prompt's canonical answer, int32 [K] with K >= 1, from the same pass.

    The answer is also the first guess, so a model that gives it is done after that pass.
    """
    _check(prompts, max_new_tokens)
    if can_share(model):
        yield from _answer_shared(model, prompts, answers, max_new_tokens, frozenset(eos_ids), batch_tokens)
        return
    windows = [Window(np.concatenate([p, answer]), len(answer)) for p, answer in zip(prompts, answers, strict=True)]
    scores = dict(score_windows(model, windows, batch_tokens=batch_tokens))
    for index, new in _generate_alone(model, prompts, max_new_tokens, eos_ids, batch_tokens):
        yield index, new, scores[index]


def _check(prompts: Sequence[np.ndarray], limits: Sequence[int]) -> None:
    if len(prompts) != len(limits) or any(not len(p) for p in prompts) or any(n < 1 for n in limits):
        raise ValueError("every prompt needs at least one token, and a limit of at least one new token")


def _answer_shared(
    model: Any,
    prompts: Sequence[np.ndarray],
    answers: Sequence[np.ndarray],
    limits: Sequence[int],
    eos_ids: frozenset[int],
    batch_tokens: int,
) -> Iterator[tuple[int, np.ndarray, TargetScores]]:
    texts = [np.concatenate([prompt, answer]) for prompt, answer in zip(prompts, answers, strict=True)]
    for group in _groups(texts, limits, batch_tokens):
        # the last row predicts what follows the answer
        targets = [np.append(answers[index], 0) for index in group]
        tree = TreeScores(model, [texts[index] for index in group], targets, batch_tokens, keep_all=True)
        scores = dict(tree)
        begun = []
        for place, index in enumerate(group):
            given = tree.tree.pieces(tree.tree.leaves[place], len(texts[index]))
            begun.append(_Continuation(index, prompts[index], limits[index], given, answers[index]))
        _continue_all(
            tree.passes, begun, [scores[place].greedy_ids for place in range(len(group))], eos_ids, len(tree.tree.branches)
        )
        for place, continuation in enumerate(begun):
            score = scores[place]
            yield continuation.index, continuation.new, TargetScores(score.logprobs[:-1], score.greedy_ids[:-1])


def _groups(texts: Sequence[np.ndarray], limits: Sequence[int], most_tokens: int) -> Iterator[list[int]]:
    """Texts that begin alike together, with at most so many different tokens and new ones, or a single text."""
    order = sorted(range(len(texts)), key=lambda index: np.asarray(texts[index], ">u4").tobytes())
    group: list[int] = []
    tokens = 0
    for index in order:
        added = len(texts[index]) + limits[index] - (common_prefix(texts[group[-1]], texts[index]) if group else 0)
        if group and tokens + added > most_tokens:
            yield group
            group, added = [], len(texts[index]) + limits[index]
            tokens = 0
        group.append(index)
        tokens += added
    if group:
        yield group


@dataclass
class _Continuation:
    """A prompt that is being continued. `given`: what makes up prompt and answer in the tree."""

    index: int
    prompt: np.ndarray
    limit: int
    given: Pieces
    draft: np.ndarray
    num_guesses: int = LEAST_DRAFT
    is_done: bool = False

    def __post_init__(self) -> None:
        self._text = np.empty(len(self.prompt) + self.limit, np.int32)
        self._text[: len(self.prompt)] = self.prompt
        self._end = len(self.prompt)

    @property
    def new(self) -> np.ndarray:
        return self._text[len(self.prompt) : self._end]

    @property
    def text(self) -> np.ndarray:
        return self._text[: self._end]

    def take(self, chosen: np.ndarray, eos_ids: frozenset[int]) -> int:
        """Take the model's tokens, [draft + 1], up to the first that differs from the draft; returns how many of the draft were right."""
        num_right = 0
        for token, guess in zip(chosen, [*self.draft, -1], strict=True):
            if int(token) in eos_ids:
                self.is_done = True
                return num_right
            self._text[self._end] = token
            self._end += 1
            self.is_done = self._end == len(self._text)
            if token != guess or self.is_done:
                break
            num_right += 1
        if len(self.draft):  # many guesses that are wrong cost time too
            all_right = num_right == len(self.draft)
            self.num_guesses = min(MAX_DRAFT, 2 * self.num_guesses) if all_right else max(LEAST_DRAFT, self.num_guesses // 2)
        self.draft = look_up(self.text, min(self.num_guesses, len(self._text) - self._end - 1))
        return num_right


def _continue_all(
    passes: Passes, begun: Sequence[_Continuation], chosen: Sequence[np.ndarray], eos_ids: frozenset[int], first_number: int
) -> None:
    """Continue every prompt to its end, given the most likely tokens after it and after each token of its draft.

    Numbers from `first_number` on are free in `passes`.
    """
    cached: list[Pieces] = []
    for continuation, tokens in zip(begun, chosen, strict=True):
        num_right = continuation.take(tokens, eos_ids)
        cached.append(_first(continuation.given, len(continuation.prompt) + num_right))
    lengths = [0] * len(begun)  # of what is kept behind the pieces
    while places := [place for place, continuation in enumerate(begun) if not continuation.is_done]:
        branches = []
        for place in places:
            continuation, tail = begun[place], first_number + 2 * place
            tokens = np.concatenate([continuation.text[-1:], continuation.draft]).astype(np.int32)
            sees = (*cached[place], (tail, lengths[place])) if lengths[place] else cached[place]
            start = len(continuation.text) - 1
            branches.append(Rows(tail + 1, tokens, start, sees, np.arange(len(tokens)), keep=len(tokens)))
        for place, logits_KV in zip(places, passes.logits(branches), strict=True):
            num_right = begun[place].take(logits_KV.argmax(dim=-1).cpu().numpy(), eos_ids)
            tail = first_number + 2 * place
            passes.append(tail, tail + 1, 1 + num_right)
            lengths[place] += 1 + num_right
            if begun[place].is_done:
                passes.forget(tail)


def _first(pieces: Pieces, num_tokens: int) -> Pieces:
    """The pieces of the first `num_tokens`."""
    found: list[tuple[int, int]] = []
    for branch, count in pieces:
        if num_tokens > 0:
            found.append((branch, min(count, num_tokens)))
        num_tokens -= count
    return tuple(found)


def look_up(text: np.ndarray, max_tokens: int) -> np.ndarray:
    """What followed the last tokens of `text` where they stood before, most recently: `max_tokens` guesses, or none.

    Where that reaches the end of the text it is repeated, as text that runs in a loop would continue.
    """
    for length in _MATCH_LENGTHS:
        if max_tokens < 1 or len(text) <= length:
            continue
        last = text[-length:]
        num_places = len(text) - length  # the last tokens themselves are no match
        matches = np.ones(num_places, bool)
        for offset, token in enumerate(last):
            matches &= text[offset : offset + num_places] == token
        places = np.flatnonzero(matches)
        if len(places):
            return np.resize(text[int(places[-1]) + length :], max_tokens)
    return np.empty(0, text.dtype)


def _generate_alone(
    model: Any, prompts: Sequence[np.ndarray], limits: Sequence[int], eos_ids: Sequence[int], batch_tokens: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Prompts of one length together, lengths ascending, by transformers' own loop, which handles each model's own cache."""
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    for length in sorted(by_length):
        same = sorted(by_length[length], key=lambda index: limits[index])  # prompts with similar limits end together
        rows = max(1, batch_tokens // (length + max(limits[i] for i in same)))
        for start in range(0, len(same), rows):
            forget_lengths(model)
            batch = same[start : start + rows]
            ids_BL = torch.from_numpy(np.stack([prompts[i] for i in batch]).astype(np.int64)).to(model.device)
            limit = max(limits[i] for i in batch)
            new_BN = _own_generate(model, ids_BL, limit, eos_ids) if hasattr(model, "generate") else _loop(model, ids_BL, limit)
            for index, new in zip(batch, new_BN, strict=True):
                yield index, _until_end(new[: limits[index]], eos_ids)


def _own_generate(model: Any, ids_BL: torch.Tensor, limit: int, eos_ids: Sequence[int]) -> np.ndarray:
    """By transformers' loop, without the model's own generation settings: penalties would change the most likely token.

    A GenerationConfig is completed from the model's own, so that one is replaced during the call.
    """
    from transformers import GenerationConfig

    eos = list(eos_ids) or None
    config = GenerationConfig(do_sample=False, max_new_tokens=limit, eos_token_id=eos, pad_token_id=eos[0] if eos else 0)
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        with torch.inference_mode():
            out = model.generate(ids_BL, attention_mask=torch.ones_like(ids_BL), generation_config=config)
    finally:
        model.generation_config = own
    return np.asarray(out[:, ids_BL.shape[1] :].cpu().numpy(), np.int32)


def _loop(model: Any, ids_BL: torch.Tensor, limit: int) -> np.ndarray:
    """For models that have only a forward pass."""
    for _ in range(limit):
        ids_BL = torch.cat([ids_BL, greedy_next(model, ids_BL)[:, None]], dim=1)
    return np.asarray(ids_BL[:, -limit:].cpu().numpy(), np.int32)


def _until_end(new: np.ndarray, eos_ids: Sequence[int]) -> np.ndarray:
    ends = np.flatnonzero(np.isin(new, list(eos_ids)))
    return new[: ends[0]] if len(ends) else new
