"""What prompts are made from, and where in a text the needles go."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_schemas.errors import UserError
from tasks.evaluate.heldout import HeldOutDocument
from tasks.evaluate.prompts.pieces import ChatTurn
from tasks.evaluate.prompts.qa import QaExample

# A line or sentence boundary is used when one is this near (as a share of the haystack) or nearer, else the exact position.
MAX_BOUNDARY_SHIFT = 0.05
NUM_PROBES = 32
PROMISED_LENGTH = 512  # from here on every task of RULER is to fit


@dataclass(frozen=True)
class Haystack:
    """Held-out documents end to end: `token_ids` int32 [tokens], `is_boundary` bool [tokens], `bos` int32 [0 or 1].

    In prompts that go through a chat template, `bos` also holds what the template writes before the user's message.
    `is_boundary[i]`: a line or a sentence ends with token i.
    """

    token_ids: np.ndarray
    is_boundary: np.ndarray
    bos: np.ndarray

    @classmethod
    def of(cls, documents: Sequence[HeldOutDocument]) -> Haystack:
        bodies = [d for d in documents if len(d.token_ids)]
        if not bodies:
            raise UserError("There is no held-out text to hide a needle in: raise corpus.heldout_fraction or add documents.")
        return cls(
            np.concatenate([d.token_ids[d.num_leading :] for d in bodies]),
            np.concatenate([d.is_boundary[d.num_leading :] for d in bodies]),
            bodies[0].token_ids[: bodies[0].num_leading],
        )

    def excerpt(self, num_tokens: int, rng: np.random.Generator) -> Haystack:
        """`num_tokens` tokens from a random place, moved on to the next line or sentence if one begins early enough.

        Raises:
            UserError: there are fewer tokens.
        """
        last = len(self.token_ids) - num_tokens
        if last < 0:
            raise UserError(
                f"The chosen held-out documents have {len(self.token_ids)} tokens together, but a prompt needs "
                f"{num_tokens}: add longer documents or lower evaluation.task_lengths."
            )
        start = int(rng.integers(0, last + 1))
        if start:
            following = np.flatnonzero(self.is_boundary[start - 1 : last])
            start += int(following[0]) if len(following) else 0
        stop = start + num_tokens
        return Haystack(self.token_ids[start:stop], self.is_boundary[start:stop], self.bos)

    def cut(self, num_tokens: int, depth: float, max_shift: int) -> int:
        """How many of the first `num_tokens` tokens go in front of a needle at `depth`; see `max_boundary_shift`."""
        exact = round(depth * num_tokens)
        candidates = np.concatenate([[0], np.flatnonzero(self.is_boundary[:num_tokens]) + 1, [num_tokens]])
        nearest = int(candidates[np.argmin(np.abs(candidates - exact))])
        return nearest if abs(nearest - exact) <= max_shift else exact


@dataclass(frozen=True)
class Material:
    """What prompts are a function of, with task and length.

    `tokenizer` is a fast tokenizer of transformers. `form_length` is the shortest length that the run asks for: where a task has
    a full and a compact form (see the package), `form_limit` decides between them, so that the prompts of all lengths have one.
    `texts` are the held-out documents, for questions made from them. `chat` is the chat template around a prompt; `is_plain`: no
    prompt goes through one, also not those of own_corpus.
    """

    tokenizer: Any
    haystack: Haystack
    num_depths: int
    num_samples: int
    seed: int
    qa: tuple[QaExample, ...] = ()
    form_length: int = PROMISED_LENGTH
    texts: tuple[str, ...] = ()
    chat: ChatTurn | None = None
    is_plain: bool = False

    @property
    def depths(self) -> tuple[float, ...]:
        return depth_grid(self.num_depths)

    def form_limit(self, compact: int) -> int:
        """The length that a full form must fit, where the compact form needs `compact` tokens.

        Where even the compact form does not fit `form_length`, that length is dropped and `PROMISED_LENGTH` decides.
        """
        return self.form_length if compact <= self.form_length else max(self.form_length, PROMISED_LENGTH)


def max_boundary_shift(num_tokens: int, num_depths: int) -> int:
    """Tokens by which a needle may move to a boundary, so that none of `num_depths` depths ever meets its neighbour.

    Rounded depths are more than `step - 1` tokens apart, and two neighbours may move towards each other.
    """
    step = num_tokens / max(1, num_depths - 1)
    below_half = math.ceil((step - 1) / 2) - 1
    return max(0, min(int(MAX_BOUNDARY_SHIFT * num_tokens), below_half))


def does_not_fit(task: str, length: int) -> UserError:
    return UserError(f"A prompt of the task {task} does not fit {length} tokens: give longer evaluation.task_lengths.")


def depth_grid(num_depths: int) -> tuple[float, ...]:
    """Evenly spaced depths from 0 (needle first) to 1 (needle right before the question)."""
    return tuple(round(float(d), 6) for d in np.linspace(0, 1, num_depths))


def probe_generators() -> Iterator[np.random.Generator]:
    """Fixed generators of probes: no sample is expected to need more tokens than the costliest probe."""
    return (np.random.default_rng(probe) for probe in range(NUM_PROBES))


def sample_seed(seed: int, task: str, length: int, sample: int) -> int:
    """The seed of one sample's generator: the same for all its depths, and independent of other samples."""
    return int(np.random.SeedSequence([seed, zlib.crc32(task.encode()), length, sample]).generate_state(1)[0])
