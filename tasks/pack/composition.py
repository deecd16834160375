"""What the training documents are made of, for the manifest and the data card: sources, licences, languages, and some openings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.pack.counted import Counted, Counts, summed
from tasks.pack.reading import shuffled
from tasks.pack.sequences import Entries, SequenceReader

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_MOST_GROUPS = 100
OTHERS = "others"
_NUM_SAMPLES, _SAMPLE_TOKENS, _SAMPLE_CHARACTERS = 5, 100, 240
_STREAM = 2**31 + 4


def composition(sources: Sequence[str], counted: Counted) -> list[dict[str, Any]]:
    """Documents, bytes and tokens for training by source, licence and language, in the order of these names.

    At most 100 groups: with more, the smallest of each source are summed up as "others".
    """
    groups = list(summed(counted, "train", "source", "licence", "language").items())
    largest = sorted(groups, key=lambda group: (-group[1].bytes, group[0]))
    rows: dict[tuple[str, str, str], Counts] = {}
    for rank, ((source, licence, language), counts) in enumerate(largest):
        names = (licence, language) if rank < _MOST_GROUPS else (OTHERS, OTHERS)
        key = (sources[source], *names)
        rows[key] = rows.get(key, Counts()).plus(counts)
    return [
        {"source": s, "licence": li, "language": la, "documents": c.documents, "bytes": c.bytes, "tokens": c.tokens}
        for (s, li, la), c in sorted(rows.items())
    ]


def openings(
    sources: Sequence[str],
    entries: Entries,
    uses: np.ndarray,
    reader: SequenceReader,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
) -> Iterator[dict[str, str]]:
    """The beginnings of five packed training documents, chosen by `seed`. `uses` int [num_sequences] says what is packed."""
    firsts = np.flatnonzero(np.diff(entries.documents, prepend=-1))
    firsts = firsts[uses[firsts] > 0]
    for number in sorted(firsts[shuffled(len(firsts), seed, _STREAM)[:_NUM_SAMPLES]].tolist()):
        ids = reader.read(reader.locate(np.array([number])))[:_SAMPLE_TOKENS]
        text = str(tokenizer.decode(ids.tolist(), skip_special_tokens=True))
        yield {"source": sources[entries.sources[number]], "text": text[:_SAMPLE_CHARACTERS]}
