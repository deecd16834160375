"""The splitters that `benchmarks.chunking` compares: those of other libraries, and the chunking of Ropeway's prepare stage.

Each starts its workers and warms up on a little text before it is timed. For other libraries the time is that of one call from
texts to pieces in memory. For Ropeway it is the stage's own work in units: read documents from Parquet, cut them, and write
chunks with their links and token ids to files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

MAX_TOKENS = 512
WARM_UP = ["A first sentence. A second one! And a third? Yes.\n\nAnother paragraph.\n" * 100] * 2

Pieces = list[tuple[int, str]]  # (first character, text) of each chunk of a document; -1 where no offset is given


class Task(NamedTuple):
    """What is timed, and how its result is read as the pieces of each text, which is not."""

    run: Callable[[], Any]
    pieces: Callable[[Any], list[Pieces]]


Splitter = Callable[[list[str], list[str]], Task]  # for texts and the format of each
Maker = Callable[[str], AbstractContextManager[Splitter]]  # for the file of a tokenizer


def _peer(make: Callable[[str], Callable[[list[str]], list[Pieces]]]) -> Maker:
    def ready(tokenizer_file: str) -> AbstractContextManager[Splitter]:
        split = make(tokenizer_file)
        split(WARM_UP)
        return nullcontext(lambda texts, formats: Task(lambda: split(texts), lambda found: found))

    return ready


def _counter(tokenizer_file: str) -> Callable[[str], int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(tokenizer_file)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _langchain(tokenizer_file: str) -> Callable[[list[str]], list[Pieces]]:
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(
        chunk_size=MAX_TOKENS, chunk_overlap=0, length_function=_counter(tokenizer_file), add_start_index=True
    )

    def split(texts: list[str]) -> list[Pieces]:
        found: list[Pieces] = [[] for _ in texts]
        for document in splitter.create_documents(texts, [{"text": i} for i in range(len(texts))]):
            found[document.metadata["text"]].append((document.metadata["start_index"], document.page_content))
        return found

    return split


def _langchain_keeping_space(tokenizer_file: str) -> Callable[[list[str]], list[Pieces]]:
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(
        chunk_size=MAX_TOKENS, chunk_overlap=0, length_function=_counter(tokenizer_file), strip_whitespace=False
    )
    return lambda texts: [_in_a_row(splitter.split_text(text)) for text in texts]


def _in_a_row(chunks: list[str]) -> Pieces:
    start, found = 0, []
    for chunk in chunks:
        found.append((start, chunk))
        start += len(chunk)
    return found


def _semchunk(tokenizer_file: str, processes: int) -> Callable[[list[str]], list[Pieces]]:
    import semchunk

    chunker = semchunk.chunkerify(_counter(tokenizer_file), MAX_TOKENS)

    def split(texts: list[str]) -> list[Pieces]:
        chunks: Any
        offsets: Any
        chunks, offsets = chunker(texts, processes=processes, offsets=True)
        return [list(zip((a for a, _ in o), c, strict=True)) for c, o in zip(chunks, offsets, strict=True)]

    return split


def _semantic_text_splitter(tokenizer_file: str) -> Callable[[list[str]], list[Pieces]]:
    from semantic_text_splitter import TextSplitter

    splitter = TextSplitter.from_huggingface_tokenizer_file(tokenizer_file, MAX_TOKENS, trim=False)
    return lambda texts: splitter.chunk_all_indices(texts)


def _chonkie(tokenizer_file: str, kind: str) -> Callable[[list[str]], list[Pieces]]:
    import chonkie
    from tokenizers import Tokenizer

    chunker = getattr(chonkie, kind)(tokenizer=Tokenizer.from_file(tokenizer_file), chunk_size=MAX_TOKENS)

    def split(texts: list[str]) -> list[Pieces]:
        found = chunker.chunk_batch(texts, show_progress=False)
        return [[(chunk.start_index, chunk.text) for chunk in of_text] for of_text in found]

    return split


PEERS: dict[str, tuple[str, Maker]] = {
    "langchain recursive": ("RecursiveCharacterTextSplitter.create_documents, add_start_index", _peer(_langchain)),
    "langchain, space kept": ("split_text, strip_whitespace=False", _peer(_langchain_keeping_space)),
    "semchunk": ("chunkerify(...)(texts, offsets=True)", _peer(lambda file: _semchunk(file, 1))),
    "semchunk, 2 processes": ("the same with processes=2", _peer(lambda file: _semchunk(file, 2))),
    "semantic-text-splitter": ("TextSplitter.chunk_all_indices, trim=False (Rust threads)", _peer(_semantic_text_splitter)),
    "chonkie sentence": ("SentenceChunker.chunk_batch", _peer(lambda file: _chonkie(file, "SentenceChunker"))),
    "chonkie recursive": ("RecursiveChunker.chunk_batch", _peer(lambda file: _chonkie(file, "RecursiveChunker"))),
}


@contextmanager
def _stage(tokenizer_file: str, segmenter: str, num_workers: int) -> Iterator[Splitter]:
    """Chunking as a run of the prepare stage does it on this machine."""
    from data_schemas.params import ChunkingParams
    from data_schemas.parts import Parts
    from tasks.pack.chunk_job import TOKENIZER_FILE, ChunkJob
    from tasks.tokens.special_tokens import SpecialTokens
    from tasks.work import local_workers, run_units

    params = ChunkingParams.model_validate({"max_tokens": MAX_TOKENS, "segmenter": segmenter})
    with TemporaryDirectory(prefix="ropeway-bench-") as folder, local_workers(num_workers) as workers:
        parts = Parts(f"{folder}/chunks")
        with parts.writing(TOKENIZER_FILE) as path:
            shutil.copyfile(tokenizer_file, path)
        num_runs = 0

        def job_of(texts: list[str], formats: list[str]) -> tuple[ChunkJob, list[tuple[int, str]]]:
            nonlocal num_runs
            num_runs += 1
            documents = Path(folder, f"documents-{num_runs}")
            names = _write_documents(documents, texts, formats)
            special = SpecialTokens(None, None)
            job = ChunkJob(Parts(str(documents)), parts, params, special, ("text",), row_length=MAX_TOKENS, max_waste=1)
            return job, list(enumerate(names))

        def split(texts: list[str], formats: list[str]) -> Task:
            job, units = job_of(texts, formats)
            name = f"chunked-{num_runs}"
            return Task(
                lambda: list(run_units(workers, job, units, parts, name)), lambda _: _read_pieces(parts, len(units), texts)
            )

        job, units = job_of(WARM_UP, ["plain"] * len(WARM_UP))
        warm: set[int] = set()
        while len(warm) < num_workers:  # whichever process is free takes the next unit
            warm.update(workers.map(_ProcessOf(job), units * 2 * num_workers))
        yield split


@dataclass(frozen=True)
class _ProcessOf:
    """Runs the job; returns which process did."""

    job: Any

    def __call__(self, unit: Any) -> int:
        self.job(unit)
        return os.getpid()


def _write_documents(folder: Path, texts: list[str], formats: list[str]) -> list[str]:
    """Parts of the documents of the size that ingest makes them; their names."""
    import pyarrow as pa

    from data_schemas.tables import DOCUMENTS
    from tasks.ingest.corpus_units import MIN_UNIT_BYTES
    from tasks.ingest.survey import write_in_groups

    units: list[list[dict[str, Any]]] = [[]]
    num_bytes = 0
    for number, (text, text_format) in enumerate(zip(texts, formats, strict=True)):
        size = len(text.encode())
        if units[-1] and num_bytes + size > MIN_UNIT_BYTES:
            units.append([])
            num_bytes = 0
        num_bytes += size
        row = {
            "doc_id": str(number),
            "source": "text",
            "text": text,
            "format": text_format,
            "language": None,
            "split": "train",
            "licence": "",
        }
        units[-1].append(row | {"num_bytes": size})
    folder.mkdir()
    schema = pa.schema([DOCUMENTS.field(name) for name in units[0][0]])
    names = [f"documents-{number:05d}.parquet" for number in range(len(units))]
    for name, rows in zip(names, units, strict=True):
        write_in_groups(folder / name, schema, iter(rows))
    return names


def _read_pieces(parts: Any, num_units: int, texts: list[str]) -> list[Pieces]:
    import pyarrow.parquet as pq

    found: list[Pieces] = [[] for _ in texts]
    for number in range(num_units):
        with parts.reading(f"chunks-{number:05d}.parquet") as path:
            columns = pq.read_table(path, columns=["doc_id", "char_start", "char_end"]).to_pydict().values()
        for doc_id, start, end in zip(*columns, strict=True):
            found[int(doc_id)].append((start, texts[int(doc_id)][start:end]))
    return found


def ours(segmenter: str, num_workers: int) -> str:
    return f"ropeway {segmenter}, {num_workers} worker{'s' * (num_workers > 1)}"


SEGMENTERS, WORKERS = ("spacy", "fast"), (1, 2)
OURS: dict[str, tuple[str, Maker]] = {
    ours(segmenter, n): (
        f"prepare's ChunkJob in units of documents, ray.data_workers={n}; Parquet to Parquet",
        lambda file, segmenter=segmenter, n=n: _stage(file, segmenter, n),  # type: ignore[misc]
    )
    for segmenter in SEGMENTERS
    for n in WORKERS
}
