"""The servers that a model card lists: whether they compute what was trained, how that is known, and the commands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from data_schemas.consumers import CONSUMERS, ConsumerId, ServableId, claim_about
from tasks.model.rope_use import rope_use
from tasks.publish.serving.contract import Trained, contract_problems, trained
from tasks.publish.serving.gguf import GgufReader, gguf_route
from tasks.publish.serving.rules import LENGTH_READERS, READERS, Written


@dataclass(frozen=True)
class ServingRow:
    """`servable` is None if it is not known. `how_known` says whether the server ran, otherwise which rule was applied.

    `version` is the one that the claim was checked at.

    `commands` are shell lines, or Python for transformers; empty if the release is not for this server.
    """

    consumer: ConsumerId
    server: str
    version: str
    servable: bool | None
    reason: str
    how_known: str
    commands: tuple[str, ...] = ()


_BY_RULE = "not run; its rules, read in the source, applied to these files"
_BY_LENGTH_RULE = "not run; its rule for the length, read in the source, applied to these files"
_BY_SOURCE = "not run; read in the source of llama.cpp's converter"


def serving_table(release: Path, address: str = "path/to/this/folder") -> list[ServingRow]:
    """One row a consumer, from config.json, tokenizer_config.json, rope_plan.json and provenance.json in `release`.

    `address` is what the commands name: a folder, or a hub id.
    """
    meant, written = trained(release), Written.load(release)
    return [
        *(_by_rule(name, release, meant, written, address) for name in READERS),
        *(_by_length(name, meant, written, address) for name in LENGTH_READERS),
        *(_by_conversion(name, written, address) for name in ("llama.cpp", "ollama")),
    ]


def _by_rule(name: ServableId, release: Path, meant: Trained, written: Written, address: str) -> ServingRow:
    reason = meant.declined.get(name, "") or "; ".join(contract_problems(name, written, meant))
    version, known = CONSUMERS[name].version, _BY_RULE
    if name == "transformers-5" and not reason and (made_with := _made_with(release)):
        # Publishing checks that the saved files load as before, so this version did run.
        version = made_with
        known = f"run: {made_with} loaded these files before they were published, with logits and RoPE as before saving"
    commands = () if reason else _commands(name, address, meant.context_length)
    return ServingRow(name, CONSUMERS[name].program, version, not reason, reason, known, commands)


def _made_with(release: Path) -> str:
    """The version of transformers that published the release; "" if it is not recorded."""
    try:
        return str(json.loads((release / "provenance.json").read_text(encoding="utf-8"))["versions"]["transformers"])
    except (OSError, ValueError, KeyError):
        return ""


def _commands(name: ServableId, address: str, length: int) -> tuple[str, ...]:
    if name == "vllm":
        return (f"vllm serve {address} --max-model-len {length}",)
    argument = "dtype" if name == "transformers-5" else "torch_dtype"
    return (f'AutoModelForCausalLM.from_pretrained("{address}", {argument}="auto")',)


def _by_length(name: ConsumerId, meant: Trained, written: Written, address: str) -> ServingRow:
    """For SGLang, the only server of which the length alone can be computed."""
    use = rope_use(written.config, meant.context_length)
    claim = claim_about(name, use)
    server = (name, CONSUMERS[name].program, claim.version if claim else CONSUMERS[name].version)
    length = LENGTH_READERS[name](written.config)
    if claim is None or use.rope_type in ("dynamic", "longrope"):
        reason = claim.reason(use) if claim else f"rope type {use.rope_type} was not checked"
        return ServingRow(*server, None, reason, "not known")
    if length != meant.context_length:
        reason = f"it would serve {length} tokens instead of {meant.context_length}"
        return ServingRow(*server, False, reason, _BY_LENGTH_RULE)
    command = f"python -m sglang.launch_server --model-path {address} --context-length {length}"
    return ServingRow(*server, claim.reads, claim.reason(use), _BY_LENGTH_RULE, (command,))


def _by_conversion(name: GgufReader, written: Written, address: str) -> ServingRow:
    route = gguf_route(name, written.config, address)
    program = CONSUMERS[name].program
    return ServingRow(name, program, route.version, route.preserves_rope, route.reason, _BY_SOURCE, route.commands)
