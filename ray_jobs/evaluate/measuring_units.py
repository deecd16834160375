"""Units of measuring: an arm on some documents or samples at one length. Units cost about the same; each writes a file of rows.

Units depend on the workload alone, not on the number of workers. So batches, and with them the last digits of every row, are the
same for one worker and for many, and after a kill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.parts import Parts
from data_schemas.samples import QUANTISED_ARM, is_served_arm
from ray_jobs.evaluate.arms import ArmModel, loaded_model
from ray_jobs.evaluate.key_tokens import TextSpans, forget_evaluator
from ray_jobs.evaluate.measure import longppl_rows, perplexity_rows, position_rows, protocol_rows, task_rows
from ray_jobs.evaluate.published_work import LONGPPL, PublishedTexts
from ray_jobs.evaluate.workload import KeptWorkload, Prompts, PromptsOf, Workload, by_sample
from tasks.evaluate.perplexity import TargetDocument
from tasks.evaluate.sample_set import SCHEMAS, Samples

# A unit's windows, in forward passes of `batch_tokens`: few, so that a killed run loses little, but enough to pay for the start.
PASSES_A_UNIT = 4

Tables = dict[str, pa.Table]
Kind = Literal["perplexity", "position", "protocol", "task", "reorder"]


@dataclass(frozen=True)
class Unit:
    """Items first..last-1, which are documents, or samples of task `name`, measured on one arm at one length.

    `kind` position gives perplexity rows as well. `window_lengths` are the tokens of the windows that are scored, for
    estimates; `num_samples` counts rows, several of one document's positions as one. Units are measured in the order of their
    `number`, and their rows are written in that of `row`.
    """

    number: int
    arm: str
    kind: Kind
    name: str
    length: int
    first: int
    last: int
    num_samples: int
    window_lengths: tuple[int, ...]
    row: int = 0


class Source(Protocol):
    """Gives a unit's documents and prompts: a workload, or one kept among the parts."""

    @property
    def documents(self) -> tuple[TargetDocument, ...]: ...

    @property
    def prompts_of(self) -> PromptsOf: ...

    @property
    def published(self) -> PublishedTexts: ...

    @property
    def key_spans(self) -> TextSpans: ...


def plan_units(workload: Workload, arms: Sequence[str], batch_tokens: int, base_window: int | None = None) -> list[Unit]:
    """All units, arm by arm, so that a model is loaded rarely. Within an arm the longest come first, and in the rows last.

    Arms as they are served are measured up to `base_window` tokens: beyond it they are the same as without. Of the arm with quantised
    weights, only perplexity is measured.
    """
    drafts = [
        (kind, name, length, first, items)
        for length in workload.all_lengths
        for kind, name, all_items in _pieces(workload, length)
        for first, items in _cut(all_items, PASSES_A_UNIT * batch_tokens)
    ]
    planned = [(arm, draft) for arm in arms for draft in drafts if _is_measured(arm, draft[0], draft[2], base_window)]
    in_rows = [
        Unit(
            number=0,
            arm=arm,
            kind=kind,
            name=name,
            length=length,
            first=first,
            last=first + len(items),
            num_samples=sum(item.num_samples for item in items),
            window_lengths=tuple(tokens for item in items for tokens in item.window_lengths),
        )
        for arm, (kind, name, length, first, items) in planned
    ]
    return longest_first(in_rows)


def _is_measured(arm: str, kind: Kind, length: int, base_window: int | None) -> bool:
    if arm == QUANTISED_ARM:
        return kind in ("perplexity", "position")
    return not (is_served_arm(arm) and base_window and length > base_window)


def longest_first(units: Sequence[Unit], first_number: int = 0) -> list[Unit]:
    """Units given in the order of their rows, numbered as they are measured: arm by arm, the most expensive ones first.

    So several workers finish an arm at about the same time, and a length that does not fit into memory fails early.
    """
    arms = list(dict.fromkeys(unit.arm for unit in units))
    with_rows = [replace(unit, row=row) for row, unit in enumerate(units)]
    ordered = sorted(with_rows, key=lambda unit: (arms.index(unit.arm), -unit.length, -sum(unit.window_lengths)))
    return [replace(unit, number=number) for number, unit in enumerate(ordered, start=first_number)]


@dataclass(frozen=True)
class _Item:
    """A document or a sample; no unit splits it."""

    num_samples: int
    window_lengths: tuple[int, ...]


def _pieces(workload: Workload, length: int) -> Iterator[tuple[Kind, str, list[_Item]]]:
    """The items to measure at one length, by kind and name."""
    if length in workload.lengths:
        whole_windows = workload.position_curve and length == max(workload.lengths)
        yield ("position" if whole_windows else "perplexity"), "", [_Item(1, (length,))] * len(workload.documents)
        for name in workload.perplexities:
            yield "protocol", name, _protocol_items(workload.published, name, length)
    for task, task_length in workload.prompts:
        if task_length == length:
            yield "task", task, [_sample_item(group) for group in by_sample(workload.prompts_of(task, length))]


