"""The advice as a table for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Sequence

from data_schemas.serving_advice import QuestionKind, ServingAdvice
from tasks.advise.sentences import KIND_LABELS
from tasks.evaluate.labels import percent


def kinds_of(advice: ServingAdvice) -> list[QuestionKind]:
    """The kinds that were asked, in the order of the file."""
    return list(dict.fromkeys(result.kind for result in advice.results))


def kind_table(advice: ServingAdvice, kind: QuestionKind) -> tuple[str, list[str], list[list[str]]]:
    """(title, columns, rows) of one kind of question: the best first. A star marks the advised way."""
    results = sorted((r for r in advice.results if r.kind == kind), key=lambda r: (-r.quality, r.prompt_tokens))
    advised = {one.way for one in advice.advice if one.kind == kind}
    compared = {one.way: one for one in advice.comparisons if one.kind == kind}
    columns = ["way", f"right [{percent(advice.confidence)}]", "against the best", "p", "control", "log-prob.", "read"]
    columns += ["written", "seconds"]
    has_price = any(result.price is not None for result in results)
    if has_price:
        columns.append(f"{advice.currency or 'money'} / 1,000")
    rows = []
    for result in results:
        against = compared.get(result.way)
        row = [
            f"{'* ' if result.way in advised else ''}{result.way}",
            f"{result.quality:.0%} [{result.low:.0%}, {result.high:.0%}]",
            f"{against.difference:+.2f} [{against.low:+.2f}, {against.high:+.2f}]" if against else "best",
            f"{against.p_holm:.3g}" if against else "",
            _number(result.control_quality, ".0%"),
            _number(result.logprob, ".2f"),
            f"{result.prompt_tokens:,.0f}",
            f"{result.answer_tokens:,.0f}",
            f"{result.seconds:.2f}",
        ]
        rows.append([*row, _number(result.price, ",.4g")] if has_price else row)
    title = f"{KIND_LABELS[kind]}: {results[0].num_questions} questions"
    return title, columns, rows


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def sentences_of(advice: ServingAdvice) -> Sequence[str]:
    """What the figures say: overall first, then a sentence a kind."""
    return [advice.overall, *(one.sentence for one in advice.advice)]
