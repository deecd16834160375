"""Whether a version is to become current: by the gates that were set, and by whether it is better than its base.

By default it must be longer than the base by its own numbers, and short prompts must stay as good. Both are judged by the
unfavourable bound of an interval, so what was not measured, or on too few documents, is not shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from data_schemas.params import PipelineParams
from data_schemas.report import Report
from tasks.evaluate.labels import percent
from tasks.evaluate.report.verdict import Answer, Line, short_prompts, works_at_target

_ARM = "fine_tuned"
_MEASURE_MORE = "measure on more documents (evaluation.num_documents, corpus.heldout_fraction)"
_TRAIN_MORE = "raise training.steps, train on more long documents, or choose a shorter model.target_length"


@dataclass(frozen=True)
class Doubt:
    """A reason not to serve a version: a sentence with its figures, and what to try."""

    sentence: str
    advice: str


@dataclass(frozen=True)
class Decision:
    """The version is to be served if there are no doubts. `is_wish`: `publish.current` says never, whatever the figures."""

    doubts: tuple[Doubt, ...] = ()
    is_wish: bool = False

    @property
    def is_to_serve(self) -> bool:
        return not self.doubts and not self.is_wish


def decide(params: PipelineParams, report: Report) -> Decision:
    """By `publish.current` and the gates under `publish`. Gates hold for `always` too."""
    from tasks.evaluate.report.gates import failed_gates

    if params.publish.current == "never":
        return Decision(is_wish=True)
    failed = failed_gates(report, params.publish, report.settings.base_window, params.model.target_length)
    doubts = [Doubt(sentence, "train longer, or change that gate") for sentence in failed]
    if params.publish.current == "if_better":
        doubts += doubts_about(report)
    return Decision(tuple(doubts))


def doubts_about(report: Report) -> list[Doubt]:
    """Why the fine-tuned model is not shown to be better than its base; empty if it is."""
    return [*_length(report), *_short(report)]


def _length(report: Report) -> Iterator[Doubt]:
    settings, section = report.settings, report.effective_context_length
    window, target = settings.base_window, settings.target_length
    found, base = (section.within_margin.arms.get(arm) for arm in (_ARM, "base"))
    if found is None or found.longest_measured <= window:
        lengths = ", ".join(map(str, dict.fromkeys((window, target))))
        yield Doubt(
            f"Whether it works beyond the base's {window} tokens was not measured.",
            f"put {lengths} into evaluation.lengths, and base and fine_tuned into evaluation.arms",
        )
        return
    if found.lower is None:  # it fails at the window already, which `_short` says; what about the target?
        line = works_at_target(report, _ARM)
        if line.answer != "yes":
            yield Doubt(f"At {target} tokens: {_as_clause(line)}", _TRAIN_MORE if line.answer == "no" else _MEASURE_MORE)
        return
    bar = max(window, (base.value if base else None) or 0)
    if found.lower > bar:
        return
    kept = f"perplexity within {percent(section.margin)} of the base's"
    if bar >= found.longest_measured:
        yield Doubt(
            f"It is not longer than its base, whose own perplexity stays within {percent(section.margin)} up to {bar} tokens.",
            "use the base as it is, or choose a longer model.target_length",
        )
    elif (found.upper or 0) > bar:
        yield Doubt(
            f"It is not shown to keep {kept} beyond {bar} tokens: by the estimate it does up to {found.value} tokens, by the "
            f"lower bound up to {found.lower}.",
            _MEASURE_MORE,
        )
    else:
        yield Doubt(f"It keeps {kept} only up to {found.value} tokens.", _TRAIN_MORE)


def _as_clause(line: Line) -> str:
    return f"{line.sentence[0].lower()}{line.sentence[1:]}"


def _short(report: Report) -> Iterator[Doubt]:
    line = short_prompts(report, _ARM)
    window = report.settings.base_window
    advice: dict[Answer, str] = {
        "no": "lower training.learning_rate, raise training.steps, or keep more short documents in the rows (packing.recipe)",
        "not shown": _MEASURE_MORE,
        "not measured": f"put {window} into evaluation.lengths, and base and fine_tuned into evaluation.arms",
    }
    if line.answer != "yes":
        yield Doubt(f"Short prompts: {_as_clause(line)}", advice[line.answer])
