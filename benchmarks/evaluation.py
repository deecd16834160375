"""Ropeway's scoring beside `model.generate` for each prompt: the same prompts, the same model, equal results, seconds.

`python -m benchmarks.evaluation [--length 512 1024 2048] [--tasks passkey key_value] [--json FILE]`. The model is the shipped demo
base, extended from 512 to 2048 tokens by YaRN scaling alone; the text is the running Python's own library.

Two comparisons, each of whole grids (task × length × depth × sample), prompt by prompt on the other side:

- "scores": the score of every prompt. There `model.generate` decodes greedily, with as many new tokens as the answer has, which is
  the least that can be generated (RULER generates 30 to 128); here it is one teacher-forced pass, or, for the tasks with several
  golds, generation with verified guesses. Both sides' answers are equal token for token, or the benchmark fails.
- "rows": all that a row of the report needs, so also the answer's log-probability with the needle and without it. There, that takes
  two more forward passes for each prompt. Log-probabilities are equal to 1e-3, or the benchmark fails.
"""

from __future__ import annotations

import argparse
import json
import platform
import sysconfig
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_schemas.evaluation_params import TASK_NAMES
from data_schemas.params import ModelParams
from ray_jobs.evaluate.generation import generate
from ray_jobs.evaluate.scoring import Window, score_windows
from ray_jobs.finetune.base_model import load_base, load_tokenizer
from ray_jobs.finetune.extended import extended_config
from tasks.evaluate.heldout import tokenize
from tasks.evaluate.prompts.make import make_prompts
from tasks.evaluate.prompts.material import Haystack, Material
from tasks.evaluate.prompts.prompt import TaskPrompt

MODULES = ("argparse", "ast", "calendar", "configparser", "decimal", "difflib", "inspect", "tarfile", "typing", "zipfile")
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Result:
    """One task at one length. `answers` are the new tokens of every prompt, `logprobs` [prompts, 2]: with and without needle."""

    answers: list[list[int]]
    logprobs: np.ndarray


@dataclass(frozen=True)
class Row:
    """Seconds of the whole grid of a task at a length; `share_correct` is the same on both sides."""

    task: str
    length: int
    num_prompts: int
    answer_tokens: float  # mean
    share_correct: float
    generate_s: float
    scores_s: float
    by_hand_s: float
    rows_s: float
    largest_difference: float  # of log-probabilities, nats


def answer_limit(prompt: TaskPrompt) -> int:
    return len(prompt.answer) if prompt.is_forced else prompt.max_new_tokens


@torch.inference_mode()
def generate_each(model: Any, prompts: Sequence[TaskPrompt], eos_ids: Sequence[int]) -> list[list[int]]:
    """One call of `model.generate` for each prompt."""
    answers = []
    for prompt in prompts:
        ids = torch.from_numpy(prompt.tokens.astype(np.int64))[None].to(model.device)
        new = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=answer_limit(prompt),
            eos_token_id=list(eos_ids), pad_token_id=eos_ids[0],
        )[0, ids.shape[1] :].tolist()  # fmt: skip
        answers.append(new[: next((i for i, token in enumerate(new) if token in eos_ids), len(new))])
    return answers


@torch.inference_mode()
def logprob_each(model: Any, prompts: Sequence[TaskPrompt]) -> np.ndarray:
    """Two forward passes for each prompt: the answer's log-probability with and without the needle, [prompts, 2]."""
    result = np.full((len(prompts), 2), np.nan)
    for row, prompt in enumerate(prompts):
        for column, context in enumerate((prompt.tokens, prompt.control)):
            if context is not None:
                ids = torch.from_numpy(np.concatenate([context, prompt.answer]).astype(np.int64))[None].to(model.device)
                num = len(prompt.answer)
                logits = model(input_ids=ids, use_cache=False, logits_to_keep=num + 1).logits[0, :-1].float()
                result[row, column] = torch.log_softmax(logits, -1).gather(1, ids[0, -num:, None]).sum().item()
    return result


def score_grid(
    model: Any, prompts: Sequence[TaskPrompt], eos_ids: Sequence[int], batch_tokens: int, *, with_controls: bool
) -> Result:
    """The same by Ropeway: forced tasks by their log-probabilities, the others by generation."""
    places, windows = [], []
    for row, prompt in enumerate(prompts):
        for column, context in enumerate((prompt.tokens, prompt.control)):
            if context is not None and (with_controls or (prompt.is_forced and column == 0)):
                places.append((row, column))
                windows.append(Window(np.concatenate([context, prompt.answer]), len(prompt.answer)))
    answers: list[list[int]] = [[] for _ in prompts]
    logprobs = np.full((len(prompts), 2), np.nan)
    for index, score in score_windows(model, windows, batch_tokens=batch_tokens):
        row, column = places[index]
        logprobs[row, column] = score.logprobs.sum()
        if column == 0 and prompts[row].is_forced:
            answers[row] = score.greedy_ids.tolist()
    free = [row for row, prompt in enumerate(prompts) if not prompt.is_forced]
    limits = [prompts[row].max_new_tokens for row in free]
    for index, new in generate(
        model, [prompts[row].tokens for row in free], limits, eos_ids=eos_ids, batch_tokens=batch_tokens
    ):
        answers[free[index]] = new.tolist()
    return Result(answers, logprobs)


