"""Ropeway's scoring beside `model.generate` for each prompt: the same prompts, the same model, equal results, seconds.

`python -m benchmarks.evaluation [--length 512 1024 2048] [--tasks passkey key_value] [--json FILE]`. The model is the shipped demo
base, extended from 512 to 2048 tokens by YaRN scaling alone; the text is the running Python's own library. Whole grids (length ×
depth × sample) are timed. With one thread it is the process's CPU time that counts, so that other work on the machine does not.

On the other side each prompt has its own call of `model.generate`, greedy, one prompt a call:

- "published": as many new tokens as the task's own scripts ask for (RULER's `tokens_to_generate`; 100 for the key-value retrieval
  of Lost in the Middle; the answer's length for passkey, as LongLoRA does), stopping at EOS.
- "least": the answer's length and no more, which nobody can know who generates. The tasks with several golds: their limit here.
- "all columns": the least, and the two forward passes that the other columns of a row of the report need: the log-probabilities of
  the answer with the needle and without it.

On this side it is one teacher-forced pass with shared beginnings, or generation with verified guesses. Tokens must be equal to those
generated and log-probabilities equal to 1e-3, or the benchmark fails; "correct" is the share of exact answers on both sides.
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
from ray_jobs.evaluate.generation import generate_scored
from ray_jobs.evaluate.scoring import Window, score_windows
from tasks.evaluate.heldout import tokenize
from tasks.evaluate.prompts.make import make_prompts
from tasks.evaluate.prompts.material import Haystack, Material
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.model.base_model import load_base, load_tokenizer
from tasks.model.extended import extended_config

MODULES = ("argparse", "ast", "calendar", "configparser", "decimal", "difflib", "inspect", "tarfile", "typing", "zipfile")
TOLERANCE = 1e-3
# New tokens that the tasks' own scripts generate; passkey: as many as the answer has.
PUBLISHED_LIMITS = {
    "key_value": 100, "niah_single": 128, "niah_multikey": 128, "niah_multivalue": 128, "niah_multiquery": 128,
    "variable_tracking": 30, "common_words": 120, "frequent_words": 50,
}  # fmt: skip


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
    published_s: float
    least_s: float
    ours_s: float
    all_columns_s: float
    ours_all_columns_s: float
    largest_difference: float  # of log-probabilities, nats


def least_limit(prompt: TaskPrompt) -> int:
    return len(prompt.answer) if prompt.is_forced else prompt.max_new_tokens


def published_limit(prompt: TaskPrompt) -> int:
    return max(least_limit(prompt), PUBLISHED_LIMITS.get(prompt.task, 0))


@torch.inference_mode()
def generate_each(
    model: Any, prompts: Sequence[TaskPrompt], eos_ids: Sequence[int], limit_of: Callable[[TaskPrompt], int]
) -> list[list[int]]:
    """One call of `model.generate` for each prompt."""
    answers = []
    for prompt in prompts:
        ids = torch.from_numpy(prompt.tokens.astype(np.int64))[None].to(model.device)
        new = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=limit_of(prompt),
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
    model: Any, prompts: Sequence[TaskPrompt], eos_ids: Sequence[int], batch_tokens: int, *, all_columns: bool
) -> Result:
    """The same by Ropeway: the answers, and with `all_columns` every log-probability too."""
    answers: list[list[int]] = [[] for _ in prompts]
    logprobs = np.full((len(prompts), 2), np.nan)
    places, windows = [], []
    for row, prompt in enumerate(prompts):
        for column, context in enumerate((prompt.tokens, prompt.control)):
            if context is not None and (prompt.is_forced if column == 0 else all_columns):
                places.append((row, column))
                windows.append(Window(np.concatenate([context, prompt.answer]), len(prompt.answer)))
    for index, score in score_windows(model, windows, batch_tokens=batch_tokens):
        row, column = places[index]
        logprobs[row, column] = score.logprobs.sum()
        if column == 0:
            answers[row] = score.greedy_ids.tolist()
    free = [row for row, prompt in enumerate(prompts) if not prompt.is_forced]
    given, canonical = [prompts[row].tokens for row in free], [prompts[row].answer for row in free]
    limits = [prompts[row].max_new_tokens for row in free]
    for index, new, score in generate_scored(model, given, canonical, limits, eos_ids=eos_ids, batch_tokens=batch_tokens):
        answers[free[index]], logprobs[free[index], 0] = new.tolist(), score.logprobs.sum()
    return Result(answers, logprobs)


def check_equal(prompts: Sequence[TaskPrompt], ours: Sequence[list[int]], theirs: Sequence[list[int]]) -> float:
    """Share of prompts answered with the canonical answer. RuntimeError where the two sides differ.

    A forced answer is compared up to its first wrong token: behind that, one side goes on with the right token and the other with
    the wrong one. What the other side generated beyond our limit is not looked at.
    """
    num_correct = 0
    for prompt, one, other in zip(prompts, ours, theirs, strict=True):
        answer, other = prompt.answer.tolist(), other[: least_limit(prompt)]
        if prompt.is_forced:
            wrong = next((i for i, (a, b) in enumerate(zip(one, answer, strict=True)) if a != b), len(answer))
            if one[:wrong] != other[:wrong] or (one == answer) != (other == answer):
                raise RuntimeError(f"{prompt.task} sample {prompt.sample} depth {prompt.depth}: {one} is not {other}")
        elif one != other:
            raise RuntimeError(f"{prompt.task} sample {prompt.sample}: {one} is not {other}")
        num_correct += other[: len(answer)] == answer
    return num_correct / len(prompts)


def compare(
    model: Any, prompts: Sequence[TaskPrompt], eos_ids: Sequence[int], batch_tokens: int, clock: Callable[[], float]
) -> Row:
    """All comparisons for the prompts of one task and length, one side after the other."""

    def timed(step: Callable[[], Any]) -> tuple[float, Any]:
        started = clock()
        result = step()
        return clock() - started, result

    ours_s, ours = timed(lambda: score_grid(model, prompts, eos_ids, batch_tokens, all_columns=False))
    least_s, least = timed(lambda: generate_each(model, prompts, eos_ids, least_limit))
    all_s, ours_all = timed(lambda: score_grid(model, prompts, eos_ids, batch_tokens, all_columns=True))
    published_s, published = timed(lambda: generate_each(model, prompts, eos_ids, published_limit))
    forwards_s, logprobs = timed(lambda: logprob_each(model, prompts))
    share_correct = check_equal(prompts, ours.answers, least)
    check_equal(prompts, ours.answers, published)
    check_equal(prompts, ours_all.answers, least)
    np.testing.assert_allclose(ours_all.logprobs, logprobs, atol=TOLERANCE, rtol=0)
    return Row(
        task=prompts[0].task,
        length=prompts[0].length,
        num_prompts=len(prompts),
        answer_tokens=float(np.mean([len(p.answer) for p in prompts])),
        share_correct=share_correct,
        published_s=published_s,
        least_s=least_s,
        ours_s=ours_s,
        all_columns_s=least_s + forwards_s,
        ours_all_columns_s=all_s,
        largest_difference=float(np.nanmax(np.abs(ours_all.logprobs - logprobs))),
    )


def material(tokenizer: Any, num_depths: int, num_samples: int, form_length: int) -> Material:
    library = Path(sysconfig.get_path("stdlib"))
    texts = tuple((library / f"{name}.py").read_text(encoding="utf-8") for name in MODULES)
    documents = [tokenize(name, text, tokenizer) for name, text in zip(MODULES, texts, strict=True)]
    return Material(
        tokenizer=tokenizer, haystack=Haystack.of(documents), num_depths=num_depths, num_samples=num_samples, seed=0,
        form_length=form_length, texts=texts,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, nargs="+", default=[512, 1024, 2048], help="tokens of prompt and answer")
    tasks = [task for task in TASK_NAMES if task != "document_qa"]  # which needs a file of questions
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=tasks)
    parser.add_argument("--depths", type=int, default=11)
    parser.add_argument(
        "--samples", type=int, default=1, help="for each depth; more make the run longer and the ratios the same"
    )
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, on both sides")
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    params = ModelParams(base="demo", target_length=2048, rope_method="yarn")
    tokenizer, model = load_tokenizer(params), load_base(params, config=extended_config(params)).eval()
    source = material(tokenizer, args.depths, args.samples, min(args.length))
    eos_ids = [tokenizer.eos_token_id]
    clock = time.process_time if args.threads == 1 else time.perf_counter
    generate_each(
        model, make_prompts("passkey", min(args.length), source)[:2], eos_ids, least_limit
    )  # first calls set things up
    rows = []
    for task in args.tasks:
        for length in args.length:
            rows.append(compare(model, make_prompts(task, length, source), eos_ids, args.batch_tokens, clock))
            print(f"{task} at {length}: tokens equal, log-probabilities within {rows[-1].largest_difference:.0e}", flush=True)
    report(rows, args)


def report(rows: list[Row], args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    kind = "CPU seconds" if args.threads == 1 else "seconds"
    title = f"{args.depths} depths, {args.samples} samples, {args.threads} thread(s); {kind} for all prompts, equal results"
    table = Table(title=title)
    for name in (
        "task",
        "length",
        "prompts",
        "correct",
        "all columns",
        "ours",
        "ratio",
        "least",
        "published",
        "ours",
        "ratio\nleast",
    ):
        table.add_column(name, justify="left" if name == "task" else "right")
    table.add_column("ratio\npublished", justify="right")

    def add(name: str, length: str, some: list[Row]) -> None:
        published, least, ours = (sum(getattr(r, n) for r in some) for n in ("published_s", "least_s", "ours_s"))
        columns, ours_columns = (sum(getattr(r, n) for r in some) for n in ("all_columns_s", "ours_all_columns_s"))
        num_prompts = sum(r.num_prompts for r in some)
        correct = sum(r.share_correct * r.num_prompts for r in some) / num_prompts
        table.add_row(
            name, length, str(num_prompts), f"{correct:.0%}",
            f"{columns:.2f}", f"{ours_columns:.2f}", f"{columns / ours_columns:.1f}x",
            f"{least:.2f}", f"{published:.2f}", f"{ours:.2f}", f"{least / ours:.1f}x", f"{published / ours:.1f}x",
        )  # fmt: skip

    for row in rows:
        add(row.task, f"{row.length:,}", [row])
    table.add_section()
    for length in sorted({row.length for row in rows}):
        add("all", f"{length:,}", [row for row in rows if row.length == length])
    add("all", "", rows)
    Console(width=130).print(table)
    if args.json:
        figures = {name: getattr(args, name) for name in ("depths", "samples", "batch_tokens", "threads")}
        versions = {"torch": torch.__version__, "machine": platform.processor() or platform.machine()}
        Path(args.json).write_text(json.dumps(versions | figures | {"rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
