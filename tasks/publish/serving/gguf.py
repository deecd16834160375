"""From a release to GGUF, for llama.cpp and Ollama: what of its RoPE survives, and the commands. From documentation, not run.

By https://github.com/ggml-org/llama.cpp. conversion/base.py at 00bd27a, `TextModel.set_gguf_parameters`: linear and yarn
become metadata, dynamic passes without a word; `rope_theta` is always written, so a changed base (ntk) survives.
conversion/llama.py at 0274f0f, `LlamaModel.generate_extra_tensors`: llama3 becomes the tensor `rope_freqs`, for the original
length at the top of config.json or, where there is none, 8192; the one inside `rope_parameters` is not read. longrope's
lists become tensors in the converters of Phi-3 and MiniCPM alone. src/llama-context.cpp: YaRN's attention factor is always
the one that its factor implies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.publish.serving import formulas
from tasks.publish.serving.rules import Written, read_as_transformers5

# Classes of which llama.cpp's LlamaModel, which writes `rope_freqs`, is the converter.
_LLAMA_CONVERTER = ("llama", "mistral")
_WITH_FACTOR_TENSORS = ("phi3", "minicpm")
_ASSUMED_ORIGINAL = 8192  # of llama3, by the converter


@dataclass(frozen=True)
class Route:
    """`preserves_rope` with the reason why or why not; shell lines for llama.cpp and for Ollama, none where there is no way."""

    preserves_rope: bool
    reason: str
    context_length: int
    llama_cpp: tuple[str, ...]
    ollama: tuple[str, ...]
    status: str = "from documentation, not run"


def gguf_route(config: Mapping[str, Any], directory: str = "path/to/this/folder", name: str = "model") -> Route:
    """The way of the model whose config.json is `config`; `name` is what its GGUF file and Ollama model are called."""
    reading = read_as_transformers5(Written(config, {}))
    length = reading.context_length
    preserves, reason = _survives(config, reading.rope_type)
    if not preserves:
        return Route(False, reason, length, (), ())
    file = f"{name}.gguf"
    convert = f"python convert_hf_to_gguf.py {directory} --outtype auto --outfile {file}"
    serve = f"llama-server -m {file} -c {length}"
    if config["max_position_embeddings"] < length:  # linear: the file states the old window, and servers stop there
        architecture = "llama" if config.get("model_type") in _LLAMA_CONVERTER else config.get("model_type")
        serve += f" --override-kv {architecture}.context_length=int:{length}"
        return Route(True, reason, length, (convert, serve), ())
    modelfile = f"printf 'FROM ./{file}\\nPARAMETER num_ctx {length}\\n' > Modelfile"
    return Route(
        True, reason, length, (convert, serve), (convert, modelfile, f"ollama create {name} -f Modelfile", f"ollama run {name}")
    )


def _survives(config: Mapping[str, Any], rope_type: str) -> tuple[bool, str]:
    model_type = config.get("model_type", "")
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if rope_type == "yarn" and any(key in scaling for key in ("mscale", "mscale_all_dim", "truncate")):
        return False, "llama.cpp's converter does not write this YaRN's own mscale or truncate"
    if rope_type == "yarn" and formulas.yarn_factor(scaling) != formulas.yarn_factor({"factor": scaling["factor"]}):
        return False, "llama.cpp computes YaRN's attention factor from its factor, and this model has another"
    if rope_type == "llama3" and model_type not in _LLAMA_CONVERTER:
        return False, f"llama.cpp's converter of {model_type or 'this model'} is not known to write llama3 factors"
    if rope_type == "llama3":
        original = scaling.get("original_max_position_embeddings") or config["max_position_embeddings"]
        assumed = config.get("original_max_position_embeddings") or _ASSUMED_ORIGINAL
        if original != assumed:
            return (
                False,
                f"llama.cpp's converter computes llama3 factors for an original length of {assumed}; this model's is {original}",
            )
    if rope_type == "longrope" and model_type not in _WITH_FACTOR_TENSORS:
        return False, f"llama.cpp's converter of {model_type or 'this model'} writes no longrope factors"
    known = {
        "default": (True, "rope_theta is written as the frequency base"),
        "linear": (
            True,
            "type and factor are written; the file states the old window, which llama.cpp can be told otherwise and Ollama cannot",
        ),
        "yarn": (True, "type, factor and original length are written as metadata"),
        "llama3": (True, "the factor of each frequency is written as the tensor rope_freqs"),
        "longrope": (True, "short and long factors are written as tensors"),
        "dynamic": (False, "llama.cpp has no dynamic NTK, and its converter leaves it out without a word"),
    }
    return known.get(rope_type, (False, f"rope type {rope_type} is not known to survive a conversion"))
