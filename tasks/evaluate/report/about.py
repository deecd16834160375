"""What was measured, when and with what, as names and values."""

from __future__ import annotations

from data_schemas.report import Report
from tasks.evaluate.labels import arm_label, percent


def about(report: Report) -> list[tuple[str, str]]:
    """In the order of the page. Reports of older versions know less, so theirs is shorter."""
    settings, origin = report.settings, report.settings.measured_with
    window = f"{settings.base_window} tokens"
    facts = []
    if origin:
        revision = f", revision {origin.base_revision}" if origin.base_revision else ""
        facts.append(("base", f"{origin.base}{revision}; window {window}"))
    else:
        facts.append(("base", f"window {window}"))
    method = origin.method if origin else settings.rope_method
    facts.append(("method", f"{method or 'RoPE scaling'} to {settings.target_length} tokens"))
    measured = list(dict.fromkeys([row.arm for row in report.perplexity] + [row.arm for row in report.task_means]))
    facts.append(("models", ", ".join(map(arm_label, measured or settings.arms)) or "none"))
    documents = f"{report.perplexity[0].num_documents} held-out documents" if report.perplexity else "no held-out documents"
    facts.append(("corpus", f"{', '.join(origin.corpus)}; {documents}" if origin else documents))
    lengths = sorted({row.length for row in report.perplexity} | {row.length for row in report.task_means})
    facts.append(("lengths", f"{', '.join(map(str, lengths)) or 'none'} tokens"))
    if report.task_means:
        tasks = list(dict.fromkeys(row.task for row in report.task_means))
        how = ", asked through the chat template" if settings.chat_template else ""
        facts.append(("tasks", f"{', '.join(tasks)}; {_samples(report)} samples a length{how}"))
    facts.append(("intervals", f"{percent(settings.confidence)}; seed {settings.seed}"))
    if origin:
        facts.append(("numbers", f"{origin.numbers} on {origin.device}"))
        facts.append(("date", origin.date))
        facts.append(("versions", ", ".join(f"{name} {version}" for name, version in origin.versions.items())))
    return facts


def _samples(report: Report) -> str:
    counts = sorted({row.num_samples for row in report.task_means})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
