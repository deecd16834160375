"""What a model card says of servers: which read this release as it was trained, how that is known, and the command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.publish.serving.consumers import CONSUMERS
from tasks.publish.serving.contract import contract_problems, trained
from tasks.publish.serving.gguf import gguf_route
from tasks.publish.serving.rules import READERS, Written, sglang_context_length


@dataclass(frozen=True)
class ServingRow:
    """`servable` is None where it is not known. `how_known` says whether the server ran, and otherwise by what rule.

    `commands` are lines to type or, for transformers, to write; empty where the release is not for this server.
    """

    server: str
    version: str
    servable: bool | None
    reason: str
    how_known: str
    commands: tuple[str, ...] = ()


_RULE = "its rule for the files, from its source"
_LENGTH_RULE = "its rule for the length, from its source"


def serving_table(
    release: Path, ran: Mapping[str, str] | None = None, address: str = "path/to/this/folder"
) -> list[ServingRow]:
    """A row for each server, from config.json, tokenizer_config.json and rope_plan.json in `release`.

    `ran` maps a consumer to what was seen when it ran on this release (the detail of its check "served by ..."), so that
    nothing is called run that was not. `address` is what the commands name: a folder, or a hub id.
    """
    return [*_judged(release, dict(ran or {}), address), _sglang(release, address), *_gguf(release, address)]


def _judged(release: Path, ran: dict[str, str], address: str) -> list[ServingRow]:
    meant, written = trained(release), Written.load(release)
    rows = []
    for name in READERS:
        declined = meant.declined.get(name, "")
        reason = declined or "; ".join(contract_problems(name, written, meant))
        known = f"run: {ran[name]}" if name in ran and not reason else _RULE
        commands = () if reason else _commands(name, address, meant.context_length)
        rows.append(ServingRow(name.split("-")[0], _version(name), not reason, reason, known, commands))
    return rows


def _version(name: str) -> str:
    return "5.x" if name == "transformers-5" else CONSUMERS[name].version


def _commands(name: str, address: str, length: int) -> tuple[str, ...]:
    if name == "vllm":
        return (f"vllm serve {address} --max-model-len {length}",)
    argument = "dtype" if name == "transformers-5" else "torch_dtype"
    return (f'AutoModelForCausalLM.from_pretrained("{address}", {argument}="auto")',)


def _sglang(release: Path, address: str) -> ServingRow:
    meant, written = trained(release), Written.load(release)
    length, rope_type = sglang_context_length(written.config), READERS["transformers-5"](written).rope_type
    if rope_type in ("dynamic", "longrope"):
        reason = f"how it treats prompts of different lengths under {rope_type} was not seen"
        return ServingRow("SGLang", "", None, reason, "not known")
    if length != meant.context_length:
        return ServingRow(
            "SGLang", "", False, f"it would serve {length} tokens instead of {meant.context_length}", _LENGTH_RULE
        )
    command = f"python -m sglang.launch_server --model-path {address} --context-length {length}"
    reason = "it derives the same length; its frequencies were not compared"
    return ServingRow("SGLang", "", None, reason, _LENGTH_RULE, (command,))


def _gguf(release: Path, address: str) -> list[ServingRow]:
    config = json.loads((release / "config.json").read_text(encoding="utf-8"))
    route = gguf_route(config, address)
    return [
        ServingRow(server, "", bool(commands), route.reason, route.status, commands)
        for server, commands in (("llama.cpp", route.llama_cpp), ("Ollama", route.ollama))
    ]
