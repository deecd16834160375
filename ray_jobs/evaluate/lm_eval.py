"""Benchmarks run by EleutherAI's lm-evaluation-harness where that is installed.

The harness is not a dependency of this project. Its own tasks take their data from the Hugging Face hub; `evaluation.lm_eval_include`
adds tasks whose data is on this machine. Its RULER gets the measured lengths and the model's tokenizer. Results are written to
`lm_eval.json` and to the report's settings; they are not recomputed here.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_schemas.errors import UserError
from data_schemas.params import EvaluationParams
from ray_jobs.evaluate.arms import ArmModel, loaded_model
from tasks.model.rotary_modules import forget_lengths

RULER_NEW_TOKENS = 128  # some of the harness's RULER prompts fill a length without these, and would be cut at their start
ARMS = ("base", "fine_tuned")  # what a reader of short-context benchmarks compares


def refuse_unavailable(evaluation: EvaluationParams, arms: Sequence[str]) -> None:
    """UserError, before anything is measured on `arms`, if evaluation.lm_eval_tasks cannot be run here."""
    names = evaluation.lm_eval_tasks
    if not names:
        return
    if not measured_arms(arms):
        raise UserError(
            f"evaluation.lm_eval_tasks asks for {', '.join(names)}, which are run on {' and '.join(ARMS)}, and neither is measured: "
            "add one to evaluation.arms, or leave evaluation.lm_eval_tasks empty."
        )
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            f"evaluation.lm_eval_tasks asks for {', '.join(names)}, and lm-evaluation-harness is not installed: "
            "run `pip install lm-eval`, or leave evaluation.lm_eval_tasks empty."
        )
    from lm_eval.tasks import TaskManager

    if evaluation.lm_eval_include and not Path(evaluation.lm_eval_include).expanduser().is_dir():
        raise UserError(
            f"evaluation.lm_eval_include {evaluation.lm_eval_include} is not a folder: give the folder with the tasks' YAML files."
        )
    manager = TaskManager(include_path=_include(evaluation))
    if unknown := [name for name in names if not manager.match_tasks([name])]:
        raise UserError(
            f"lm-evaluation-harness has no task {', '.join(unknown)}: correct evaluation.lm_eval_tasks "
            "(`lm_eval --tasks list` names them all)."
        )


def measured_arms(names: Sequence[str]) -> tuple[str, ...]:
    """The measured arms that the harness is run on."""
    return tuple(arm for arm in ARMS if arm in names)


def _include(evaluation: EvaluationParams) -> str | None:
    folder = evaluation.lm_eval_include
    return str(Path(folder).expanduser().absolute()) if folder else None


def task_metadata(evaluation: EvaluationParams, lengths: Sequence[int], tokenizer: str) -> dict[str, Any]:
    """What RULER's tasks in the harness make their prompts from; other tasks ignore it.

    Args:
        lengths: measured lengths, for runs that give no evaluation.task_lengths.
        tokenizer: folder of the model's tokenizer.
    """
    return {"max_seq_lengths": sorted(set(evaluation.task_lengths or lengths)), "tokenizer": tokenizer}


@dataclass(frozen=True)
class Benchmark:
    """On a worker: the harness's results of one arm, in its own names, {task: {metric: value}}."""

    models: ArmModel
    lengths: tuple[int, ...]

    def __call__(self, arm: str) -> dict[str, Any]:
        """UserError if a task's data cannot be loaded."""
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        evaluation, tokenizer = self.models.params.evaluation, self.models.tokenizer()
        model = loaded_model(self.models, arm)
        forget_lengths(model)
        seed, tasks = evaluation.seed, list(evaluation.lm_eval_tasks)
        try:
            with tempfile.TemporaryDirectory() as folder:
                tokenizer.save_pretrained(folder)
                metadata = task_metadata(evaluation, self.lengths, folder)
                longest = max(*metadata["max_seq_lengths"], *self.lengths) + RULER_NEW_TOKENS
                found = lm_eval.simple_evaluate(
                    model=HFLM(pretrained=model, tokenizer=tokenizer, trust_remote_code=False, max_length=longest),
                    tasks=tasks,
                    task_manager=TaskManager(include_path=_include(evaluation), metadata=metadata),
                    limit=evaluation.lm_eval_limit,
                    bootstrap_iters=0,
                    random_seed=seed,
                    numpy_random_seed=seed,
                    torch_random_seed=seed,
                    fewshot_random_seed=seed,
                )
        except (OSError, ValueError, ImportError) as error:
            detail = " ".join(str(error).split())[:200]
            raise UserError(
                f"lm-evaluation-harness cannot run {', '.join(tasks)} ({type(error).__name__}: {detail}): check that their "
                "data can be reached, or leave evaluation.lm_eval_tasks empty."
            ) from error
        return {
            "version": getattr(lm_eval, "__version__", "unknown"),
            "results": {task: _plain(metrics) for task, metrics in found["results"].items()},
            "num_fewshot": {task: int(n) for task, n in found.get("n-shot", {}).items() if isinstance(n, int)},
        }


def _plain(metrics: dict[str, Any]) -> dict[str, float]:
    """A task's metrics that are numbers, without aliases, "N/A", the count of samples, and RULER's -1 at lengths not asked for."""
    return {name: float(value) for name, value in metrics.items() if _is_metric(name, value)}


def _is_metric(name: str, value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool) or name == "sample_len":
        return False
    return value != -1 or not name.partition(",")[0].isdigit()
