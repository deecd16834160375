"""`python -m benchmarks.prepare`: the data stage on Ray Data, as a user submits it: memory by corpus size, speed by workers.

Each run is `python -m ray_jobs.prepare` in its own process on a generated corpus, with a budget of 512 tokens, so that
nearly every document has to be cut. The corpus is text of an order-1 Markov chain over the words and line ends of the
standard library's documentation strings and comments: natural word and line lengths, no two documents alike.
Memory is the peak over the run of the sum of PSS (shared pages counted once) of all its processes, Ray's own included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

DOCUMENT_WORDS = 4_000
_CHAINS = 2_048


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prepare", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 500], help="corpus sizes in MB, for memory")
    parser.add_argument("--speed-size", type=int, default=500, help="corpus size in MB, for 1 and 2 workers")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"machine": f"{platform.machine()}, {os.cpu_count()} CPUs", "memory": [], "speed": []}
    with tempfile.TemporaryDirectory(prefix="ropeway-bench-") as folder:
        home = Path(folder)
        for size in arguments.sizes:
            corpus = make_corpus(home / f"corpus-{size}", size)
            figures["memory"].append(measure(corpus, home / f"storage-{size}", size, num_workers=2))
            tell(figures["memory"][-1])
        corpus = make_corpus(home / f"corpus-{arguments.speed_size}", arguments.speed_size)
        for num_workers in (1, 2):
            storage = home / f"storage-speed-{num_workers}"
            figures["speed"].append(measure(corpus, storage, arguments.speed_size, num_workers))
            tell(figures["speed"][-1])
    report(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def tell(figure: dict[str, Any]) -> None:
    print(json.dumps(figure), file=sys.stderr, flush=True)


def make_corpus(folder: Path, megabytes: int) -> Path:
    """Files of about 2 MB with one document a JSON line; made once a size."""
    if folder.exists():
        return folder
    folder.mkdir()
    written = 0
    lines: list[str] = []
    for number, text in enumerate(markov_documents(seed=megabytes)):
        lines.append(json.dumps({"text": text, "work": f"work-{number}"}))
        written += len(text)
        if len(lines) == 80 or written >= megabytes * 1e6:
            (folder / f"{number:07d}.jsonl").write_text("\n".join(lines) + "\n")
            lines = []
        if written >= megabytes * 1e6:
            break
    return folder


def markov_documents(seed: int) -> Iterator[str]:
    """Documents of DOCUMENT_WORDS words, without end."""
    source = Path(sysconfig.get_paths()["stdlib"])
    prose = re.compile(r'"""(.*?)"""|# (.*)', re.DOTALL)
    texts = (path.read_text(errors="ignore") for path in sorted(source.glob("*.py")))
    words = re.findall(r"\S+|\n\n|\n", "\n".join(m[1] or m[2] or "" for text in texts for m in prose.finditer(text)))
    vocabulary, ids = np.unique(np.array(words), return_inverse=True)
    followers = np.argsort(ids[:-1], kind="stable") + 1  # places behind each word, grouped by word
    starts = np.searchsorted(ids[followers - 1], np.arange(len(vocabulary) + 1))
    starts[-1] = len(followers)
    draw = np.random.default_rng(seed)
    spaced = [word if word.isspace() else f"{word} " for word in vocabulary.tolist()]
    state = ids[draw.integers(0, len(ids) - 1, _CHAINS)]
    while True:
        steps = np.empty((DOCUMENT_WORDS, _CHAINS), np.int64)
        for step in range(DOCUMENT_WORDS):
            count = np.maximum(starts[state + 1] - starts[state], 1)
            place = np.minimum(starts[state] + draw.integers(0, count), len(followers) - 1)
            state = ids[followers[place]]
            steps[step] = state
        for chain in range(_CHAINS):
            yield "".join([spaced[i] for i in steps[:, chain].tolist()])


def measure(corpus: Path, storage: Path, megabytes: int, num_workers: int) -> dict[str, Any]:
    """Run the job; seconds, MB/s, peak memory and a digest of the shards."""
    params = {
        "run_name": "bench",
        "storage": str(storage),
        "corpus": {"sources": [str(corpus)], "heldout_fraction": 0.05},
        "chunking": {"max_tokens": 512},
        "packing": {"shard_megabytes": 64},
        "model": {"base": "demo", "target_length": 2048},
        "ray": {"data_workers": num_workers},
    }
    started = time.perf_counter()
    job = subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.prepare", "--params", json.dumps(params)], stdout=subprocess.PIPE, text=True
    )
    peak = PeakMemory(job.pid)
    output, _ = job.communicate()
    seconds = time.perf_counter() - started
    memory = peak.stop()
    if job.returncode:
        raise SystemExit(f"the job failed with status {job.returncode}")
    shards = Path(output.strip().splitlines()[-1])
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(shards.glob("data-*.arrow")))).hexdigest()[:16]
    return {
        "corpus_mb": megabytes,
        "num_workers": num_workers,
        "seconds": round(seconds, 1),
        "mb_per_s": round(megabytes / seconds, 2),
        "peak_mb": round(memory["all"] / 1e6),
        "peak_of_one_process_mb": round(memory["largest"] / 1e6),
        "shards": digest,
    }


class PeakMemory:
    """Samples the memory of a process and all its descendants until stopped."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = {"all": 0, "largest": 0}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        import psutil

        while not self._stopped.wait(0.5):
            sizes = []
            try:
                process = psutil.Process(self._pid)
                for each in (process, *process.children(recursive=True)):
                    try:
                        sizes.append(each.memory_full_info().pss)
                    except psutil.Error:
                        continue
            except psutil.Error:
                continue
            if sizes:
                self._peak["all"] = max(self._peak["all"], sum(sizes))
                self._peak["largest"] = max(self._peak["largest"], *sizes, 0)

    def stop(self) -> dict[str, int]:
        self._stopped.set()
        self._thread.join()
        return self._peak


def report(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    memory = Table("corpus", "peak of all", "largest process", "seconds", "ratio", title="Peak memory, 2 workers")
    base = figures["memory"][0]["peak_mb"] if figures["memory"] else 1
    for row in figures["memory"]:
        cells = (f"{row['corpus_mb']} MB", f"{row['peak_mb']:,} MB", f"{row['peak_of_one_process_mb']:,} MB")
        memory.add_row(*cells, f"{row['seconds']}", f"{row['peak_mb'] / base:.2f}x")
    speed = Table("workers", "seconds", "MB/s", "same shards", "ratio", title="Speed, Ray's start included")
    first = figures["speed"][0]
    for row in figures["speed"]:
        same = "yes" if row["shards"] == first["shards"] else "NO"
        cells = (str(row["num_workers"]), f"{row['seconds']}", f"{row['mb_per_s']}", same)
        speed.add_row(*cells, f"{first['seconds'] / row['seconds']:.1f}x")
    for table in (memory, speed):
        Console(width=100).print(table)


if __name__ == "__main__":
    main()