def _protocol_items(texts: PublishedTexts, name: Any, length: int) -> list[_Item]:
    """A published perplexity's texts."""
    if name == LONGPPL:
        return [_Item(1, (len(text.token_ids),)) for text in texts.of_longppl(length)]
    return [_Item(len(ws), tuple(len(w.tokens) for w in ws)) for ws in texts.windows(name, length)]


def _sample_item(group: Sequence[Any]) -> _Item:
    windows = [len(p.tokens) + (len(p.answer) if p.is_forced else max(len(p.answer), p.max_new_tokens)) for p in group]
    controls = {
        (p.control.tobytes(), p.answer.tobytes()): len(p.control) + len(p.answer) for p in group if p.control is not None
    }
    windows += controls.values()
    return _Item(len(group), tuple(windows))


def _cut(items: Sequence[_Item], most_tokens: int) -> Iterator[tuple[int, list[_Item]]]:
    """(index of the first, items) of runs of at most `most_tokens` tokens, or of a single larger item."""
    first, run, tokens = 0, list[_Item](), 0
    for index, item in enumerate(items):
        of_item = sum(item.window_lengths)
        if run and tokens + of_item > most_tokens:
            yield first, run
            first, run, tokens = index, [], 0
        run.append(item)
        tokens += of_item
    if run:
        yield first, run


def measure_unit(model: Any, unit: Unit, source: Source | Workload, tokenizer: Any, batch_tokens: int) -> Tables:
    """The unit's rows, by kind. UserError if the model's log-probabilities are not finite."""
    rows: dict[str, list[dict[str, Any]]] = {}
    if unit.kind == "task":
        prompts = _samples(source.prompts_of(unit.name, unit.length), unit.first, unit.last)
        rows["task"] = task_rows(model, unit.arm, prompts, tokenizer, batch_tokens)
    else:
        documents = source.documents[unit.first : unit.last]
        if unit.kind == "perplexity":
            rows["perplexity"] = perplexity_rows(model, unit.arm, documents, unit.length, batch_tokens)
        elif unit.kind == "position":
            rows["perplexity"], rows["position"] = position_rows(model, unit.arm, documents, unit.length)
        elif unit.name == LONGPPL:
            texts = source.published.of_longppl(unit.length)[unit.first : unit.last]
            spans = source.key_spans[unit.length][unit.first : unit.last]
            rows["protocol"] = longppl_rows(model, unit.arm, texts, spans, unit.length, tokenizer)
        else:
            protocol: Any = unit.name
            of_texts = source.published.windows(protocol, unit.length)[unit.first : unit.last]
            rows["protocol"] = protocol_rows(model, unit.arm, protocol, of_texts, unit.length, batch_tokens)
    return {kind: pa.Table.from_pylist(of_kind, schema=SCHEMAS[kind]) for kind, of_kind in rows.items()}


def _samples(prompts: Prompts, first: int, last: int) -> Prompts:
    return tuple(prompt for group in by_sample(prompts)[first:last] for prompt in group)


def measure_arm(
    model: Any,
    arm: str,
    workload: Workload,
    tokenizer: Any,
    *,
    batch_tokens: int,
    told: Callable[[Unit], None] = lambda unit: None,
) -> Samples:
    """All rows of one loaded model, measured in this process; `told` is called with each finished unit."""
    by_row: dict[int, Tables] = {}
    for unit in plan_units(workload, (arm,), batch_tokens):
        by_row[unit.row] = measure_unit(model, unit, workload, tokenizer, batch_tokens)
        told(unit)
    of_units = [by_row[row] for row in sorted(by_row)]
    return Samples(
        **{
            kind: pa.concat_tables([schema.empty_table(), *(tables[kind] for tables in of_units if kind in tables)])
            for kind, schema in SCHEMAS.items()
        }
    )


def rows_name(kind: str, number: int) -> str:
    """The file with a unit's rows of one kind."""
    return f"{kind}-{number:05d}.parquet"


@dataclass(frozen=True)
class MeasureUnit:
    """Measures a unit on a worker, writes its rows among the parts, and returns the kinds of rows."""

    models: ArmModel
    batch_tokens: int
    parts: Parts

    def __call__(self, unit: Unit) -> list[str]:
        forget_evaluator()
        tokenizer = self.models.tokenizer()
        tables = measure_unit(loaded_model(self.models, unit.arm), unit, KeptWorkload(self.parts), tokenizer, self.batch_tokens)
        for kind, table in tables.items():
            with self.parts.writing(rows_name(kind, unit.number)) as path:
                pq.write_table(table, path)
        return list(tables)