def check_equal(prompts: Sequence[TaskPrompt], ours: Sequence[list[int]], theirs: Sequence[list[int]]) -> float:
    """Share of prompts answered with the canonical answer. RuntimeError where the two sides differ.

    A forced answer is compared up to its first wrong token: behind that, one side goes on with the right token and the other with
    the wrong one.
    """
    num_correct = 0
    for prompt, one, other in zip(prompts, ours, theirs, strict=True):
        answer = prompt.answer.tolist()
        if prompt.is_forced:
            wrong = next((i for i, (a, b) in enumerate(zip(one, answer, strict=True)) if a != b), len(answer))
            if one[:wrong] != other[:wrong] or (one == answer) != (other == answer):
                raise RuntimeError(f"{prompt.task} sample {prompt.sample} depth {prompt.depth}: {one} is not {other}")
        elif one != other:
            raise RuntimeError(f"{prompt.task} sample {prompt.sample}: {one} is not {other}")
        num_correct += other[: len(answer)] == answer
    return num_correct / len(prompts)


def seconds(step: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = step()
    return time.perf_counter() - started, result


def compare(model: Any, prompts: Sequence[TaskPrompt], eos_ids: Sequence[int], batch_tokens: int) -> Row:
    """Both comparisons for the prompts of one task and length, one side after the other."""
    scores_s, scores = seconds(lambda: score_grid(model, prompts, eos_ids, batch_tokens, with_controls=False))
    generate_s, answers = seconds(lambda: generate_each(model, prompts, eos_ids))
    rows_s, rows = seconds(lambda: score_grid(model, prompts, eos_ids, batch_tokens, with_controls=True))
    forwards_s, logprobs = seconds(lambda: logprob_each(model, prompts))
    share_correct = check_equal(prompts, scores.answers, answers)
    check_equal(prompts, rows.answers, answers)
    np.testing.assert_allclose(rows.logprobs, logprobs, atol=TOLERANCE, rtol=0)
    return Row(
        task=prompts[0].task,
        length=prompts[0].length,
        num_prompts=len(prompts),
        answer_tokens=float(np.mean([answer_limit(p) for p in prompts])),
        share_correct=share_correct,
        generate_s=generate_s,
        scores_s=scores_s,
        by_hand_s=generate_s + forwards_s,
        rows_s=rows_s,
        largest_difference=float(np.nanmax(np.abs(rows.logprobs - logprobs))),
    )


def material(tokenizer: Any, num_depths: int, num_samples: int, form_length: int) -> Material:
    library = Path(sysconfig.get_path("stdlib"))
    documents = [tokenize(name, (library / f"{name}.py").read_text(encoding="utf-8"), tokenizer) for name in MODULES]
    return Material(
        tokenizer=tokenizer, haystack=Haystack.of(documents), num_depths=num_depths, num_samples=num_samples, seed=0,
        form_length=form_length,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, nargs="+", default=[512, 1024, 2048], help="tokens of prompt and answer")
    parser.add_argument("--tasks", nargs="+", choices=TASK_NAMES, default=["passkey", "key_value"])
    parser.add_argument("--depths", type=int, default=5)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, on both sides")
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    params = ModelParams(base="demo", target_length=2048, rope_method="yarn")
    tokenizer, model = load_tokenizer(params), load_base(params, config=extended_config(params)).eval()
    source = material(tokenizer, args.depths, args.samples, min(args.length))
    eos_ids = [tokenizer.eos_token_id]
    generate_each(model, make_prompts("passkey", 512, source)[:2], eos_ids)  # the first calls set things up
    rows = []
    for task in args.tasks:
        for length in args.length:
            rows.append(compare(model, make_prompts(task, length, source), eos_ids, args.batch_tokens))
            print(f"{task} at {length}: answers and log-probabilities equal", flush=True)
    report(rows, args)


def report(rows: list[Row], args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{args.depths} depths, {args.samples} samples, {args.threads} thread(s); seconds for all prompts, equal results"
    table = Table(title=title)
    for name in ("task", "length", "prompts", "correct", "generate", "scores", "ratio", "by hand", "rows", "ratio"):
        table.add_column(name, justify="left" if name == "task" else "right")

    def add(name: str, length: str, some: list[Row]) -> None:
        generate_s, scores_s = sum(r.generate_s for r in some), sum(r.scores_s for r in some)
        by_hand_s, rows_s = sum(r.by_hand_s for r in some), sum(r.rows_s for r in some)
        correct = sum(r.share_correct * r.num_prompts for r in some) / sum(r.num_prompts for r in some)
        cells = (name, length, str(sum(r.num_prompts for r in some)), f"{correct:.0%}", f"{generate_s:.2f}", f"{scores_s:.2f}")
        table.add_row(
            *cells, f"{generate_s / scores_s:.1f}x", f"{by_hand_s:.2f}", f"{rows_s:.2f}", f"{by_hand_s / rows_s:.1f}x"
        )

    for row in rows:
        add(row.task, f"{row.length:,}", [row])
    table.add_section()
    add("all", "", rows)
    Console(width=120).print(table)
    if args.json:
        figures = {name: getattr(args, name) for name in ("depths", "samples", "batch_tokens", "threads")}
        versions = {"torch": torch.__version__, "machine": platform.processor() or platform.machine()}
        Path(args.json).write_text(json.dumps(versions | figures | {"rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
