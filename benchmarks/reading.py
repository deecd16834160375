"""`python -m benchmarks.reading [--json FILE]`: packed rows read in random order, beside `datasets` and litdata, in one run.

The same rows are stored in each library's format on one local disk; Ropeway and `datasets` read the same files. Start-up is the
time from opening to the first row; resume is the time from opening to the row in the middle of a shuffled epoch. Both are
measured in a fresh process that has imported the library. Seconds are processor seconds, which a busy machine changes little,
and the fewest of `--repeats` processes. Each row's tokens are summed, so that lazy reads are counted too.
litdata resumes in the order of one loader without workers, because its order depends on their number.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

Row = dict[str, Any]
Opened = tuple[Callable[[int], Row], Callable[[], Row]]  # reads a row; goes on in the middle of an epoch
SEED = 3
STATE = "half-epoch.json"


def row_content(number: int, row_length: int) -> dict[str, np.ndarray]:
    """A row of a few documents, the same for every library."""
    rng = np.random.default_rng(number)
    cuts = np.sort(rng.choice(np.arange(1, row_length), 7, replace=False))
    lengths = np.diff(np.concatenate([[0], cuts, [row_length]]))
    return {
        "input_ids": rng.integers(0, 50_000, row_length, dtype=np.int32),
        "seq_lengths": lengths.astype(np.int32),
    }


def write_ropeway(folder: Path, num_rows: int, row_length: int) -> None:
    from data_schemas.manifest import hash_file
    from data_schemas.parts import Parts
    from tasks.pack.sequences import SequenceReader, SequenceWriter
    from tasks.pack.shards import shard_name, write_dataset_files, write_shard

    parts = Parts(str(folder / "parts"))
    with SequenceWriter(parts, 0) as writer:
        for number in range(num_rows):
            row = row_content(number, row_length)
            ends = np.cumsum(row["seq_lengths"])
            for index, tokens in enumerate(np.split(row["input_ids"], ends[:-1])):
                writer.append("train", f"{number:032x}", index, 0, tokens, 4 * len(tokens), len(tokens))
    rows = np.arange(8 * num_rows).reshape(num_rows, 8)
    spans = np.array_split(rows, max(1, num_rows * row_length * 4 // 256_000_000))
    names = [shard_name(i, len(spans)) for i in range(len(spans))]
    for name, span in zip(names, spans, strict=True):
        write_shard(folder / name, list(span), SequenceReader(parts, 1, "train"))
    write_dataset_files(folder, names, [hash_file(folder / name) for name in names], "train")


def write_litdata(folder: Path, num_rows: int, row_length: int) -> None:
    """The rows, and the state of a loader that has read half an epoch."""
    import litdata

    litdata.optimize(
        LitdataRow(row_length), list(range(num_rows)), output_dir=str(folder), chunk_bytes="64MB", num_workers=1, verbose=False
    )
    loader = litdata_loader(folder)
    for _ in islice(loader, num_rows // 2):
        pass
    (folder / STATE).write_text(json.dumps(loader.state_dict()))


def litdata_loader(folder: Path) -> Any:
    import litdata

    return litdata.StreamingDataLoader(
        litdata.StreamingDataset(str(folder), shuffle=True, seed=SEED), batch_size=1, num_workers=0
    )


class LitdataRow:
    """litdata sends the function that makes a row to a process of its own."""

    def __init__(self, row_length: int) -> None:
        self.row_length = row_length

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        return row_content(number, self.row_length)


def open_ropeway(folder: Path) -> Opened:
    from tasks.pack.reading import open_rows, sample_order

    rows = open_rows(folder)
    return rows.row, lambda: rows.row(int(sample_order(len(rows), SEED, 0)[len(rows) // 2]))


def open_datasets(kind: str, folder: Path) -> Opened:
    import datasets

    rows = datasets.load_from_disk(str(folder)).select_columns(["input_ids", "seq_lengths"]).with_format(kind)
    return rows.__getitem__, lambda: rows[int(np.random.default_rng(SEED).permutation(len(rows))[len(rows) // 2])]


def open_litdata(folder: Path) -> Opened:
    import litdata

    def resume() -> Row:
        loader = litdata_loader(folder)
        loader.load_state_dict(json.loads((folder / STATE).read_text()))
        return next(iter(loader))

    return litdata.StreamingDataset(str(folder), shuffle=False).__getitem__, resume


LIBRARIES: dict[str, tuple[str, str, Callable[[Path], Opened]]] = {  # what is imported before, folder, and how it is opened
    "ropeway": ("tasks.pack.reading", "arrow", open_ropeway),
    "datasets, numpy": ("datasets", "arrow", partial(open_datasets, "numpy")),
    "datasets, torch": ("datasets", "arrow", partial(open_datasets, "torch")),
    "litdata": ("litdata", "litdata", open_litdata),
}


def measure(library: str, folder: Path, num_rows: int, num_reads: int, row_length: int) -> dict[str, float]:
    """Start-up and resume in seconds, and random rows a second, in this process."""
    module, name, opens = LIBRARIES[library]
    importlib.import_module(module)
    if library.endswith("torch"):
        importlib.import_module("torch")
    started = time.process_time()
    read, _ = opens(folder / name)
    first = read(num_rows // 3)
    start_up_s = time.process_time() - started
    expected = row_content(num_rows // 3, row_length)
    assert all(np.array_equal(first[column], expected[column]) for column in expected), f"{library} read another row"
    order = np.random.default_rng(SEED).integers(0, num_rows, num_reads).tolist()
    started = time.process_time()
    for number in order:
        read(number)["input_ids"].sum()  # touches every token, also where reading is lazy
    reading_s = time.process_time() - started
    started = time.process_time()
    opens(folder / name)[1]()
    return {"start_up_s": start_up_s, "rows_per_s": num_reads / reading_s, "resume_s": time.process_time() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--row-length", type=int, default=4096)
    parser.add_argument("--reads", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--measure", nargs=2, metavar=("LIBRARY", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], Path(args.measure[1]), args.rows, args.reads, args.row_length)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, write in (("arrow", write_ropeway), ("litdata", write_litdata)):
            (Path(folder) / name).mkdir()
            write(Path(folder) / name, args.rows, args.row_length)
        results = {library: best(library, folder, args) for library in LIBRARIES}
    ours = results["ropeway"]
    print(f"{args.rows:,} rows of {args.row_length:,} tokens, {args.reads:,} reads; ratio: rows/s of ropeway against it")
    print(f"{'library':<16} {'start-up (ms)':>14} {'resume (ms)':>12} {'rows/s':>10} {'ratio':>8}")
    for library, r in results.items():
        ratio = ours["rows_per_s"] / r["rows_per_s"]
        print(
            f"{library:<16} {1000 * r['start_up_s']:>14.2f} {1000 * r['resume_s']:>12.2f} {r['rows_per_s']:>10,.0f} {ratio:>7.1f}x"
        )
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"rows": args.rows, "row_length": args.row_length, "libraries": results}, file, indent=1)


def best(library: str, folder: str, args: argparse.Namespace) -> dict[str, float]:
    """The best of each figure over some fresh processes."""
    command = [sys.executable, "-m", "benchmarks.reading", "--measure", library, folder]
    for name in ("rows", "row_length", "reads"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    runs = []
    for _ in range(args.repeats):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return {key: (max if key == "rows_per_s" else min)(run[key] for run in runs) for key in runs[0]}


if __name__ == "__main__":
    main()
