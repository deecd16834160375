"""Checks that load the model: weights, tokenizer, logits as before saving, RoPE as planned, and as every consumer reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.model.quiet import quiet_transformers
from tasks.model.rope_frequencies import scaled_frequencies
from tasks.model.rope_layers import FULL, LOCAL
from tasks.publish import probes
from tasks.publish.checks import Check, ProblemFound, require, run_check
from tasks.publish.generation import check_generation
from tasks.publish.serving import next_tokens
from tasks.publish.serving.contract import check_contract, compared_lengths, read_plan, trained

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# A longer prompt takes minutes without a GPU. Frequencies are compared as numbers at every length.
_MAX_PROMPT_TOKENS = 4096


def check_model(directory: Path) -> list[Check]:
    """Load the model once, then compare. If loading fails, checks that need the model report "absent"."""
    loaded: list[PreTrainedModel] = []

    def load() -> str:
        loaded.append(_load(directory))
        return f"{sum(p.numel() for p in loaded[0].parameters()):,} parameters in place"

    def model() -> PreTrainedModel:
        if not loaded:
            raise ProblemFound("absent: the model did not load")
        return loaded[0]

    with quiet_transformers():
        return [
            run_check("weights", lambda: _weights(directory)),
            run_check("reload", load),
            run_check("tokenizer", lambda: _tokenizer(directory)),
            run_check("logits", lambda: _logits(directory, model())),
            run_check("next tokens", lambda: _next_tokens(directory, model())),
            run_check("generation", lambda: _generation(directory, model())),
            run_check("RoPE in the reloaded model", lambda: _rope_in_use(directory, model())),
            *check_contract(directory),
        ]


def _config(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return content


def _weights(directory: Path) -> str:
    """Every tensor in every safetensors file can be read and is finite."""
    from safetensors import safe_open

    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ProblemFound("absent: no *.safetensors file")
    problems, num_tensors, types = [], 0, set()
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - a safe_open is not iterable
                tensor = tensors.get_tensor(name)
                types.add(str(tensor.dtype).removeprefix("torch."))
                num_tensors += 1
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    problems.append(f"{name} is not finite")
    return require(problems, f"{num_tensors} tensors of {', '.join(sorted(types))} in {len(files)} files, all finite")


def _load(directory: Path) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    if not (directory / "config.json").is_file():
        raise FileNotFoundError(directory / "config.json")
    # float32 arithmetic on the published weights, as when the logits were recorded
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        directory,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    model, info = loaded
    # transformers only warns about these, and fills missing weights with random numbers.
    wrong = {
        kind: keys for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if (keys := sorted(map(str, info[kind])))
    }
    require([f"{kind.replace('_', ' ')}: {', '.join(keys[:5])}" for kind, keys in wrong.items()], "")
    evaluated: PreTrainedModel = model.eval()
    return evaluated


def _tokenizer(directory: Path) -> str:
    from transformers import AutoTokenizer

    if not (directory / "tokenizer_config.json").is_file():
        raise FileNotFoundError(directory / "tokenizer_config.json")
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    meant, vocab_size = trained(directory), _config(directory)["vocab_size"]
    problems = []
    if len(tokenizer) > vocab_size:
        problems.append(f"the tokenizer has {len(tokenizer)} entries, the model {vocab_size}")
    target = meant.context_length
    if tokenizer.model_max_length < target or (meant.planned and tokenizer.model_max_length != target):
        problems.append(f"model_max_length is {tokenizer.model_max_length} instead of {target}")
    if not tokenizer("A rope bridge.").input_ids:
        problems.append("it encodes text as nothing")
    return require(problems, f"{len(tokenizer)} entries, up to {target} tokens")


def _logits(directory: Path, model: PreTrainedModel) -> str:
    difference, allowed = probes.largest_difference(directory, model)
    text = f"largest difference from before saving {difference:.2g}, allowed {allowed:.2g}"
    return require([] if difference <= allowed else [text], text)


def _next_tokens(directory: Path, model: PreTrainedModel) -> str:
    recording = next_tokens.read(directory)
    target = read_plan(directory).target_length
    if recording.context_length != target:
        raise ProblemFound(f"recorded for {recording.context_length} tokens, planned for {target}")
    worst, longest = next_tokens.reproduced(recording, model, _MAX_PROMPT_TOKENS)
    text = f"log-probabilities differ by {worst:.2g} from before saving, allowed {next_tokens.TOLERANCE:g}"
    left = [str(len(p.token_ids)) for p in recording.prompts if len(p.token_ids) > _MAX_PROMPT_TOKENS]
    tail = f"; prompts of {', '.join(left)} tokens are checked only with --with" if left else ""
    return require([] if worst <= next_tokens.TOLERANCE else [text], f"{text}, in prompts of up to {longest} tokens{tail}")


def _generation(directory: Path, model: PreTrainedModel) -> str:
    plan = read_plan(directory)
    return check_generation(model, plan.base_window, plan.target_length, _MAX_PROMPT_TOKENS)


def _rope_in_use(directory: Path, model: PreTrainedModel) -> str:
    """Compare frequencies and factor with the plan, or without one with the rule for config.json, at growing lengths.

    They are computed from the cosines and sines that the model's rotary modules return.
    """
    import numpy as np

    rotaries = [(module, kind) for module in model.modules() for kind in _kinds_of_layers(module)]
    if not rotaries:
        raise ProblemFound("the model has no rotary embedding")
    meant = trained(directory)
    lengths = compared_lengths(meant.window, meant.context_length)
    problems = []
    for length in lengths:
        for rotary, kind in rotaries:
            used, scale = _used_frequencies(rotary, length, kind)
            if kind in (None, FULL):
                inv_freq, factor = meant.frequencies(length)
            else:
                inv_freq, factor = scaled_frequencies(meant.layers[kind], 2 * used.size, meant.context_length, length)
            where = f" in {kind} layers" if kind else ""
            if used.shape != inv_freq.shape or not np.allclose(used, inv_freq, rtol=1e-5, atol=0):
                problems.append(f"frequencies at {length} tokens{where} differ from {meant.source}")
            if not np.allclose(scale, factor, rtol=1e-5):
                problems.append(
                    f"the factor on cosine and sine at {length} tokens{where} is {scale.mean():.6g} instead of {factor:.6g}"
                )
    return require(problems, f"as in {meant.source} at {', '.join(map(str, lengths))} tokens")


def _kinds_of_layers(module: Any) -> list[str | None]:
    """The layer types that a rotary embedding computes; [None] if all are alike, [] for other modules."""
    if hasattr(module, "inv_freq"):
        return [None]
    return [kind for kind in (FULL, LOCAL) if hasattr(module, f"{kind}_inv_freq")]


def _used_frequencies(rotary: Any, length: int, kind: str | None) -> tuple[Any, Any]:
    """At position 1 the angle is the frequency itself; the second position sets the length for methods that depend on it."""
    import numpy as np
    import torch

    with torch.inference_mode():
        options = {"layer_type": kind} if kind else {}
        cos, sin = rotary(torch.zeros(1, 2, 1), torch.tensor([[1, length - 1]]), **options)
    pairs = getattr(rotary, f"{kind}_inv_freq" if kind else "inv_freq").shape[-1]
    if cos.shape[-1] != pairs and torch.equal(cos[..., 0::2], cos[..., 1::2]):  # neighbouring channels form a pair
        cos, sin = cos[..., 0::2], sin[..., 0::2]
    cosine, sine = (value[0, 0, :pairs].double().numpy() for value in (cos, sin))
    return np.arctan2(sine, cosine), np.hypot(sine, cosine)
