"""Which documents are near-duplicates: MinHash signatures of word shingles, and an index of their bands.

Signatures are rensa's R-MinHash (after Dahlgaard et al. 2017, Fast Similarity Sketching, arXiv 1704.04370): the share of
equal places in two of them estimates the Jaccard similarity of the shingle sets without bias. Documents are compared when a
band of their signatures is equal (locality-sensitive hashing, Leskovec et al., Mining of Massive Datasets, section 3.4), and
the estimate decides.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from data_schemas.params import NearDuplicateParams
from tasks.ingest.duplicates.bands import first_come_first_kept
from tasks.ngrams.word_ngrams import ngram_blocks

_SEED = 42
_BAND_RECALL = 0.99  # least chance that two documents of exactly the wanted similarity share a band


class Sketch:
    """The signature of one text, made from its shingles a block at a time. Equal in every process and on every machine.

    Memory does not grow with the text: the signature of a union of sets is the smaller value at each place.
    """

    def __init__(self, num_permutations: int) -> None:
        self._signature = np.full(num_permutations, np.iinfo(np.uint32).max, np.uint32)
        self._has_words = False

    def add(self, shingles: np.ndarray) -> None:
        """More shingles, uint64 [n]."""
        np.minimum(self._signature, _signature(shingles, len(self._signature)), out=self._signature)
        self._has_words = True

    def finished(self, text: str) -> np.ndarray:
        """uint32 [num_permutations]: the signature. A text without any word equals only its exact copies."""
        if self._has_words:
            return self._signature
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return _signature(np.frombuffer(digest, "<u8"), len(self._signature))


def sketch_of(text: str, params: NearDuplicateParams) -> np.ndarray:
    """uint32 [num_permutations]: the signature of a text. A text shorter than a shingle is one shingle."""
    sketch = Sketch(params.num_permutations)
    for block in ngram_blocks(text, params.shingle_words):
        sketch.add(block.hashes)
    return sketch.finished(text)


@dataclass(frozen=True)
class NearDuplicates:
    """For each document: `kept_by` int64 [n], the kept document that it duplicates, or -1 if it stays; `similarity`
    float32 [n], the estimated Jaccard similarity of the two, 0 if it stays."""

    kept_by: np.ndarray
    similarity: np.ndarray


def find_duplicates(sketches: np.ndarray, order: np.ndarray, params: NearDuplicateParams) -> NearDuplicates:
    """Go through the documents in `order` and remove each one that is similar enough to one kept before it.

    Only kept documents remove others. If several are similar enough, the most similar one is named, of equally similar ones
    the first. In each band only the latest `bands.MAX_COMPARED` kept documents are compared, which bounds the cost when
    thousands of documents share a template.

    Args:
        sketches: uint32 [n, num_permutations], such as a memory map; read mostly in `order`.
        order: int64 [m], numbers of the documents to compare; all others count as kept.
        params: similarity and length of the signatures.

    Memory beyond `sketches`: about 8 bytes a document and band; 21 bands at similarity 0.8 and 128 permutations.
    """
    rows = band_rows(params.similarity, params.num_permutations)
    kept_by, similarity = first_come_first_kept(np.asarray(sketches), np.asarray(order, np.int64), rows, params.similarity)
    return NearDuplicates(kept_by, similarity)


def band_rows(similarity: float, num_permutations: int) -> int:
    """Places in a band: the most with which two documents of `similarity` share a band with a chance of 99 % or more.

    The chance is 1 - (1 - s**rows) ** bands; more rows mean fewer needless comparisons.
    """
    for rows in range(num_permutations, 1, -1):
        if 1 - (1 - similarity**rows) ** (num_permutations // rows) >= _BAND_RECALL:
            return rows
    return 1


def _signature(hashes: np.ndarray, size: int) -> np.ndarray:
    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, np.array([0, len(hashes)], np.uint64), size, _SEED)
    return np.array(matrix.to_rows()[0], np.uint32)
