"""Chunkers side by side: the same text, the same tokenizer, 512 tokens, one run.

`python -m benchmarks.chunking [--text FOLDER] [--megabytes 24] [--json FILE]`. The text is the standard library's Python
source ("code"), the README, licence and documentation files of installed packages ("docs") and, where FOLDER is given,
its .txt files ("prose"); the kinds share `--megabytes` evenly as far as each has enough, nothing is repeated.

Each splitter runs by itself in a fresh process, is warmed with a little text and then timed once on each kind; with
`--repeats N` that is done N times in turn with the others, and the best time counts, which a busy machine needs. It is
called the fastest way its own interface has: see `PEERS`. Ours gives token ids as well, and section titles. Then each
chunk is encoded again to see what is over the budget, and compared with the text at the offset that was given. EXACT
is a splitter with nothing over the budget and every offset right; ratios are against the fastest exact peer on the same
text. MB/CPU s counts the time of all processes and threads, which says more than MB/s on a machine that others use.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import site
import statistics
import sysconfig
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

MAX_TOKENS = 512
DEMO_TOKENIZER = Path(__file__).parent.parent / "flows/presets/demo_base/tokenizer.json"
FORMATS = {"code": "python", "docs": "markdown", "prose": "plain"}
WARM_UP = ["A first sentence. A second one! And a third? Yes.\n\nAnother paragraph.\n"] * 2

Pieces = list[tuple[int, str]]  # (first character, text) of each chunk of a document; -1 where no offset is given
Splitter = Callable[[list[str], str], list[Pieces]]


@dataclass(frozen=True)
class Result:
    """What one splitter did to one kind of text."""

    name: str
    kind: str
    seconds: float
    cpu_seconds: float  # of all its processes and threads
    num_bytes: int
    num_chunks: int
    over_budget: int
    wrong_offsets: int
    tiles: bool
    mean_tokens: float

    @property
    def rate(self) -> float:
        """Megabytes a second."""
        return self.num_bytes / 1e6 / self.seconds

    @property
    def is_exact(self) -> bool:
        return not self.over_budget and not self.wrong_offsets


# -- splitters: each makes itself ready and gives a function from (texts, format) to pieces, which is what is timed


def _counter(tokenizer_file: str) -> Callable[[str], int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(tokenizer_file)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _langchain(tokenizer_file: str) -> Splitter:
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(
        chunk_size=MAX_TOKENS, chunk_overlap=0, length_function=_counter(tokenizer_file), add_start_index=True
    )

    def split(texts: list[str], text_format: str) -> list[Pieces]:
        found: list[Pieces] = [[] for _ in texts]
        for document in splitter.create_documents(texts, [{"text": i} for i in range(len(texts))]):
            found[document.metadata["text"]].append((document.metadata["start_index"], document.page_content))
        return found

    return split


def _langchain_keeping_space(tokenizer_file: str) -> Splitter:
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(
        chunk_size=MAX_TOKENS, chunk_overlap=0, length_function=_counter(tokenizer_file), strip_whitespace=False
    )

    def split(texts: list[str], text_format: str) -> list[Pieces]:
        return [_in_a_row(splitter.split_text(text)) for text in texts]

    return split


def _in_a_row(chunks: list[str]) -> Pieces:
    start, found = 0, []
    for chunk in chunks:
        found.append((start, chunk))
        start += len(chunk)
    return found


def _semchunk(tokenizer_file: str, processes: int) -> Splitter:
    import semchunk

    chunker = semchunk.chunkerify(_counter(tokenizer_file), MAX_TOKENS)

    def split(texts: list[str], text_format: str) -> list[Pieces]:
        chunks, offsets = chunker(texts, processes=processes, offsets=True)
        return [list(zip((a for a, _ in o), c, strict=True)) for c, o in zip(chunks, offsets, strict=True)]

    return split


def _semantic_text_splitter(tokenizer_file: str) -> Splitter:
    from semantic_text_splitter import TextSplitter

    splitter = TextSplitter.from_huggingface_tokenizer_file(tokenizer_file, MAX_TOKENS, trim=False)
    return lambda texts, text_format: splitter.chunk_all_indices(texts)


def _chonkie(tokenizer_file: str, kind: str) -> Splitter:
    import chonkie
    from tokenizers import Tokenizer

    chunker = getattr(chonkie, kind)(tokenizer=Tokenizer.from_file(tokenizer_file), chunk_size=MAX_TOKENS)

    def split(texts: list[str], text_format: str) -> list[Pieces]:
        found = chunker.chunk_batch(texts, show_progress=False)
        return [[(chunk.start_index, chunk.text) for chunk in of_text] for of_text in found]

    return split


def _ours(tokenizer_file: str, segmenter: str, num_workers: int) -> Splitter:
    from tokenizers import Tokenizer

    from data_schemas.params import ChunkingParams
    from tasks.chunk.parallel import ChunkPool

    params = ChunkingParams.model_validate({"max_tokens": MAX_TOKENS, "segmenter": segmenter})
    pool = ChunkPool(Tokenizer.from_file(tokenizer_file), params, num_workers)
    pool.wait_until_ready()

    def split(texts: list[str], text_format: str) -> list[Pieces]:
        cut = pool.cut_many(texts, [text_format] * len(texts))
        rows = ((text, spans.rows[:, :2].tolist()) for text, (_, spans) in zip(texts, cut, strict=True))
        return [[(start, text[start:end]) for start, end in spans] for text, spans in rows]

    return split


PEERS: dict[str, tuple[str, Callable[[str], Splitter]]] = {
    "langchain recursive": ("RecursiveCharacterTextSplitter.create_documents, add_start_index", _langchain),
    "langchain, space kept": ("split_text, strip_whitespace=False", _langchain_keeping_space),
    "semchunk": ("chunkerify(...)(texts, offsets=True)", lambda file: _semchunk(file, 1)),
    "semchunk, 2 processes": ("the same with processes=2", lambda file: _semchunk(file, 2)),
    "semantic-text-splitter": ("TextSplitter.chunk_all_indices, trim=False (Rust threads)", _semantic_text_splitter),
    "chonkie sentence": ("SentenceChunker.chunk_batch", lambda file: _chonkie(file, "SentenceChunker")),
    "chonkie recursive": ("RecursiveChunker.chunk_batch", lambda file: _chonkie(file, "RecursiveChunker")),
}
OURS: dict[str, tuple[str, Callable[[str], Splitter]]] = {
    f"ropeway {segmenter}, {n} worker{'s' * (n > 1)}": (
        f"ChunkPool({n}).cut_many: ids and offsets as arrays",
        lambda file, segmenter=segmenter, n=n: _ours(file, segmenter, n),  # type: ignore[misc]
    )
    for segmenter in ("spacy", "fast")
    for n in (1, 2)
}
PACKAGES = ("langchain-text-splitters", "semchunk", "semantic-text-splitter", "chonkie", "tokenizers", "spacy")


def measure(name: str, tokenizer_file: str, texts_of: dict[str, list[str]]) -> list[Result]:
    """One splitter on every kind of text. Runs in a process of its own."""
    from tokenizers import Tokenizer

    split = {**PEERS, **OURS}[name][1](tokenizer_file)
    split(WARM_UP, "plain")
    tokenizer = Tokenizer.from_file(tokenizer_file)
    results = []
    for kind, texts in texts_of.items():
        started, cpu_started = time.perf_counter(), _cpu_seconds()
        found = split(texts, FORMATS[kind])
        seconds, cpu_seconds = time.perf_counter() - started, _cpu_seconds() - cpu_started
        results.append(_checked(name, kind, seconds, cpu_seconds, texts, found, tokenizer))
    return results


def _cpu_seconds() -> float:
    """Of this process, its threads, and its children, those that have ended included."""
    times = os.times()
    running = sum(_cpu_seconds_of(child.pid) for child in multiprocessing.active_children() if child.pid)
    return times.user + times.system + times.children_user + times.children_system + running


def _cpu_seconds_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _checked(
    name: str, kind: str, seconds: float, cpu_seconds: float, texts: list[str], found: list[Pieces], tokenizer: Any
) -> Result:
    lengths: list[int] = []
    wrong = 0
    tiles = True
    for text, pieces in zip(texts, found, strict=True):
        encodings = tokenizer.encode_batch_fast([chunk for _, chunk in pieces], add_special_tokens=False)
        lengths += [len(encoding.ids) for encoding in encodings]
        wrong += sum(start < 0 or not text.startswith(chunk, start) for start, chunk in pieces)
        tiles &= "".join(chunk for _, chunk in pieces) == text
    num_bytes = sum(len(text.encode()) for text in texts)
    over = sum(n > MAX_TOKENS for n in lengths)
    return Result(
        name, kind, seconds, cpu_seconds, num_bytes, len(lengths), over, wrong, tiles, sum(lengths) / max(1, len(lengths))
    )


def measure_growth(tokenizer_file: str, texts: list[str]) -> dict[str, float]:
    """Time for one document of 4 MB as a multiple of that for one of 1 MB, for each segmenter: CPU time, the four
    quarters of the document right before it, median of five."""
    whole = "\n".join(texts).encode()[:4_000_000]
    quarters = [whole[i : i + 1_000_000].decode(errors="ignore") for i in range(0, len(whole), 1_000_000)]
    ratios = {}
    for segmenter in ("spacy", "fast"):
        split = _ours(tokenizer_file, segmenter, 1)
        split(quarters, "plain")
        found = []
        for _ in range(5):
            started = time.process_time()
            for quarter in quarters:
                split([quarter], "plain")
            between = time.process_time()
            split(["".join(quarters)], "plain")
            found.append((time.process_time() - between) / ((between - started) / len(quarters)))
        ratios[segmenter] = statistics.median(found)
    return ratios


# -- text


def find_texts(folder: str | None, megabytes: float) -> dict[str, list[str]]:
    """Documents of each kind, about `megabytes` in all, in the order of their paths."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    code = [p for p in sorted(stdlib.rglob("*.py")) if not {"site-packages", "dist-packages"} & set(p.parts)]
    docs = [
        path
        for root in site.getsitepackages()
        for path in sorted(Path(root).rglob("*"))
        if path.name == "METADATA" or path.suffix in (".md", ".rst") or path.name.startswith("LICENSE")
    ]
    found = {"code": code, "docs": docs}
    if folder:
        found = {"prose": sorted(Path(folder).rglob("*.txt")), "code": code}
    budget = megabytes * 1e6
    texts: dict[str, list[str]] = {}
    for left, (kind, paths) in enumerate(sorted(found.items(), key=lambda item: _size(item[1]))):
        texts[kind] = _read(paths, budget / (len(found) - left))
        budget -= sum(len(text.encode()) for text in texts[kind])
    return texts


