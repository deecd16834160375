"""Collects the n-grams of all evaluated text into the index that `decontaminate` compares training documents with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data_schemas.params import DecontaminationParams
from tasks.ingest.decontamination.evaluated_prompts import MIN_PROMPT_WORDS, Prompt
from tasks.ingest.decontamination.ngram_index import EvaluatedIndex, HashFilter
from tasks.ingest.word_ngrams import distinct_ngrams, num_words_of

HELDOUT_NGRAMS = np.dtype(
    [("hash", "<u8"), ("document", "<u4")]
)  # `document`: the first of the part's documents with this n-gram
_MERGE_NGRAMS = 4_000_000


def heldout_part(ngrams: Sequence[np.ndarray]) -> np.ndarray:
    """HELDOUT_NGRAMS [n], ascending: one part of what `build_index` merges, from `distinct_ngrams` of some held-out texts."""
    hashes = np.concatenate([np.empty(0, np.uint64), *ngrams])
    documents = np.repeat(np.arange(len(ngrams), dtype=np.uint32), [len(of_document) for of_document in ngrams])
    return _first_owners(hashes, documents)


def build_index(
    directory: Path, params: DecontaminationParams, heldout_parts: Sequence[Path | np.ndarray], prompts: Sequence[Prompt]
) -> EvaluatedIndex:
    """Write the index into the empty or missing `directory` and open it.

    Args:
        heldout_parts: what `heldout_part` returned, as arrays or `.npy` files of them; their order decides who owns an
            n-gram that several documents have.
        prompts: from `evaluated_prompts.evaluated_prompts`; those of fewer than MIN_PROMPT_WORDS words are left out and listed in
            `EvaluatedIndex.short_prompts`.

    Memory: about 200 MB for merging, for any number of held-out documents, and 20 bytes a word of the prompts.
    """
    directory.mkdir(parents=True, exist_ok=True)
    parts = [np.load(part, mmap_mode="r") if isinstance(part, Path) else part for part in heldout_parts]
    _merge(parts, directory)
    least = min(MIN_PROMPT_WORDS, params.ngram_words)
    sizes = [num_words_of(prompt.text) for prompt in prompts]
    hashes, owners = _prompt_ngrams(prompts, sizes, params.ngram_words, least)
    np.save(directory / "prompts.npy", hashes)
    np.save(directory / "prompt_owners.npy", owners)
    about = {
        "ngram_words": params.ngram_words,
        "heldout_share": params.heldout_share,
        "prompt_lengths": sorted({min(size, params.ngram_words) for size in sizes if size >= least}),
        "prompt_names": [prompt.name for prompt in prompts],
        "short_prompts": [prompt.name for prompt, size in zip(prompts, sizes, strict=True) if size < least],
    }
    (directory / "index.json").write_text(json.dumps(about), encoding="utf-8")
    index = EvaluatedIndex(directory)
    _save_common(index, np.zeros(len(index), bool))
    return index


def mark_common(index: EvaluatedIndex, places: Iterable[np.ndarray], params: DecontaminationParams) -> int:
    """Mark as boilerplate the n-grams that more than `common_documents` training documents contain; return their number.

    `places` are what `EvaluatedIndex.places_of` returned for all training documents, of one or of several together.
    """
    limit = min(params.common_documents, np.iinfo(np.uint16).max - 1)
    found_in = np.zeros(len(index), np.uint16)  # saturates above the limit
    for some in places:
        place, num_documents = np.unique(some, return_counts=True)
        found_in[place] = np.minimum(found_in[place] + num_documents, limit + 1)
    is_common = found_in > limit
    _save_common(index, is_common)
    return int(is_common.sum())


def _save_common(index: EvaluatedIndex, is_common: np.ndarray) -> None:
    """Store which n-grams are boilerplate, and how many of each held-out document are not."""
    sizes = np.zeros(0, np.int64)
    for start in range(0, len(index.heldout), _MERGE_NGRAMS):
        end = min(start + _MERGE_NGRAMS, len(index.heldout))
        more = np.bincount(index.heldout_owners[start:end][~is_common[start:end]], minlength=len(sizes))
        more[: len(sizes)] += sizes
        sizes = more
    for name, array in (("common.npy", is_common), ("heldout_sizes.npy", sizes)):
        with (index.directory / f"{name}.new").open("wb") as file:
            np.save(file, array)
        (index.directory / f"{name}.new").replace(index.directory / name)  # another process may have mapped the old one
    index.forget_common()


def _merge(parts: Sequence[np.ndarray], directory: Path) -> None:
    """Merge sorted `parts` into one sorted list without repeats, a range of hashes at a time."""
    num_ranges = 1 + sum(len(part) for part in parts) // _MERGE_NGRAMS
    limits = np.array([i * 2**64 // num_ranges for i in range(num_ranges)], np.uint64)
    cuts = [[*np.searchsorted(part["hash"], limits).tolist(), len(part)] for part in parts]
    offsets = np.cumsum([0, *(int(part["document"].max()) + 1 if len(part) else 0 for part in parts)])
    num_bytes = HashFilter.num_bytes(sum(len(part) for part in parts))
    bits = np.memmap(directory / "heldout.bits", np.uint8, "w+", shape=num_bytes)
    seen = HashFilter(bits)
    with (directory / "heldout.u64").open("wb") as hashes, (directory / "heldout_owners.u32").open("wb") as owners:
        for i in range(num_ranges):
            pieces = [part[cut[i] : cut[i + 1]] for part, cut in zip(parts, cuts, strict=True)]
            documents = [piece["document"] + np.uint32(offset) for piece, offset in zip(pieces, offsets, strict=False)]
            merged = _first_owners(
                np.concatenate([np.empty(0, np.uint64), *(piece["hash"] for piece in pieces)]),
                np.concatenate([np.empty(0, np.uint32), *documents]),
            )
            seen.add(merged["hash"])
            hashes.write(merged["hash"].tobytes())  # ndarray.tofile would hide a full disk
            owners.write(merged["document"].tobytes())
    bits.flush()


def _first_owners(hashes: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """HELDOUT_NGRAMS: the different hashes, ascending, each with the first document given for it."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    is_new = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
    owned = np.empty(int(is_new.sum()), HELDOUT_NGRAMS)
    owned["hash"], owned["document"] = ordered[is_new], documents[order[is_new]]
    return owned


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
