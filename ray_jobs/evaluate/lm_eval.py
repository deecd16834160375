"""Short-context benchmarks, run by EleutherAI's lm-evaluation-harness where that is installed.

The harness is not a dependency of this project, and its data comes from the Hugging Face hub. Its results are written to
`lm_eval.json` and to the report's settings; they are not recomputed here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_schemas.errors import UserError
from data_schemas.params import EvaluationParams
from ray_jobs.evaluate.arms import ArmModel, loaded_model
from ray_jobs.evaluate.prefixes import forget_lengths

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

    manager = TaskManager()
    if unknown := [name for name in names if not manager.match_tasks([name])]:
        raise UserError(
            f"lm-evaluation-harness has no task {', '.join(unknown)}: correct evaluation.lm_eval_tasks "
            "(`lm_eval --tasks list` names them all)."
        )


def measured_arms(names: Sequence[str]) -> tuple[str, ...]:
    """The measured arms that the harness is run on."""
    return tuple(arm for arm in ARMS if arm in names)


@dataclass(frozen=True)
class Benchmark:
    """On a worker: the harness's results of one arm, in its own names, {task: {metric: value}}."""

    models: ArmModel
    tasks: tuple[str, ...]
    limit: int | None
    seed: int

    def __call__(self, arm: str) -> dict[str, Any]:
        """UserError if a task's data cannot be loaded."""
        import lm_eval
        from lm_eval.models.huggingface import HFLM

        model = loaded_model(self.models, arm)
        forget_lengths(model)
        wrapped = HFLM(pretrained=model, tokenizer=self.models.tokenizer(), trust_remote_code=False)
        try:
            found = lm_eval.simple_evaluate(
                model=wrapped,
                tasks=list(self.tasks),
                limit=self.limit,
                bootstrap_iters=0,
                random_seed=self.seed,
                numpy_random_seed=self.seed,
                torch_random_seed=self.seed,
                fewshot_random_seed=self.seed,
            )
        except (OSError, ValueError, ImportError) as error:
            detail = " ".join(str(error).split())[:200]
            raise UserError(
                f"lm-evaluation-harness cannot run {', '.join(self.tasks)} ({type(error).__name__}: {detail}): check that their "
                "data can be reached, or leave evaluation.lm_eval_tasks empty."
            ) from error
        return {
            "version": getattr(lm_eval, "__version__", "unknown"),
            "results": {task: _plain(metrics) for task, metrics in found["results"].items()},
            "num_fewshot": {task: int(n) for task, n in found.get("n-shot", {}).items() if isinstance(n, int)},
        }


def _plain(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers among a task's metrics; aliases and "N/A" are left out."""
    return {
        name: float(value) for name, value in metrics.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }
