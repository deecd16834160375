"""`python -m benchmarks.packing [--json FILE]`: a million documents into rows, beside TRL's packing, in one run on one core.

Documents are log-normal in length, and some are longer than a row. Ropeway's chunker cuts those before they are packed, here at
the row length; TRL gets them uncut. First table: Ropeway's plan alone, at common row lengths. Second table: the plan, and the
tokens assembled row by row. TRL's `pack_dataset` does both at once, from memory to memory, here with tokens of one byte;
Ropeway reads its four-byte tokens from the files that chunking writes, as it does when it writes shards. Seconds are
processor seconds, the fewest of `--repeats`. Compiling, which happens once per installation, is reported separately.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_schemas.params import PackingParams
from data_schemas.parts import Parts
from tasks.pack.packer import plan_rows
from tasks.pack.sequences import SequenceReader, SequenceWriter, read_entries


@dataclass(frozen=True)
class Packed:
    """One method's result; `plan_s` is None where it cannot be told apart."""

    method: str
    plan_s: float | None
    seconds: float
    num_rows: int
    num_tokens: int
    lost_tokens: int
    waste: float


def documents(number: int, row_length: int) -> pa.ListArray:
    """list<int8> [number], lengths log-normal with a median of a sixth of a row, about one in twenty longer than a row."""
    lengths = np.maximum(1, np.random.default_rng(0).lognormal(np.log(row_length / 6), 1.1, number).astype(np.int64))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.zeros(offsets[-1], np.int8)))


def cut(texts: pa.ListArray, row_length: int) -> pa.ListArray:
    """The documents in pieces of at most `row_length`."""
    offsets = texts.offsets.to_numpy().astype(np.int64)
    starts, lengths = offsets[:-1], np.diff(offsets)
    pieces = -(-lengths // row_length)
    number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    new = np.repeat(starts, pieces) + number * row_length
    return pa.ListArray.from_arrays(pa.array(np.append(new, offsets[-1]), pa.int32()), texts.values)


def write_sequences(texts: pa.ListArray, row_length: int, folder: Path) -> Parts:
    """The files that chunking writes: the documents in pieces that fit a row, in one part."""
    parts = Parts(str(folder))
    offsets = cut(texts, row_length).offsets.to_numpy()
    values = np.asarray(texts.values, np.int32)
    with SequenceWriter(parts, 0) as writer:
        for i, (start, end) in enumerate(pairwise(offsets.tolist())):
            writer.append("train", f"{i:032x}", 0, 0, values[start:end], 4 * (end - start), end - start)
    return parts


def ropeway(name: str, parts: Parts, row_length: int, window: int) -> Packed:
    lengths = read_entries(parts, 1, "train").lengths
    started = time.process_time()
    plan = plan_rows(lengths, row_length, PackingParams(window_chunks=window))
    planned = time.process_time()
    reader = SequenceReader(parts, 1, "train")
    num_tokens = 0
    for start in range(0, len(plan.members), 100_000):
        num_tokens += len(reader.read(reader.locate(plan.members[start : start + 100_000])))
    seconds = time.process_time() - started
    there = int(lengths.sum())
    return Packed(name, planned - started, seconds, plan.num_rows, there, there - num_tokens, plan.waste)


def trl(name: str, texts: pa.ListArray, row_length: int, strategy: str, batch: int) -> Packed:
    import datasets
    from trl import pack_dataset

    datasets.disable_progress_bars()
    dataset = datasets.Dataset(pa.table({"input_ids": texts}))
    map_kwargs = {"batch_size": batch, "keep_in_memory": True, "new_fingerprint": name.replace(" ", "-")}
    started = time.process_time()
    packed = pack_dataset(dataset, row_length, strategy, map_kwargs)
    seconds = time.process_time() - started
    lengths = pc.list_value_length(packed.data.column("input_ids")).to_numpy()
    there, left = len(texts.values), int(lengths.sum())
    return Packed(name, None, seconds, len(lengths), there, there - left, 1 - left / (len(lengths) * row_length))


def plan_alone(number: int, row_length: int, window: int, repeats: int) -> dict[str, float]:
    """Fastest seconds and waste of a plan for `number` realistic lengths, none above the row length."""
    lengths = np.clip(np.random.default_rng(1).lognormal(6.8, 1.3, number).astype(np.int64), 1, row_length)
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        plan = plan_rows(lengths, row_length, PackingParams(window_chunks=window))
        seconds.append(time.process_time() - started)
    return {"row_length": row_length, "seconds": min(seconds), "waste": plan.waste, "num_rows": plan.num_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--row-length", type=int, default=512, help="of the rows that are compared with TRL's")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--window", type=int, default=200_000, help="sequences that Ropeway packs together in the windowed run")
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})  # one core for all
    texts, length = documents(args.documents, args.row_length), args.row_length
    started = time.process_time()
    plan_rows(np.array([1]), length, PackingParams())
    first_call_s = time.process_time() - started
    with tempfile.TemporaryDirectory() as folder:
        parts = write_sequences(texts, length, Path(folder))
        methods: list[Callable[[], Packed]] = [
            lambda: ropeway("ropeway, whole", parts, length, args.documents * 100),
            lambda: ropeway(f"ropeway, windows of {args.window:,}", parts, length, args.window),
            lambda: ropeway("ropeway, windows of 10,000", parts, length, 10_000),
            lambda: trl("trl bfd, whole", texts, length, "bfd", args.documents),
            lambda: trl("trl bfd, batches of 1,000 (its default)", texts, length, "bfd", 1000),
            lambda: trl("trl bfd_split, whole", texts, length, "bfd_split", args.documents),
            lambda: trl("trl wrapped, whole (cuts at every row's end)", texts, length, "wrapped", args.documents),
        ]
        results = [min((method() for _ in range(args.repeats)), key=lambda r: r.seconds) for method in methods]
    plans = [plan_alone(args.documents, n, args.window, args.repeats) for n in (2048, 8192, 32_768, 131_072)]
    report(args, plans, results, first_call_s)


def report(args: argparse.Namespace, plans: list[dict[str, float]], results: list[Packed], first_call_s: float) -> None:
    """Print both tables, and write the figures where they are wanted."""
    base = results[1]
    print(
        f"{args.documents:,} documents on one core; first call, with compiling or reading numba's cache: {first_call_s:.1f} s"
    )
    print(f"\nropeway, windows of {args.window:,}\n{'row length':>10} {'plan (s)':>9} {'rows':>9} {'waste':>9}")
    for plan in plans:
        print(f"{plan['row_length']:>10,} {plan['seconds']:>9.2f} {plan['num_rows']:>9,} {plan['waste']:>9.4%}")
    print(f"\n{base.num_tokens:,} tokens into rows of {args.row_length:,}; ratio: seconds against {base.method}")
    print(f"{'method':<45} {'seconds':>8} {'of it plan':>10} {'rows':>9} {'waste':>9} {'tokens lost':>12} {'ratio':>7}")
    for r in results:
        plan_s = f"{r.plan_s:.2f}" if r.plan_s is not None else ""
        print(
            f"{r.method:<45} {r.seconds:>8.2f} {plan_s:>10} {r.num_rows:>9,} {r.waste:>9.4%} {r.lost_tokens:>12,} "
            f"{r.seconds / base.seconds:>6.1f}x"
        )
    if args.json:
        with open(args.json, "w") as file:
            figures = {"documents": args.documents, "row_length": args.row_length, "first_call_s": first_call_s, "plans": plans}
            json.dump(figures | {"methods": [asdict(r) for r in results]}, file, indent=1)


if __name__ == "__main__":
    main()
