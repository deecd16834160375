"""The n-grams of all evaluated text, and what a training document shares with them.

    held-out texts ─ ngram_part ─┐
    prompts ─────────────────────┴▶ build_evaluated ─▶ EvaluatedIndex, a folder of memory-mapped arrays
    training texts ─ index.shared_by ─▶ boilerplate.find_boilerplate, removal.choose_removed ─▶ hits.hits_of, rows of CONTAMINATION

The pass-key prompts of Ropeway's own evaluation need no entry. Their haystacks are held-out text, their keys are random, and
their fixed sentences have at most nine words: a document that contains one gives no answer away.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from tasks.ingest.decontamination.evaluated_prompts import MIN_PROMPT_WORDS, Prompt
from tasks.ngrams.document_index import NGRAM_FILES, NgramIndex, build_index, found_in
from tasks.ngrams.word_ngrams import distinct, distinct_ngrams, ngram_hashes, num_words_of

INDEX_FILES = (*NGRAM_FILES, "index.json", "prompts.npy", "prompt_owners.npy")


class EvaluatedIndex:
    """Every n-gram of held-out documents and evaluation prompts, memory-mapped from a folder; cheap to pickle and to open.

    A *place* numbers an n-gram: those of held-out documents in ascending order of their hashes, then those of prompts.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.heldout = NgramIndex(directory)
        about = json.loads((directory / "index.json").read_text(encoding="utf-8"))
        self.ngram_words: int = about["ngram_words"]
        self.prompt_lengths: list[int] = about["prompt_lengths"]
        self.prompt_names: list[str] = about["prompt_names"]
        self.short_prompts: list[str] = about["short_prompts"]

    def __reduce__(self) -> tuple[type[EvaluatedIndex], tuple[Path]]:
        return EvaluatedIndex, (self.directory,)

    def __len__(self) -> int:
        return len(self.heldout) + len(self.prompts)

    @cached_property
    def prompts(self) -> np.ndarray:
        """uint64 [n], ascending: n-grams of prompts."""
        return np.load(self.directory / "prompts.npy")

    @cached_property
    def prompt_owners(self) -> np.ndarray:
        """int32 [n]: for each n-gram the number of the first prompt that has it."""
        return np.load(self.directory / "prompt_owners.npy")

    def shared_by(self, text: str) -> tuple[np.ndarray, int]:
        """(int64 [n] places of the n-grams of `text` that are in the index, each once; number of the text's own n-grams)."""
        mine = distinct_ngrams(text, self.ngram_words)
        of_prompts, _ = found_in(self.prompt_ngrams(text, mine), self.prompts)
        return np.concatenate([self.heldout.find(mine), of_prompts + len(self.heldout)]), len(mine)

    def prompt_ngrams(self, text: str, mine: np.ndarray) -> np.ndarray:
        """The text's n-grams of every length that prompts have, ascending; `mine` are those of the usual length."""
        if not self.prompt_lengths:
            return mine[:0]
        of_length = {self.ngram_words: mine}
        parts = [of_length[n] if n in of_length else ngram_hashes(text, n) for n in self.prompt_lengths]
        return distinct(np.concatenate(parts))


def build_evaluated(
    directory: Path,
    ngram_words: int,
    heldout_parts: Sequence[Path | np.ndarray],
    num_heldout: Sequence[int],
    prompts: Sequence[Prompt],
) -> EvaluatedIndex:
    """Write the index into the empty or missing `directory` and open it.

    Args:
        heldout_parts: what `ngram_part` returned for held-out texts, as arrays or `.npy` files of them.
        num_heldout: number of held-out documents of each part.
        prompts: from `evaluated_prompts.evaluated_prompts`; those of fewer than MIN_PROMPT_WORDS words are left out and
            listed in `EvaluatedIndex.short_prompts`.

    Memory: about 200 MB for merging, for any number of held-out documents, and 20 bytes a word of the prompts.
    """
    build_index(directory, heldout_parts, num_heldout)
    least = min(MIN_PROMPT_WORDS, ngram_words)
    sizes = [num_words_of(prompt.text) for prompt in prompts]
    hashes, owners = _prompt_ngrams(prompts, sizes, ngram_words, least)
    np.save(directory / "prompts.npy", hashes)
    np.save(directory / "prompt_owners.npy", owners)
    about = {
        "ngram_words": ngram_words,
        "prompt_lengths": sorted({min(size, ngram_words) for size in sizes if size >= least}),
        "prompt_names": [prompt.name for prompt in prompts],
        "short_prompts": [prompt.name for prompt, size in zip(prompts, sizes, strict=True) if size < least],
    }
    (directory / "index.json").write_text(json.dumps(about), encoding="utf-8")
    return EvaluatedIndex(directory)


def _prompt_ngrams(
    prompts: Sequence[Prompt], sizes: Sequence[int], ngram_words: int, least: int
) -> tuple[np.ndarray, np.ndarray]:
    """(uint64 [n] n-grams of all prompts, ascending; int32 [n] the number of the first prompt that has each)."""
    hashes, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    for number, (prompt, size) in enumerate(zip(prompts, sizes, strict=True)):
        if size >= least:
            hashes.append(distinct_ngrams(prompt.text, ngram_words))
            owners.append(np.full(len(hashes[-1]), number, np.int32))
    together, first = np.unique(np.concatenate(hashes), return_index=True)
    return together, np.concatenate(owners)[first]
