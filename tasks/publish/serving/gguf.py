"""From a release to GGUF, for llama.cpp and Ollama: whether its RoPE survives, and the commands.

`data_schemas.consumers` holds the claims. `tasks.publish.serving.llama_cpp` says whether the converter takes the tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from data_schemas.consumers import Claim, claim_about
from tasks.model.rope_use import rope_use
from tasks.publish.serving.rules import Written, read_as_transformers5

# Model types that llama.cpp converts to the architecture "llama".
_LLAMA_TYPES = ("llama", "mistral")

GgufReader = Literal["llama.cpp", "ollama"]


@dataclass(frozen=True)
class Route:
    """`preserves_rope`, with the reason why or why not; shell commands, none if there is no way. `version` and `claim` say what
    was checked.
    """

    preserves_rope: bool
    reason: str
    version: str
    commands: tuple[str, ...] = ()
    claim: Claim | None = None


def gguf_route(
    consumer: GgufReader, config: Mapping[str, Any], directory: str = "path/to/this/folder", name: str = "model"
) -> Route:
    """The way to `consumer` for the model whose config.json is `config`; `name` is that of its GGUF file and Ollama model."""
    length = read_as_transformers5(Written(config, {})).context_length
    use = rope_use(config, length)
    claim = claim_about(consumer, use)
    if claim is None:
        return Route(False, f"rope type {use.rope_type} was not checked with llama.cpp's converter", "not checked")
    if not claim.reads:
        return Route(False, claim.reason(use), claim.version, claim=claim)
    file = f"{name}.gguf"
    convert = f"python convert_hf_to_gguf.py {directory} --outtype auto --outfile {file}"
    if consumer == "ollama":
        modelfile = f"printf 'FROM ./{file}\\nPARAMETER num_ctx {length}\\n' > Modelfile"
        commands: tuple[str, ...] = (convert, modelfile, f"ollama create {name} -f Modelfile", f"ollama run {name}")
    else:
        commands = (convert, f"llama-server -m {file} -c {length}{_length_override(config, length)}")
    return Route(True, claim.reason(use), claim.version, commands, claim)


def _length_override(config: Mapping[str, Any], length: int) -> str:
    """For linear, the file states the old window, and the server would stop there."""
    if config["max_position_embeddings"] >= length:
        return ""
    model_type = config.get("model_type")
    architecture = "llama" if model_type in _LLAMA_TYPES else model_type
    return f" --override-kv {architecture}.context_length=int:{length}"
