"""An inspection of shards as tables on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.pack.inspection.figures import Bin, Inspection, LeftOut, SourceFigures, SplitFigures
from tasks.pack.inspection.samples import SampleRow

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_BAR_CHARACTERS = 24


def show(inspection: Inspection, console: Console) -> None:
    """Print everything that `inspect_shards` found."""
    from tasks.pack.inspection.prepared import ledger_table

    console.print(_overview(inspection))
    for split in inspection.splits:
        if split.num_rows:
            console.print(_lengths("Sequence lengths", split.split, split.histogram))
    console.print(_buckets(inspection.splits))
    console.print(_sources(inspection.sources))
    if inspection.ledger:
        console.print(ledger_table(inspection.ledger))
    else:
        _show_left_out(inspection, console)
    for sample in inspection.samples:
        console.print(_sample(sample))


def _overview(inspection: Inspection) -> Table:
    table = _table(f"Shards {inspection.digest}", "split", "shards", "rows", "row length", "sequences", "tokens", "waste")
    for s in inspection.splits:
        counts = (s.num_shards, s.num_rows, s.row_length, s.num_sequences, s.num_tokens)
        table.add_row(s.split, *(f"{count:,}" for count in counts), f"{s.waste:.3%}")
    return table


def _lengths(title: str, split: str, bins: tuple[Bin, ...]) -> Table:
    """Empty bins before the first sequence and after the last are left out."""
    from rich.text import Text

    table = _table(f"{title}, {split}", "up to (tokens)", "sequences", "tokens", "share of tokens")
    table.add_column("")
    filled = [place for place, b in enumerate(bins) if b.num_sequences]
    total = sum(b.num_tokens for b in bins)
    most = max((b.num_tokens for b in bins), default=0)
    for b in bins[filled[0] : filled[-1] + 1] if filled else ():
        bar = "█" * round(_BAR_CHARACTERS * b.num_tokens / most)
        values = (f"{b.upper_bound:,}", f"{b.num_sequences:,}", f"{b.num_tokens:,}", f"{b.num_tokens / total:.1%}")
        table.add_row(*values, Text(bar))
    return table


def _buckets(splits: tuple[SplitFigures, ...]) -> Table:
    table = _table(
        "Length buckets of documents, share of tokens; the last has all longer ones too",
        "up to (tokens)",
        *(split.split for split in splits),
    )
    for of_splits in zip(*(split.buckets for split in splits), strict=True):
        shares = [_share(b.num_tokens, s.num_tokens) for b, s in zip(of_splits, splits, strict=True)]
        table.add_row(f"{of_splits[0].upper_bound:,}", *shares)
    return table


def _sources(sources: tuple[SourceFigures, ...]) -> Table:
    """If a split's packed tokens are not recorded by source, its shares are those of its chunks, each packed once."""
    columns = ("source", "split", "docs", "chunks", "tokens", "packed", "share", "wanted", "repeats")
    table = _table("Sources", *columns)
    for f in sources:
        together = [other for other in sources if other.split == f.split]
        packed = f.num_packed_tokens
        share = (
            _share(f.num_tokens, sum(other.num_tokens for other in together))
            if packed is None
            else _share(packed, sum(other.num_packed_tokens or 0 for other in together))
        )
        table.add_row(
            *(_plain(f.source), f.split, f"{f.num_documents:,}", f"{f.num_chunks:,}", f"{f.num_tokens:,}"),
            "" if packed is None else f"{packed:,}",
            share,
            "" if f.wanted_share is None else f"{f.wanted_share:.1%}",
            "" if f.repeats is None else f"{f.repeats:.2f}",
        )
    return table


def _show_left_out(inspection: Inspection, console: Console) -> None:
    left_out = inspection.left_out
    if left_out is None:
        console.print(
            f"What was left out of the corpus is not known: the documents {inspection.documents_digest or 'of these shards'} "
            "are not in this storage.\n",
            markup=False,
        )
        return
    table = _table("Left out of the corpus", "why", "documents")
    for why, count in _reasons(left_out):
        table.add_row(_plain(why), f"{count:,}")
    table.add_section()
    table.add_row("kept", f"{left_out.num_documents:,}")
    console.print(table)


def _reasons(left_out: LeftOut) -> list[tuple[str, int]]:
    return [
        ("duplicate", left_out.num_duplicates),
        ("near-duplicate", left_out.num_near_duplicates),
        ("contains evaluated text", left_out.num_contaminated),
        *((f"skipped: {reason}", count) for reason, count in sorted(left_out.skipped.items())),
        *((f"quarantined: {reason}", count) for reason, count in sorted(left_out.quarantined.items())),
    ]


def _sample(sample: SampleRow) -> Table:
    title = f"Row {sample.row:,} of {sample.split}, {sample.num_tokens:,} tokens"
    table = _table(title, "tokens", left=("chunk", "begins", "ends"))
    for sequence in sample.sequences:
        table.add_row(f"{sequence.num_tokens:,}", *map(_plain, (sequence.chunk_id, sequence.begins, sequence.ends)))
    if sample.num_more:
        table.add_row("", f"and {sample.num_more:,} more")
    return table


def _table(title: str, *columns: str, left: tuple[str, ...] = ()) -> Table:
    """Columns of numbers, right-aligned except `source`, `split` and `why`; `left` names columns of text, which may wrap."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name in ("source", "split", "why") else "right", overflow="fold")
    for name in left:
        table.add_column(name, overflow="fold")
    return table


def _plain(text: str) -> str:
    """Text from a corpus, escaped so that nothing in it acts as markup."""
    from rich.markup import escape

    return escape(text)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""
