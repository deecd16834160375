"""Compare chunkers: the same text, the same tokenizer, 512 tokens, one run.

`python -m benchmarks.chunking [--text FOLDER] [--megabytes 24] [--json FILE]`. The text is the standard library's Python
source ("code"), the README, licence and documentation files of installed packages ("docs") and, where FOLDER is given,
its .txt files ("prose"). The kinds share `--megabytes` evenly as far as each has enough; nothing is repeated.

Each splitter runs alone in a fresh process, is warmed up with a little text and then timed once on each kind. With
`--repeats N` all splitters take N turns and the best time counts, which helps on a busy machine. Peers are called through
their fastest interface; Ropeway does the work of a real run: see `chunking_splitters`. Ropeway is also timed on all kinds
together, in another process, because a run distributes units of 4 MiB and one kind has only a few. Then each chunk is encoded
again to count those over the budget, and compared with the text at its offset. A splitter is exact if no chunk is over the
budget and every offset is right. Ratios are against the fastest exact peer on the same text. Most peers keep one core busy:
CORES is CPU time of all processes and threads by wall time, MB/CPU s the rate of one core. FILL is the mean size of a chunk by
the budget, CRUMBS the share of chunks under a tenth of it, BLOCK and LINE the share of cuts at a blank line and at any line end,
WORD the share between two letters or digits. The last table shows Ropeway with one worker and with two.
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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.chunking_splitters import MAX_TOKENS, OURS, PEERS, SEGMENTERS, WORKERS, Pieces, ours

DEMO_TOKENIZER = Path(__file__).parent.parent / "tasks/model/demo_base/tokenizer.json"
FORMATS = {"code": "python", "docs": "markdown", "prose": "plain"}
ALL = "all"
Corpus = list[tuple[str, str]]  # texts with their formats
PACKAGES = ("langchain-text-splitters", "semchunk", "semantic-text-splitter", "chonkie", "tokenizers", "spacy")


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
    crumbs: int  # under a tenth of the budget
    num_cuts: int  # with the right offset
    at_block: int  # cuts at a blank line
    at_line: int  # cuts at a line end, blank or not
    in_word: int  # cuts between two letters or digits

    @property
    def rate(self) -> float:
        """Megabytes a second."""
        return self.num_bytes / 1e6 / self.seconds

    @property
    def rate_of_a_core(self) -> float:
        """Megabytes a second of CPU time."""
        return self.num_bytes / 1e6 / self.cpu_seconds

    @property
    def cores(self) -> float:
        """How many were busy, on average."""
        return self.cpu_seconds / self.seconds

    @property
    def is_exact(self) -> bool:
        return not self.over_budget and not self.wrong_offsets


def measure(name: str, tokenizer_file: str, corpora: dict[str, Corpus]) -> list[Result]:
    """One splitter on each corpus, by kind. Runs in a process of its own."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(tokenizer_file)
    results = []
    with {**PEERS, **OURS}[name][1](tokenizer_file) as split:
        for kind, corpus in corpora.items():
            texts = [text for text, _ in corpus]
            task = split(texts, [text_format for _, text_format in corpus])
            started, cpu_started = time.perf_counter(), _cpu_seconds()
            done = task.run()
            seconds, cpu_seconds = time.perf_counter() - started, _cpu_seconds() - cpu_started
            results.append(_checked(name, kind, seconds, cpu_seconds, texts, task.pieces(done), tokenizer))
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
    places: list[tuple[bool, bool, bool]] = []
    for text, pieces in zip(texts, found, strict=True):
        encodings = tokenizer.encode_batch_fast([chunk for _, chunk in pieces], add_special_tokens=False)
        lengths += [len(encoding.ids) for encoding in encodings]
        wrong += sum(start < 0 or not text.startswith(chunk, start) for start, chunk in pieces)
        tiles &= "".join(chunk for _, chunk in pieces) == text
        places += [_place(text, start) for start, chunk in pieces if 0 < start < len(text) and text.startswith(chunk, start)]
    num_bytes = sum(len(text.encode()) for text in texts)
    over = sum(n > MAX_TOKENS for n in lengths)
    return Result(
        name, kind, seconds, cpu_seconds, num_bytes, len(lengths), over, wrong, tiles, sum(lengths) / max(1, len(lengths)),
        sum(n < MAX_TOKENS / 10 for n in lengths), len(places), *(sum(of_kind) for of_kind in zip(*places, strict=True)),
    )  # fmt: skip


def _place(text: str, cut: int) -> tuple[bool, bool, bool]:
    """Whether a cut is at a blank line, at a line end, between two letters or digits."""
    start = end = cut
    while start and text[start - 1].isspace():
        start -= 1
    while end < len(text) and text[end].isspace():
        end += 1
    num_lines = text.count("\n", start, end)
    return num_lines > 1, num_lines > 0, text[cut - 1].isalnum() and text[cut].isalnum()


