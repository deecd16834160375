"""What a model card says of servers: which read this release as it was trained, how that is known, and the command."""

from __future__ import annotations

import json
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


def serving_table(release: Path, address: str = "path/to/this/folder") -> list[ServingRow]:
    """A row for each server, from config.json, tokenizer_config.json, rope_plan.json and provenance.json in `release`.

    `address` is what the commands name: a folder, or a hub id.
    """
    return [*_judged(release, address), _sglang(release, address), *_gguf(release, address)]


def _judged(release: Path, address: str) -> list[ServingRow]:
    meant, written = trained(release), Written.load(release)
    rows = []
    for name in READERS:
        declined = meant.declined.get(name, "")
        reason = declined or "; ".join(contract_problems(name, written, meant))
        known = _ran(release) if name == "transformers-5" and not reason else _RULE
        commands = () if reason else _commands(name, address, meant.context_length)
        rows.append(ServingRow(name.split("-")[0], _version(name), not reason, reason, known, commands))
    return rows


def _ran(release: Path) -> str:
    """Of the transformers that published it: no release is published that this one does not load as it was saved."""
    try:
        made_with = json.loads((release / "provenance.json").read_text(encoding="utf-8"))["versions"]["transformers"]
    except (OSError, ValueError, KeyError):
        return _RULE
    return f"run: {made_with} loaded these files before they were published, with logits and RoPE as before saving"


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
