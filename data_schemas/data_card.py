"""The data card: what a model was trained on, from the manifest of the shards alone, for the shards' README and for a release.

Names are labels of sources; no path, URI or digest of a private file is in it, except in the text of the samples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from data_schemas.ledger import Ledger, ledger_of
from data_schemas.record import Record

CARD_PAGE, CARD_FILE = "data_card.md", "data_card.json"
_UNKNOWN = "not known"
_NUMERIC = ("documents", "bytes", "tokens", "packed tokens", "share", "tokens of answers", "questions")
_ESCAPED = str.maketrans({"|": "\\|", "<": "&lt;", ">": "&gt;", "\n": " ", "\r": " ", "`": "\\`", "*": "\\*", "_": "\\_"})


class CardGroup(Record):
    """Training documents with one source, licence and language; tokens without BOS and EOS."""

    source: str
    licence: str
    language: str
    documents: int
    bytes: int
    tokens: int


class CardLength(Record):
    """Training sequences of the documents of one length bucket; `tokens` are available, `packed_tokens` are in rows."""

    up_to: int
    tokens: int
    packed_tokens: int


class CardFamily(Record):
    """Packed retrieval documents of one kind; `answer_tokens` of their tokens are answers."""

    family: str
    documents: int
    tokens: int
    answer_tokens: int
    questions: int


class CardRetrieval(Record):
    """Retrieval documents: the share of the packed tokens that was wanted and reached, and the kinds."""

    wanted: float
    reached: float
    families: tuple[CardFamily, ...]


class CardInstructions(Record):
    """Packed conversations of instruction data; `answer_tokens` of their tokens are learned. `left_out` counts by reason."""

    conversations: int
    tokens: int
    share: float
    answer_tokens: int
    answers: int
    cut: int
    left_out: dict[str, int]
    full_attention: bool


class CardSample(Record):
    """How a training document begins."""

    source: str
    text: str


class DataCard(Record):
    """Everything on the card. `lengths` ascend; the last also has all documents longer than its bound.

    `earlier_stages`: the training stages before the one whose rows these are, in words; None for a model trained in one stage.
    """

    schema_version: Literal[1] = 1
    row_length: int
    num_rows: int
    num_tokens: int
    waste: float
    num_heldout_rows: int
    num_heldout_tokens: int
    groups: tuple[CardGroup, ...]
    lengths: tuple[CardLength, ...]
    ledger: Ledger
    warnings: tuple[str, ...]
    samples: tuple[CardSample, ...]
    retrieval: CardRetrieval | None = None
    instructions: CardInstructions | None = None
    earlier_stages: str | None = None

    def markdown(self) -> str:
        """The card as a page."""
        return "\n\n".join(self._sections()) + "\n"

    def _sections(self) -> Iterable[str]:
        yield (
            f"# Data card\n\n{self.num_rows:,} training rows of up to {self.row_length:,} tokens hold {self.num_tokens:,} tokens; "
            f"{self.waste:.2%} of their places are empty. {self.num_heldout_rows:,} held-out rows with {self.num_heldout_tokens:,} "
            "tokens are for evaluation alone."
        )
        if self.earlier_stages:
            yield (
                "All figures here are about the rows of the last training stage alone. The model was first trained in other "
                f"stages: {self.earlier_stages}. `provenance.json` names the rows of each stage."
            )
        for title, field in (("Sources", "source"), ("Licences", "licence"), ("Languages", "language")):
            yield f"## {title}\n\n{self._by(field)}"
        rows = [(f"{length.up_to:,}", length.tokens, length.packed_tokens) for length in self.lengths]
        if rows:
            rows[-1] = (f"{rows[-1][0]} and longer", *rows[-1][1:])
        yield f"## Lengths of documents\n\n{_table(('up to (tokens)', 'tokens', 'packed tokens'), rows)}"
        if self.retrieval:
            yield f"## Retrieval documents\n\n{self._of_retrieval(self.retrieval)}"
        if self.instructions:
            yield f"## Instruction data\n\n{_of_instructions(self.instructions)}"
        columns = ("source", "step", "documents", "bytes", "tokens")
        lines = [(*row[:4], "" if row[4] is None else row[4]) for row in self.ledger.table()]
        yield f"## What was left out\n\n{_table(columns, lines)}"
        for warning in self.warnings:
            yield f"Warning: {warning}"
        if self.samples:
            samples = [(sample.source, sample.text) for sample in self.samples]
            yield f"## How some documents begin\n\n{_table(('source', 'text'), samples)}"

    def _of_retrieval(self, retrieval: CardRetrieval) -> str:
        total = max(1, self.num_tokens)
        rows = [
            (f.family, f.documents, f.tokens, f"{f.tokens / total:.1%}", f.answer_tokens, f.questions)
            for f in retrieval.families
        ]
        columns = ("kind", "documents", "tokens", "share", "tokens of answers", "questions")
        return (
            f"{retrieval.reached:.1%} of the packed tokens ({retrieval.wanted:.1%} were asked for) are documents made from the training "
            f"documents, whose answers stand far back in the same document.\n\n{_table(columns, rows)}"
        )

    def _by(self, field: str) -> str:
        sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for group in self.groups:
            of_name = sums[getattr(group, field) or _UNKNOWN]
            for place, value in enumerate((group.documents, group.bytes, group.tokens)):
                of_name[place] += value
        ordered = sorted(sums.items(), key=lambda item: (-item[1][2], item[0]))
        return _table((field, "documents", "bytes", "tokens"), [(name, *values) for name, values in ordered])


def data_card(row_length: int, summary: Mapping[str, Any], earlier_stages: str | None = None) -> DataCard | None:
    """The card of shards with this summary in their manifest; None for shards of an older version, which lack its figures.

    `earlier_stages`: see `DataCard`.
    """
    ledger = ledger_of(summary)
    if ledger is None or "composition" not in summary:
        return None
    lengths: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for bucket in summary["buckets"]:
        lengths[bucket["upper_bound"]][0] += bucket["num_tokens"]
        lengths[bucket["upper_bound"]][1] += bucket["num_used_tokens"]
    copied = ("num_rows", "num_tokens", "waste", "num_heldout_rows", "num_heldout_tokens")
    return DataCard(
        row_length=row_length,
        **{name: summary[name] for name in copied},
        groups=tuple(CardGroup(**group) for group in summary["composition"]),
        lengths=tuple(CardLength(up_to=n, tokens=a, packed_tokens=b) for n, (a, b) in sorted(lengths.items())),
        ledger=ledger,
        warnings=tuple(summary["warnings"]),
        samples=tuple(CardSample(**sample) for sample in summary["samples"]),
        retrieval=_retrieval(summary["retrieval"]) if "retrieval" in summary else None,
        instructions=_instructions(summary["instructions"]) if "instructions" in summary else None,
        earlier_stages=earlier_stages,
    )


def _instructions(told: Mapping[str, Any]) -> CardInstructions:
    return CardInstructions(**{name: told[name] for name in CardInstructions.model_fields})


def _of_instructions(told: CardInstructions) -> str:
    left_out = ", ".join(f"{number:,} {reason}" for reason, number in told.left_out.items()) or "none"
    return (
        f"{told.share:.1%} of the packed tokens are {told.conversations:,} conversations with {told.answers:,} answers. Training learns "
        f"the answers alone: {told.answer_tokens:,} of {told.tokens:,} tokens. Documents were cut in {told.cut:,} conversations. Left "
        f"out: {left_out}."
    )


def _retrieval(told: Mapping[str, Any]) -> CardRetrieval:
    families = tuple(CardFamily(**of_family) for of_family in told["families"])
    return CardRetrieval(wanted=told["wanted"], reached=told["reached"], families=families)


def hub_page(card: DataCard) -> str:
    """The card as README.md of a data set: its front matter says which files `datasets.load_dataset` reads."""
    languages = sorted({group.language for group in card.groups if len(group.language) == 2})
    matter = ["---", *(["language:", *(f"- '{language}'" for language in languages)] if languages else [])]
    matter += ["tags:", "- ropeway", "- long-context", "configs:", "- config_name: default", "  data_files:"]
    for split, files in (("train", "data-*.arrow"), ("heldout", "heldout/data-*.arrow")):
        matter += [f"  - split: {split}", f"    path: {files}"]
    return "\n".join([*matter, "---", "", card.markdown()])


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    numeric = [name in _NUMERIC for name in columns]
    rule = ["---:" if is_number else "---" for is_number in numeric]
    cells = [[f"{value:,}" if isinstance(value, int) else str(value).translate(_ESCAPED) for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (list(columns), rule, *cells))