def measure_growth(tokenizer_file: str, texts: list[str]) -> dict[str, float]:
    """Time for one document of 4 MB as a multiple of that for one of 1 MB, for each segmenter: CPU time, the four
    quarters of the document right before it, median of five."""
    from tokenizers import Tokenizer

    from data_schemas.params import ChunkingParams
    from tasks.chunk.chunker import Chunker

    def cut(text: str) -> None:
        for encoded in chunker.encode([text]):
            chunker.spans(encoded, "plain")

    whole = "\n".join(texts).encode()[:4_000_000]
    quarters = [whole[i : i + 1_000_000].decode(errors="ignore") for i in range(0, len(whole), 1_000_000)]
    ratios = {}
    for segmenter in SEGMENTERS:
        params = ChunkingParams.model_validate({"max_tokens": MAX_TOKENS, "segmenter": segmenter})
        chunker = Chunker(Tokenizer.from_file(tokenizer_file), params)
        for quarter in quarters:
            cut(quarter)
        found = []
        for _ in range(5):
            started = time.process_time()
            for quarter in quarters:
                cut(quarter)
            between = time.process_time()
            cut("".join(quarters))
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
    """One line a splitter for all kinds together: as it was timed, else the sum of the kinds."""
    merged = []
    for name in dict.fromkeys(r.name for r in results):
        rows = [r for r in results if r.name == name]
        if together := next((r for r in rows if r.kind == ALL), None):
            merged.append(together)
            continue
        chunks = sum(r.num_chunks for r in rows)
        merged.append(
            Result(
                name, ALL, sum(r.seconds for r in rows), sum(r.cpu_seconds for r in rows),
                sum(r.num_bytes for r in rows), chunks,
                sum(r.over_budget for r in rows), sum(r.wrong_offsets for r in rows), all(r.tiles for r in rows),
                sum(r.mean_tokens * r.num_chunks for r in rows) / max(1, chunks), sum(r.crumbs for r in rows),
                sum(r.num_cuts for r in rows), sum(r.at_block for r in rows), sum(r.at_line for r in rows),
                sum(r.in_word for r in rows),
            )
        )  # fmt: skip
    return merged


def _best_peer(results: list[Result]) -> Result | None:
    return max((r for r in results if r.name in PEERS and r.is_exact), key=lambda r: r.rate, default=None)


def print_table(kind: str, results: list[Result]) -> dict[str, float]:
    """Prints one table and gives the ratios in it."""
    best = _best_peer(results)
    print(f"\n{kind}: {results[0].num_bytes / 1e6:.1f} MB, fastest exact peer: {best.name if best else 'none'}")
    print(f"{'splitter':<26} {'MB/s':>6} {'cores':>6} {'MB/CPU s':>9} {'chunks':>7} {'over':>5} "
          f"{'offsets':>8} {'tiles':>6} {'fill':>6} {'crumbs':>7} {'block':>6} {'line':>6} {'word':>6} {'ratio':>7}")  # fmt: skip
    ratios = {}
    for r in results:
        if best:
            ratios[r.name] = r.rate / best.rate
        ratio = f"{ratios[r.name]:.1f}x" if best else "-"
        offsets = "right" if not r.wrong_offsets else f"{r.wrong_offsets} bad"
        print(
            f"{r.name:<26} {r.rate:>6.2f} {r.cores:>6.1f} {r.rate_of_a_core:>9.2f} {r.num_chunks:>7} {r.over_budget:>5} "
            f"{offsets:>8} {'yes' if r.tiles else 'no':>6} {r.mean_tokens / MAX_TOKENS:>6.1%} {r.crumbs / r.num_chunks:>7.1%} "
            f"{r.at_block / (r.num_cuts or 1):>6.1%} {r.at_line / (r.num_cuts or 1):>6.1%} {r.in_word / (r.num_cuts or 1):>6.1%} {ratio:>7}"
        )
    return ratios


def print_by_workers(results: list[Result]) -> dict[str, dict[str, float]]:
    """Prints and gives what one worker and two are, of each segmenter, against the fastest exact peer on all text."""
    best = _best_peer(results)
    if best is None:
        return {}
    print(f"\nagainst {best.name} with {best.cores:.1f} cores busy, all text:")
    print(f"{'splitter':<26} {'cores':>6} {'ratio':>7}")
    by_name = {r.name: r for r in results}
    figures: dict[str, dict[str, float]] = {}
    for name in (ours(segmenter, n) for segmenter in SEGMENTERS for n in WORKERS):
        if r := by_name.get(name):
            figures[name] = {"cores": r.cores, "ratio": r.rate / best.rate}
            print(f"{name:<26} {r.cores:>6.1f} {f'{r.rate / best.rate:.1f}x':>7}")
    return figures


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
    corpora = {kind: [(text, FORMATS[kind]) for text in of_kind] for kind, of_kind in texts.items()}
    together = {ALL: [document for corpus in corpora.values() for document in corpus]}
    for _ in range(args.repeats):
        for name in splitters:
            for some in (corpora, together) if name in OURS else (corpora,):  # apart: workers remember words they have seen
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                    for result in alone.submit(measure, name, args.tokenizer, some).result():
                        key = (result.kind, name)
                        best[key] = min(best.get(key, result), result, key=lambda r: r.seconds)
    results = list(best.values())
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        longest = max(texts, key=lambda kind: (kind != "code", len(texts[kind])))
        growth = alone.submit(measure_growth, args.tokenizer, texts[longest]).result()
    ratios = {kind: print_table(kind, [r for r in results if r.kind == kind]) for kind in texts}
    merged = _all_kinds(results)
    ratios[ALL] = print_table(ALL, merged)
    print("\none document of 4 MB against one of 1 MB: " + ", ".join(f"{k} {v:.2f}x the time" for k, v in growth.items()))
    by_workers = print_by_workers(merged)
    if args.json:
        figures = {
            "repeats": args.repeats,
            "versions": {package: version(package) for package in PACKAGES},
            "results": [asdict(r) | {"megabytes_per_s": r.rate, "cores": r.cores, "is_exact": r.is_exact} for r in results],
            "ratios": ratios,
            "by_workers": by_workers,
            "growth_4_to_1_megabytes": growth,
        }
        Path(args.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
