"""The model card, from the report: front matter for the hub, and a page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from data_schemas.earlier_stages import describe_mix
from data_schemas.params import PipelineParams
from data_schemas.reorder import ReorderConfig
from data_schemas.report import Report
from data_schemas.report_sections import PUBLISHED_ARM, PerplexityRow
from data_schemas.samples import QUANTISED_ARM, served_arm
from tasks.evaluate.report.numbers import ratio
from tasks.publish.base_identity import BaseIdentity
from tasks.publish.portable import portable

if TYPE_CHECKING:
    from tasks.model.rope_plan import RopePlan
    from tasks.publish.serving.table import ServingRow

_DIGITS = 4


def front_matter(name: str, base: BaseIdentity, report: Report) -> dict[str, Any]:
    """Model card metadata (https://huggingface.co/docs/hub/model-cards), with the fine-tuned arm's perplexities."""
    matter: dict[str, Any] = _licence_fields(base) | {
        # The hub links a card to its base by this id; a folder's name would link to somebody else's model, or to nothing.
        **({"base_model": base.hub_id, "base_model_relation": "finetune"} if base.hub_id else {}),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["long-context", "longlora", "rope-scaling", "ropeway"],
    }
    if results := [_result(row) for row in measured_rows(report)]:
        matter["model-index"] = [{"name": name, "results": results}]
    return matter


def measured_rows(report: Report) -> list[PerplexityRow]:
    """The report's perplexities of the published arm, by context length."""
    return sorted((row for row in report.perplexity if row.arm == "fine_tuned"), key=lambda row: row.length)


def stated_perplexities(matter: Mapping[str, Any]) -> dict[int, float]:
    """The perplexities in the front matter, by context length. KeyError or IndexError if its form is another."""
    results = matter["model-index"][0]["results"] if "model-index" in matter else []
    return {result["dataset"]["args"]["context_length"]: result["metrics"][0]["value"] for result in results}


def measured_perplexities(report: Report) -> dict[int, float]:
    """The perplexities of the report, by context length, rounded as in the front matter."""
    return {row.length: round(row.perplexity, _DIGITS) for row in measured_rows(report)}


def render_card(
    *,
    params: PipelineParams,
    base: BaseIdentity,
    plan: RopePlan,
    base_window: int,
    report: Report,
    plots: list[Path],
    servers: list[ServingRow],
    reorder: ReorderConfig,
    documents_summary: Mapping[str, Any],
    shards_summary: Mapping[str, Any],
    earlier_stages: Sequence[Mapping[str, Any]] = (),
    search_verdict: str = "",
    short_verdict: str = "",
) -> str:
    """The text of README.md. `earlier_stages`: see `data_schemas.earlier_stages`. `search_verdict`: why a search of factors chose the
    plan, and `short_verdict`: what was found for short prompts after training; "" without one."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from tasks.evaluate.report.markdown_page import markdown_tables, markdown_verdict
    from tasks.publish.decision import doubts_about
    from tasks.reorder.recall_curve import why_not_calibrated

    last = params.by_stage()[-1]
    environment = Environment(
        loader=PackageLoader("tasks.publish", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    page = environment.get_template("card.md.j2").render(
        name=params.release_name,
        base=base,
        plan=plan,
        base_window=base_window,
        doubts=doubts_about(report),
        verdict=markdown_verdict(report).strip(),
        tables=markdown_tables(report).strip(),
        plots=plots,
        training=last.training,
        row_tokens=last.row_tokens,
        earlier=earlier_stages,
        describe_mix=describe_mix,
        search_verdict=search_verdict,
        short_prompts=_short_prompts(report, plan, short_verdict),
        quantised=[row for row in report.comparisons if row.denominator.arm == QUANTISED_ARM],
        dtype=params.publish.dtype,
        documents=documents_summary,
        shards=shards_summary,
        sources=[{"uri": portable(source.uri), "licence": source.licence} for source in params.corpus.sources],
        servers=servers,
        reorder=reorder,
        fallback=reorder.strategy == "calibrated" and bool(why_not_calibrated(reorder.recall_by_position)),
        licence_sentence=_licence_sentence(base),
    )
    matter = yaml.safe_dump(front_matter(params.release_name, base, report), sort_keys=False, allow_unicode=True)
    return f"---\n{matter}---\n\n{page.rstrip()}\n"


def _short_prompts(report: Report, plan: RopePlan, short_verdict: str = "") -> str:
    """What short prompts lose in programs that switch between two lists and in those that do not; "" where the lists are equal."""
    found = f"Lists for short prompts were measured after training: {short_verdict}." if short_verdict else ""
    if not plan.has_short_rotation:
        return found
    # It compares at the base's window, where a base that is already extended has the long list too.
    is_short = plan.short_length == plan.base_window
    measured = {row.arm: row for row in report.non_inferiority.perplexity} if is_short else {}

    def over_base(arm: str) -> str:
        row = measured.get(arm)
        return f"{ratio(row.ratio, row.low, row.high)} of the base's perplexity" if row else "not measured"

    window = plan.short_length
    return (
        f"Prompts of at most {window} tokens have frequencies of their own (`short_factor`) in programs that choose by each prompt's "
        f"length, as transformers 5 does: {over_base(PUBLISHED_ARM)}. Programs that choose once by their context length, as vLLM and "
        f"llama.cpp do, use `long_factor` for them too: {over_base(served_arm(PUBLISHED_ARM))}. {found}"
    ).rstrip()


def _licence_fields(base: BaseIdentity) -> dict[str, Any]:
    if base.licence is None:
        return {"license": "other", "license_name": "unknown"}
    named = base.licence.lower().split(", ")
    licence: Any = named if len(named) > 1 else named[0]
    return {"license": licence, **base.licence_card}


def _licence_sentence(base: BaseIdentity) -> str:
    if base.licence is None:
        return f"the base {base.name} does not declare one; find out its terms before using this."
    named = ", ".join(base.licence_card.values())
    return f"{base.licence}{f' ({named})' if named else ''}, as the base {base.name}."


def _metric_name(row: PerplexityRow) -> str:
    if row.low is None or row.high is None:
        return "Perplexity"
    return f"Perplexity (interval {row.low:.2f} to {row.high:.2f})"


def _result(row: PerplexityRow) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation", "name": "Text generation"},
        "dataset": {
            "type": "heldout-documents",
            "name": f"Held-out documents, context of {row.length} tokens",
            "args": {"context_length": row.length, "num_documents": row.num_documents, "num_tokens": row.num_tokens},
        },
        "metrics": [
            {
                "type": "perplexity",
                "value": round(row.perplexity, _DIGITS),
                "name": _metric_name(row),
            }
        ],
    }
