"""Write the files of a release into an empty folder.

config.json  generation_config.json  model*.safetensors  tokenizer*        the files that a server loads
adapter/                                                                   the LoRA alone, never beside merged weights
rope_plan.json  chunk_reorder.json  serving_advice.json (with advise.after_evaluation)
evaluation/  training/  README.md  provenance.json  LICENSE  NOTICE
data_card.md  data_card.json                                               what it was trained on
verification/                                                              logits before saving, and which servers ran
SHA256SUMS                                                                 of all of these
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_schemas.data_card import CARD_FILE, CARD_PAGE, data_card
from data_schemas.earlier_stages import EARLIER_STAGES, describe_stages
from data_schemas.errors import UserError
from data_schemas.manifest import Manifest
from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback
from data_schemas.reorder import REORDER_FILE_NAME
from data_schemas.report import Report, read_settings
from data_schemas.report_sections import published_curve
from data_schemas.rope_search import LAST_SEARCH
from data_schemas.serving_advice import ADVICE_FILE_NAME, read_advice
from tasks.evaluate.report.result_files import HTML_NAME, PAGE_NAME, REPORT_NAME, SETTINGS_NAME
from tasks.publish import probes
from tasks.publish.base_identity import BaseIdentity, terms_files
from tasks.publish.card import render_card
from tasks.publish.checksums import write_checksums
from tasks.publish.generation import write_generation_settings
from tasks.publish.portable import rewrite_json, write_json
from tasks.publish.provenance import provenance
from tasks.publish.reorder_config import make_config
from tasks.publish.rounding import Rounding, measure_rounding, refuse_too_coarse
from tasks.publish.serving.ran import run_consumers
from tasks.publish.serving.table import serving_table
from tasks.reorder.config import to_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from tasks.model.rope_plan import RopePlan


@dataclass(frozen=True)
class ReleaseParts:
    """Everything a release is made of, except the model.

    `checkpoint`, `evaluation` and `advice` are artifact folders; `stages` are the manifests of the parents, by stage; `release` is the
    entry for the release itself in provenance.json.
    """

    params: PipelineParams
    base: BaseIdentity
    base_window: int
    plan: RopePlan
    checkpoint: Path
    evaluation: Path
    advice: Path | None
    report: Report
    stages: Mapping[str, Manifest]
    release: Mapping[str, Any]


def assemble(
    directory: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    parts: ReleaseParts,
    progress: ProgressCallback = lambda _: None,
) -> Rounding:
    """Fill the empty folder `directory`. `model` is the merged model in float32; its weights are cast in place.

    The same parts give the same bytes. Returns what the cast costs; UserError if that is too much, or if a program of
    `publish.verify_with` computes something else.
    """
    rounding = _write_model(directory, model, parts)
    _write_tokenizer(directory, tokenizer, parts.plan.target_length)
    _copy_adapter(parts.checkpoint / "adapter", directory / "adapter", parts.base.name)
    (directory / "rope_plan.json").write_text(parts.plan.to_json(), encoding="utf-8")
    plots = _copy_evaluation(parts.evaluation, directory / "evaluation")
    (directory / "training").mkdir()
    shutil.copy(parts.checkpoint / "training_log.jsonl", directory / "training")
    advice = None if parts.advice is None else read_advice(parts.advice)
    reorder = make_config(parts.params, published_curve(parts.report.recall_by_position), parts.report.reorder_decision, advice)
    (directory / REORDER_FILE_NAME).write_text(to_json(reorder), encoding="utf-8")
    if parts.advice is not None:
        shutil.copyfile(parts.advice / ADVICE_FILE_NAME, directory / ADVICE_FILE_NAME)
    earlier = parts.stages["checkpoint"].summary.get(EARLIER_STAGES, ()) if "checkpoint" in parts.stages else ()
    if data := data_card(parts.params.row_tokens, parts.stages["shards"].summary, describe_stages(earlier) or None):
        (directory / CARD_PAGE).write_text(data.markdown(), encoding="utf-8")
        write_json(directory / CARD_FILE, data.model_dump(mode="json", exclude_none=True))
    write_json(directory / "provenance.json", provenance(parts.params, parts.base, parts.stages, parts.release, rounding))
    run_consumers(directory, parts.params.publish.verify_with, progress)
    card = render_card(
        params=parts.params,
        base=parts.base,
        plan=parts.plan,
        base_window=parts.base_window,
        report=parts.report,
        plots=plots,
        servers=serving_table(directory),
        reorder=reorder,
        documents_summary=parts.stages["documents"].summary,
        shards_summary=parts.stages["shards"].summary,
        earlier_stages=earlier,
        short_verdict=parts.stages["checkpoint"].summary.get("short_factors", ""),
        search_verdict=parts.stages[LAST_SEARCH].summary.get("verdict", "") if LAST_SEARCH in parts.stages else "",
    )
    (directory / "README.md").write_text(card, encoding="utf-8")
    for file in terms_files(parts.base):
        shutil.copyfile(file, directory / file.name)
    write_checksums(directory)
    return rounding


def _write_model(directory: Path, model: PreTrainedModel, parts: ReleaseParts) -> Rounding:
    import torch

    dtype = getattr(torch, parts.params.publish.dtype)
    model.eval()
    fixed = probes.make_probes(model.config.vocab_size, parts.plan.target_length)
    before = probes.probe_logits(model, fixed)["logits"]
    # Only parameters: casting the whole model would also round the rotary frequencies, which loading keeps in float32.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype).float()
    rounding = measure_rounding(before, probes.probe_logits(model, fixed)["logits"], parts.params.publish.dtype)
    refuse_too_coarse(rounding)
    probes.record(directory, model, parts.plan.target_length, parts.base_window)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    model.save_pretrained(directory, max_shard_size=int(parts.params.publish.shard_gigabytes * 1e9))
    parts.plan.write_config(directory)
    write_generation_settings(directory, parts.plan.target_length, parts.plan.max_position_embeddings)
    for name in ("config.json", "generation_config.json"):
        if (directory / name).is_file():
            rewrite_json(directory / name)
    return rounding


def _write_tokenizer(directory: Path, tokenizer: PreTrainedTokenizerFast, target_length: int) -> None:
    """Write it in the form of transformers 4, which 5 reads too; 4 does not know the class name and the list that 5 writes."""
    tokenizer.model_max_length = target_length
    tokenizer.backend_tokenizer.no_truncation()  # readers of tokenizer.json would cut texts at the old window
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(directory)
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        config.pop("backend", None)
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    config.pop("max_length", None)  # where texts were cut by default
    write_json(path, config)
    rewrite_json(path)


def _copy_adapter(source: Path, target: Path, base_name: str) -> None:
    """Copy the files that peft loads, but not its generated card, which names local paths."""
    if not (source / "adapter_model.safetensors").is_file():
        raise UserError(f"The checkpoint has no adapter at {source}: delete the checkpoint's folder and run finetune again.")
    target.mkdir()
    for file in sorted(source.iterdir()):
        if file.suffix in {".safetensors", ".json"}:
            shutil.copyfile(file, target / file.name)
    config = json.loads((target / "adapter_config.json").read_text(encoding="utf-8"))
    # peft keeps these as sets, whose order differs between processes.
    ordered = {key: sorted(value) for key, value in config.items() if _is_names(value)}
    rewrite_json(target / "adapter_config.json", base_model_name_or_path=base_name, revision=None, **ordered)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _copy_evaluation(source: Path, target: Path) -> list[Path]:
    """Copy report, plots, samples and settings; return the plots. Every figure can be recomputed from samples and settings."""
    target.mkdir()
    pages = [source / name for name in (REPORT_NAME, PAGE_NAME, HTML_NAME)]
    for file in sorted([*source.glob("*samples*.parquet"), *source.glob("*.png"), *pages]):
        shutil.copyfile(file, target / file.name)
    settings = read_settings(source / SETTINGS_NAME).publishable()
    write_json(target / SETTINGS_NAME, settings.model_dump(mode="json", exclude_unset=True))
    return sorted(target.glob("*.png"), key=lambda plot: (plot.stem != "perplexity", plot.name))
