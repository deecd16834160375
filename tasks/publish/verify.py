"""Check that a release is what it claims to be. Every check runs, even if others failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_schemas.errors import UserError
from data_schemas.progress import ProgressCallback
from data_schemas.releases import resolve_release
from data_schemas.reorder import ReorderConfig
from data_schemas.report import read_report
from data_schemas.serving_advice import ADVICE_FILE_NAME, read_advice
from tasks.evaluate.report.result_files import REPORT_NAME
from tasks.publish.base_identity import card_front_matter
from tasks.publish.card import measured_perplexities, stated_perplexities
from tasks.publish.checks import Check, failures, require, run_check
from tasks.publish.serving.contract import read_plan
from tasks.publish.serving.runners import runner_named
from tasks.publish.serving.served import check_served
from tasks.publish.signing import check_signature, public_key
from tasks.publish.verify_files import check_files, check_staged_files
from tasks.publish.verify_model import check_model
from tasks.reorder.advised import advised_passages
from tasks.reorder.config import golden_permutations, read_config

__all__ = ["Check", "check_files", "failures", "verify_release", "verify_staged"]


def verify_release(
    directory: Path,
    consumers: Sequence[str] = (),
    consumers_home: Path | None = None,
    progress: ProgressCallback = lambda _: None,
    signed_by: Path | None = None,
) -> list[Check]:
    """Check a release folder, or the current version of a `releases/NAME` folder.

    `consumers` are ids in `tasks.publish.serving.runners.RUNNERS`. They are run on the release, each in its own environment below
    `consumers_home` (default: the cache folder), which is installed the first time. `signed_by` is the public key that must have signed.

    Works on any folder: a check of something that is not there fails with "absent". Raises UserError if `directory` is not a
    folder or a consumer is unknown.
    """
    for name in consumers:
        runner_named(name)
    signer = public_key(signed_by) if signed_by is not None else None
    if not directory.is_dir():
        raise UserError(f"There is no folder {directory}: give a release, or the folder releases/NAME of the storage.")
    try:
        release = resolve_release(directory.resolve())
    except UserError as error:
        return [Check("current", False, str(error))]
    return [
        *check_files(release),
        check_signature(release, signer),
        *_check_contents(release),
        *check_served(release, consumers, consumers_home, progress),
    ]


def verify_staged(directory: Path) -> list[Check]:
    """Check a release in its staging folder, where it has no manifest yet."""
    return [*check_staged_files(directory), *_check_contents(directory)]


def _check_contents(release: Path) -> list[Check]:
    return [
        *check_model(release),
        run_check("reorder config", lambda: _reorder(release)),
        run_check("model card", lambda: _card(release)),
    ]


def _reorder(release: Path) -> str:
    path = release / "chunk_reorder.json"
    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    config = read_config(path)
    expected = {config.strategy: (config.golden, golden_permutations(config.strategy, config.recall_by_position))} | {
        f"golden_by_strategy.{name}": (golden, golden_permutations(name)) for name, golden in config.golden_by_strategy.items()
    }
    problems = [*_not_as_measured(config, release / "evaluation" / REPORT_NAME), *_not_as_advised(config, release)] + [
        f"golden permutations of {name} are not reproduced" for name, (given, made) in expected.items() if given != made
    ]
    return require(problems, f"{config.strategy}, golden permutations reproduced")


def _not_as_measured(config: ReorderConfig, report: Path) -> list[str]:
    """Differences between the config's decision and the report of the release; none if there is no report."""
    if config.validated is None or not report.is_file():
        return []
    if config.validated != read_report(report).reorder_decision:
        return ["`validated` differs from the report's decision"]
    if config.strategy != config.validated.strategy:
        return [f"its strategy is {config.strategy}, but {config.validated.strategy} was validated"]
    return []


def _not_as_advised(config: ReorderConfig, release: Path) -> list[str]:
    """Differences between the config and what the release's `serving_advice.json` says; none if there is no such file."""
    if not (release / ADVICE_FILE_NAME).is_file():
        return []
    passages = advised_passages(read_advice(release / ADVICE_FILE_NAME))
    if passages is None:
        return []
    problems = []
    if config.chunking != passages.settings.chunking:
        problems.append(f"its passages are not cut as {ADVICE_FILE_NAME} advises")
    if passages.order_for_release not in (None, config.strategy):
        problems.append(f"its strategy is {config.strategy}, but {ADVICE_FILE_NAME} shows {passages.order_for_release} to win")
    return problems


def _card(release: Path) -> str:
    path = release / "README.md"
    page = path.read_text(encoding="utf-8")
    matter = card_front_matter(path)
    report_file = release / "evaluation" / REPORT_NAME
    if not report_file.is_file():
        raise FileNotFoundError(2, "no such file", str(report_file))
    report = read_report(report_file)
    problems = [f"the front matter lacks {key}" for key in ("license", "library_name") if not matter.get(key)]
    stated, measured = stated_perplexities(matter), measured_perplexities(report)
    if stated != measured:
        problems.append(f"the card states perplexities {stated}, the report {measured}")
    not_served = read_plan(release).servable_by()["vllm"]
    if not_served and "vllm serve" in page:
        problems.append(f"it lists a command for vLLM although {not_served}")
    return require(problems, f"its {len(stated)} perplexities agree with the report")