def _size(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def _read(paths: list[Path], num_bytes: float) -> list[str]:
    texts: list[str] = []
    size = 0
    for path in paths:
        if size >= num_bytes:
            break
        if path.is_file() and (data := path.read_bytes()):
            try:
                text = data.decode()
            except UnicodeDecodeError:
                continue
            texts.append(text)
            size += len(data)
    return texts


# -- tables


def _all_kinds(results: list[Result]) -> list[Result]:
    """One line a splitter for all kinds together."""
    merged = []
    for name in dict.fromkeys(r.name for r in results):
        rows = [r for r in results if r.name == name]
        chunks = sum(r.num_chunks for r in rows)
        merged.append(
            Result(
                name, "all", sum(r.seconds for r in rows), sum(r.cpu_seconds for r in rows),
                sum(r.num_bytes for r in rows), chunks,
                sum(r.over_budget for r in rows), sum(r.wrong_offsets for r in rows), all(r.tiles for r in rows),
                sum(r.mean_tokens * r.num_chunks for r in rows) / max(1, chunks),
            )
        )  # fmt: skip
    return merged


def print_table(kind: str, results: list[Result]) -> dict[str, float]:
    """Prints one table and gives the ratios in it."""
    exact_peers = [r for r in results if r.name in PEERS and r.is_exact]
    best = max(exact_peers, key=lambda r: r.rate, default=None)
    print(f"\n{kind}: {results[0].num_bytes / 1e6:.1f} MB, fastest exact peer: {best.name if best else 'none'}")
    print(f"{'splitter':<26} {'MB/s':>6} {'MB/CPU s':>9} {'chunks':>7} {'over':>5} "
          f"{'offsets':>8} {'tiles':>6} {'fill':>6} {'ratio':>7}")  # fmt: skip
    ratios = {}
    for r in results:
        if best:
            ratios[r.name] = r.rate / best.rate
        ratio = f"{ratios[r.name]:.1f}x" if best else "-"
        offsets = "right" if not r.wrong_offsets else f"{r.wrong_offsets} bad"
        print(
            f"{r.name:<26} {r.rate:>6.2f} {r.num_bytes / 1e6 / r.cpu_seconds:>9.2f} {r.num_chunks:>7} {r.over_budget:>5} "
            f"{offsets:>8} {'yes' if r.tiles else 'no':>6} {r.mean_tokens / MAX_TOKENS:>6.1%} {ratio:>7}"
        )
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", help="a folder whose .txt files are the prose")
    parser.add_argument("--megabytes", type=float, default=24, help="of text in all")
    parser.add_argument("--tokenizer", default=str(DEMO_TOKENIZER), help="a tokenizer.json")
    parser.add_argument("--repeats", type=int, default=1, help="the best of so many times counts")
    parser.add_argument("--only", default="", help="only splitters whose name contains this, such as `fast` or `chonkie`")
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    texts = find_texts(args.text, args.megabytes)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{platform.processor() or platform.machine()}, {cores} cores, Python {platform.python_version()}, "
          + ", ".join(f"{package} {version(package)}" for package in PACKAGES))  # fmt: skip
    splitters = {name: how for name, (how, _) in {**OURS, **PEERS}.items() if args.only in name}
    for name, how in splitters.items():
        print(f"  {name}: {how}")
    best: dict[tuple[str, str], Result] = {}
    for _ in range(args.repeats):
        for name in splitters:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                for result in alone.submit(measure, name, args.tokenizer, texts).result():
                    key = (result.kind, name)
                    best[key] = min(best.get(key, result), result, key=lambda r: r.seconds)
    results = list(best.values())
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        longest = max(texts, key=lambda kind: (kind != "code", len(texts[kind])))
        growth = alone.submit(measure_growth, args.tokenizer, texts[longest]).result()
    ratios = {kind: print_table(kind, [r for r in results if r.kind == kind]) for kind in texts}
    ratios["all"] = print_table("all", _all_kinds(results))
    print("\none document of 4 MB against one of 1 MB: " + ", ".join(f"{k} {v:.2f}x the time" for k, v in growth.items()))
    if args.json:
        figures = {
            "repeats": args.repeats,
            "versions": {package: version(package) for package in PACKAGES},
            "results": [asdict(r) | {"megabytes_per_s": r.rate, "is_exact": r.is_exact} for r in results],
            "ratios": ratios,
            "growth_4_to_1_megabytes": growth,
        }
        Path(args.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
