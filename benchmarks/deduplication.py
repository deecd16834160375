"""Near-duplicate removal beside datasketch: the same documents, shingles, signature length and threshold, in one run.

`python -m benchmarks.deduplication [--megabytes 20] [--json FILE]`. The documents are files of the Python standard library and
copies of them with a known share of words replaced. Both libraries do the whole work from text to decision, one document
after another: word shingles, MinHash signature, look-up among the kept documents, verification by the estimated Jaccard
similarity. Recall and precision compare the decisions with those of exact Jaccard similarity of the shingle sets; "clear" counts
only the documents that are at least 0.05 away from the threshold, where the estimate's own noise does not decide.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_schemas.params import NearDuplicateParams
from tasks.ingest.duplicates.near_duplicates import find_duplicates, sketch_of
from tasks.ngrams.word_ngrams import distinct_ngrams

EDITED_SHARES = (0.002, 0.01, 0.02, 0.05, 0.1)


@dataclass(frozen=True)
class Outcome:
    """Seconds for signatures and for the index, and bool [n]: removed."""

    sketch_s: float
    index_s: float
    removed: np.ndarray


def documents(num_bytes: int, seed: int = 0) -> list[str]:
    """Originals, each with an edited copy behind all originals in half of the cases, up to `num_bytes`."""
    rng = np.random.default_rng(seed)
    originals: list[str] = []
    copies: list[str] = []
    size = 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        if len(text) < 1000 or any(part.endswith("-packages") for part in path.parts):
            continue
        originals.append(text)
        size += len(text)
        if rng.random() < 0.5:
            copies.append(_edited(text, float(rng.choice(EDITED_SHARES)), rng))
            size += len(copies[-1])
        if size >= num_bytes:
            break
    return originals + copies


def _edited(text: str, share: float, rng: np.random.Generator) -> str:
    """Runs of up to ten words replaced, until `share` of the words is."""
    words = re.split(r"(\s+)", text)
    num_left = round(share * len(words) / 2)
    while num_left > 0:
        at, length = int(rng.integers(len(words))) & ~1, min(int(rng.integers(1, 11)), num_left)
        words[at : at + 2 * length : 2] = [f"w{rng.integers(10**9)}" for _ in words[at : at + 2 * length : 2]]
        num_left -= length
    return "".join(words)


def ropeway(texts: list[str], params: NearDuplicateParams) -> Outcome:
    started = time.perf_counter()
    sketches = np.stack([sketch_of(text, params) for text in texts])
    sketched = time.perf_counter()
    kept_by = find_duplicates(sketches, np.arange(len(texts)), params).kept_by
    return Outcome(sketched - started, time.perf_counter() - sketched, kept_by >= 0)


def datasketch(texts: list[str], params: NearDuplicateParams) -> Outcome:
    from datasketch import MinHash, MinHashLSH

    started = time.perf_counter()
    sketches = []
    for text in texts:
        words = re.findall(r"[^\W_]+", text.lower())
        n = params.shingle_words
        shingles = {" ".join(words[i : i + n]).encode() for i in range(max(1, len(words) - n + 1))}
        sketches.append(MinHash(num_perm=params.num_permutations))
        sketches[-1].update_batch(list(shingles))
    sketched = time.perf_counter()
    index = MinHashLSH(threshold=params.similarity, num_perm=params.num_permutations)
    removed = np.zeros(len(texts), bool)
    for i, sketch in enumerate(sketches):
        removed[i] = any(sketches[j].jaccard(sketch) >= params.similarity for j in index.query(sketch))
        if not removed[i]:
            index.insert(i, sketch)
    return Outcome(sketched - started, time.perf_counter() - sketched, removed)


def exact(texts: list[str], params: NearDuplicateParams) -> tuple[np.ndarray, np.ndarray]:
    """(bool [n] removed by exact Jaccard similarity, float [n] the highest similarity to a document kept before)."""
    from scipy.sparse import csr_array

    sets = [distinct_ngrams(text, params.shingle_words) for text in texts]
    _, columns = np.unique(np.concatenate(sets), return_inverse=True)
    sizes = np.array([len(s) for s in sets])
    ends = np.concatenate([[0], np.cumsum(sizes)])
    matrix = csr_array((np.ones(len(columns), np.int32), columns, ends))
    shared = (matrix @ matrix.T).tocsr()
    removed, highest = np.zeros(len(texts), bool), np.zeros(len(texts))
    for i in range(len(texts)):
        others = shared.indices[shared.indptr[i] : shared.indptr[i + 1]]
        common = shared.data[shared.indptr[i] : shared.indptr[i + 1]]
        earlier = (others < i) & ~removed[others]
        similarity = common[earlier] / (sizes[i] + sizes[others[earlier]] - common[earlier])
        highest[i] = similarity.max(initial=0.0)
        removed[i] = highest[i] >= params.similarity
    return removed, highest


def measured(name: str, outcomes: list[Outcome], truth: np.ndarray, is_clear: np.ndarray, megabytes: float) -> dict[str, Any]:
    removed = outcomes[0].removed

    def share(part: np.ndarray, whole: np.ndarray) -> float:
        return float((part & whole).sum() / max(1, whole.sum()))

    return {
        "name": name,
        "sketch_mb_s": megabytes / statistics.median(o.sketch_s for o in outcomes),
        "index_s": statistics.median(o.index_s for o in outcomes),
        "mb_s": megabytes / statistics.median(o.sketch_s + o.index_s for o in outcomes),
        "removed": int(removed.sum()),
        "recall": share(removed, truth),
        "precision": share(truth, removed),
        "clear_recall": share(removed, truth & is_clear),
        "clear_precision": share(truth, removed & is_clear),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    params = NearDuplicateParams()
    texts = documents(int(args.megabytes * 1e6))
    megabytes = sum(len(text.encode("utf-8", "replace")) for text in texts) / 1e6
    truth, highest = exact(texts, params)
    is_clear = np.abs(highest - params.similarity) >= 0.05
    sides: dict[str, Callable[[list[str], NearDuplicateParams], Outcome]] = {"ropeway": ropeway, "datasketch": datasketch}
    outcomes: dict[str, list[Outcome]] = {name: [] for name in sides}
    ropeway(texts[:20], params)  # compiles the index and fills the tables
    for _ in range(args.repeats):
        for name, side in sides.items():
            outcomes[name].append(side(texts, params))
    rows = [measured(name, outcomes[name], truth, is_clear, megabytes) for name in sides]
    print(f"{platform.processor() or platform.machine()} CPU; {len(texts):,} documents, {megabytes:.1f} MB, {truth.sum():,} near-"
          f"duplicates by exact Jaccard >= {params.similarity}; {params.num_permutations} permutations, shingles of "
          f"{params.shingle_words} words")  # fmt: skip
    print(f"{'':>12} {'sketch MB/s':>12} {'index (s)':>10} {'MB/s':>8} {'ratio':>7} {'removed':>8} {'recall':>7} {'precision':>10}"
          f" {'clear recall':>13} {'clear precision':>16}")  # fmt: skip
    for row in rows:
        print(f"{row['name']:>12} {row['sketch_mb_s']:>12.1f} {row['index_s']:>10.3f} {row['mb_s']:>8.1f} "
              f"{row['mb_s'] / rows[-1]['mb_s']:>6.1f}x {row['removed']:>8} {row['recall']:>7.3f} {row['precision']:>10.3f} "
              f"{row['clear_recall']:>13.3f} {row['clear_precision']:>16.3f}")  # fmt: skip
    if args.json:
        about = {"megabytes": megabytes, "documents": len(texts), "duplicates": int(truth.sum()), "rows": rows}
        Path(args.json).write_text(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()
