"""The servers that a model card lists: whether they compute what was trained, how that is known, and the commands."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from data_schemas.consumers import CONSUMERS, Claim, ConsumerId, ServableId, claim_about
from tasks.model.rope_use import rope_use
from tasks.publish.serving.contract import Trained, contract_problems, trained
from tasks.publish.serving.gguf import GgufReader, gguf_route
from tasks.publish.serving.llama_cpp import why_unknown
from tasks.publish.serving.ran import Ran, read_ran
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


def _follows(what: str, claim: Claim | None, version: str) -> str:
    """For a program that did not run on this release. `what`, read in the source of `version`, was applied to its files."""
    ran = CONSUMERS[claim.consumer] if claim and claim.evidence == "run" else None
    tiny = f"; {ran.program} {ran.run} ran on a tiny model with such a RoPE" if ran else ""
    return f"not run on this release; follows from {what}, read in the source of {version}{tiny}"


def serving_table(release: Path, address: str = "path/to/this/folder") -> list[ServingRow]:
    """One row a consumer, from the configs, the tokenizer, rope_plan.json, provenance.json and `verification/` in `release`.

    `address` is what the commands name: a folder, or a hub id.
    """
    meant, written = trained(release), Written.load(release)
    rows = [
        *(_by_rule(name, release, meant, written, address) for name in READERS),
        *(_by_length(name, meant, written, address) for name in LENGTH_READERS),
        *(_by_conversion(name, release, written, address) for name in ("llama.cpp", "ollama")),
    ]
    ran = read_ran(release)
    return [_as_run(row, ran[row.consumer]) if row.consumer in ran else row for row in rows]


def _as_run(row: ServingRow, ran: Ran) -> ServingRow:
    known = (
        f"run: {ran.version} served {ran.context_length} tokens of this release before it was published, with next tokens within "
        f"{ran.largest_difference:.2g} nats of the trained model's"
    )
    return replace(row, version=ran.version, servable=True, reason="", how_known=known)


def _by_rule(name: ServableId, release: Path, meant: Trained, written: Written, address: str) -> ServingRow:
    reason = meant.declined.get(name, "") or "; ".join(contract_problems(name, written, meant))
    claim = claim_about(name, rope_use(written.config, meant.context_length))
    version, known = CONSUMERS[name].version, _follows("its rules", claim, CONSUMERS[name].version)
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
    length, known = LENGTH_READERS[name](written.config), _follows("its rule for the length", claim, server[2])
    if claim is None or use.rope_type in ("dynamic", "longrope"):
        reason = claim.reason(use) if claim else f"rope type {use.rope_type} was not checked"
        return ServingRow(*server, None, reason, "not known")
    if length != meant.context_length:
        reason = f"it would serve {length} tokens instead of {meant.context_length}"
        return ServingRow(*server, False, reason, known)
    command = f"python -m sglang.launch_server --model-path {address} --context-length {length}"
    return ServingRow(*server, claim.reads, claim.reason(use), known, (command,))


def _by_conversion(name: GgufReader, release: Path, written: Written, address: str) -> ServingRow:
    """Not known where the converter may refuse the tokenizer."""
    route = gguf_route(name, written.config, address)
    program, converter = CONSUMERS[name].program, CONSUMERS["llama.cpp"]
    version = route.version if name == "llama.cpp" else f"(by {converter.program} {route.version})"
    known = _follows(f"the rules of {converter.program}'s converter", route.claim, route.version)
    if route.preserves_rope and (unknown := why_unknown(release, written.config)):
        return ServingRow(name, program, version, None, unknown, known)
    return ServingRow(name, program, version, route.preserves_rope, route.reason, known, route.commands)
