"""Run a consumer on a release and compare its answers with those of the trained model before it was saved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_schemas.consumers import why_not
from data_schemas.errors import UserError
from data_schemas.progress import ProgressCallback, message
from tasks.model.rope_use import rope_use
from tasks.publish.checks import Check, ProblemFound, require, run_check
from tasks.publish.serving import next_tokens
from tasks.publish.serving.contract import trained
from tasks.publish.serving.next_tokens import Prompt, Recording
from tasks.publish.serving.rules import Written
from tasks.publish.serving.runners import RUNNERS, Runner, ask, environment_for, runner_named


@dataclass(frozen=True)
class Answer:
    """A consumer's answers for one model. `problems` is empty if they are as recorded; `worst` in nats, None without answers.

    `note`: why the program would refuse the release although its numbers may agree, such as an unknown tokenizer.
    """

    program: str
    version: str
    context_length: int | None
    worst: float | None
    problems: tuple[str, ...]
    note: str = ""


def why_declined(directory: Path, name: str) -> str:
    """Why the release in `directory` is not for the consumer `name`; "" if it is."""
    if name != "llama.cpp":
        return trained(directory).declined.get(name, "")
    written = Written.load(directory)
    return why_not("llama.cpp", rope_use(written.config, trained(directory).context_length))


def check_served(
    directory: Path, names: Sequence[str], home: Path | None = None, progress: ProgressCallback = lambda _: None
) -> list[Check]:
    """Run each consumer in `names` (ids, today's or old ones) on the release: one check a consumer.

    The check fails if the consumer cannot be installed or run, or if the release is not for it. Raises UserError for an unknown
    name.
    """
    runners = [runner_named(name) for name in names]
    directory = directory.resolve()
    return [run_check(f"served by {runner.name}", partial(_served, directory, runner, home, progress)) for runner in runners]


def _served(directory: Path, runner: Runner, home: Path | None, progress: ProgressCallback) -> str:
    if reason := why_declined(directory, runner.name):
        raise ProblemFound(f"not run, because the release is not for it: {reason}")
    try:
        recording, source = reference(directory)
        python = environment_for(runner, home, progress)
        progress(message(f"running {runner.name} on {directory.name}"))
        answer = answers_of(runner, python, {directory: recording})[directory]
    except UserError as error:
        raise ProblemFound(f"not checked: {error}") from error
    if answer.note and not answer.problems:
        raise ProblemFound(
            f"{answer.program} {answer.version}: {answer.note}; with text split another way, its next tokens differ by at most "
            f"{answer.worst or 0:.2g} from {source}"
        )
    fine = (
        f"{answer.program} {answer.version}: {answer.context_length} tokens; next tokens at {_where(recording)} differ by at most "
        f"{answer.worst or 0:.2g} from {source}, allowed {next_tokens.TOLERANCE:g}"
    )
    return require([*filter(None, [answer.note]), *answer.problems], fine)


def reference(directory: Path) -> tuple[Recording, str]:
    """What the consumers must reproduce, and its name: the recording, or without one the answers of transformers 5 here."""
    if (directory / next_tokens.FILE).is_file():
        return next_tokens.read(directory), "the recording"
    meant = trained(directory)
    vocab_size = json.loads((directory / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    prompts = next_tokens.make_prompts(vocab_size, meant.window, meant.context_length)
    here = RUNNERS["transformers-5"]
    response = ask(here, environment_for(here), [_request(directory, prompts)])
    model = response["models"][0]
    if "error" in model:
        raise UserError(f"{directory} does not load in transformers {response['version']} ({model['error']}): repair it first.")
    answered = [
        Prompt(p.token_ids, p.positions, [[int(i) for i in row] for row in rows], [list(row.values()) for row in rows])
        for p, rows in zip(prompts, model["prompts"], strict=True)
    ]
    recording = Recording(meant.window, meant.context_length, answered)
    return recording, f"transformers {response['version']} here, because there is no recording"


def answers_of(runner: Runner, python: Path, recordings: dict[Path, Recording]) -> dict[Path, Answer]:
    """Run the consumer once for all these model folders. Raises UserError if it does not answer."""
    cache_gib = max((_cache_gib(directory) for directory in recordings), default=1)
    models = [_request(directory, recording.prompts) for directory, recording in recordings.items()]
    response = ask(runner, python, models, {"VLLM_CPU_KVCACHE_SPACE": str(cache_gib)})
    return {
        directory: _judged(response, model, recording)
        for (directory, recording), model in zip(recordings.items(), response["models"], strict=True)
    }


def _judged(response: dict[str, Any], model: dict[str, Any], recording: Recording) -> Answer:
    program, version = response["program"], response["version"]
    if "error" in model:
        return Answer(program, version, None, None, (f"{program} {version} does not run it: {model['error'][:300]}",))
    length, prompts = model["context_length"], model["prompts"]
    problems = next_tokens.differences(recording, length, prompts)
    worst = next_tokens.largest_difference(recording, prompts)
    return Answer(program, version, length, worst, tuple(problems), model.get("note", ""))


def _request(directory: Path, prompts: Sequence[Prompt]) -> dict[str, Any]:
    asked = [{"token_ids": p.token_ids, "positions": p.positions, "candidates": p.candidates} for p in prompts]
    return {"directory": str(directory), "prompts": asked, "context_length": trained(directory).context_length}


def _where(recording: Recording) -> str:
    positions = sorted({position for prompt in recording.prompts for position in prompt.positions})
    return f"positions {', '.join(map(str, positions))} (old window {recording.window})"


def _cache_gib(directory: Path) -> int:
    """GiB that vLLM needs to keep keys and values of the whole context in float32, and one more."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    length = trained(directory).context_length
    return 1 + 2 * 4 * config["num_hidden_layers"] * heads * head_dim * length // 2**30
