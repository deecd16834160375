"""Reading a corpus in a test, through the units as the stage does."""

import pickle
from typing import Any, NamedTuple

from data_schemas.params import CorpusParams
from tasks.ingest.corpus_units import Corpus, plan_corpus, read_unit
from tasks.ingest.reading.records import Document, Refused, Skipped


class Reading(NamedTuple):
    corpus: Corpus
    documents: list[Document]
    refused: list[Refused]
    skipped: list[Skipped]

    @property
    def texts(self) -> list[str]:
        return [document.text for document in self.documents]

    @property
    def reasons(self) -> dict[tuple[str, int], str]:
        """Reason codes by (last part of the source URI, record)."""
        return {(refused.source_uri.split("/")[-1], refused.record): refused.reason for refused in self.refused}


def read(*sources: Any, **options: Any) -> Reading:
    """Everything in a corpus; each unit travels as to another process."""
    params = CorpusParams(sources=sources, **options)
    corpus = plan_corpus(params)
    found = [one for unit in corpus.units for one in read_unit(pickle.loads(pickle.dumps(unit)), params)]
    return Reading(
        corpus,
        [one for one in found if isinstance(one, Document)],
        [*corpus.refused, *(one for one in found if isinstance(one, Refused))],
        [one for one in found if isinstance(one, Skipped)],
    )
