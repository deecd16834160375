"""Ask an installed transformers of any version for next-token log-probabilities. Imports nothing of Ropeway.

    python probe_transformers.py REQUEST.json RESPONSE.json

Request:  {"models": [{"directory": str, "prompts": [{"token_ids": [int], "positions": [int], "candidates": [[int]] | null}]}]}
Response: {"program": "transformers", "version": str, "models": [{"context_length": int, "prompts": [[{token id: float}]]}
          or {"error": str}]}, one dict of natural log-probabilities for each position: of the candidates, else of the best five.
"""

import inspect
import json
import os
import sys
from typing import Any

BEST = 5


def context_length(directory: str, config: Any) -> int:
    """Tokens: the shorter of what the tokenizer lets through and what the config states."""
    from transformers import AutoTokenizer

    stated = config.max_position_embeddings
    # transformers 5 has the first, 4 the second; these two methods state the window before scaling.
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    scaling = scaling.get("full_attention") or scaling
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "dynamic" or (kind == "linear" and not config.model_type.startswith("gemma3")):
        stated = int(stated * scaling["factor"])
    if not os.path.isfile(os.path.join(directory, "tokenizer_config.json")):
        return stated
    return min(stated, AutoTokenizer.from_pretrained(directory, local_files_only=True).model_max_length)


def attention(directory: str) -> str:
    """SDPA, or the eager attention for a model whose scores SDPA does not compute."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(directory, local_files_only=True)
    classes: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    chosen = classes[0] if isinstance(classes, tuple) else classes
    is_capped = getattr(config, "attn_logit_softcapping", None) is not None
    return "sdpa" if chosen._supports_sdpa and not is_capped else "eager"


def answer(directory: str, prompts: list) -> dict:
    import torch
    from transformers import AutoModelForCausalLM

    options = {"local_files_only": True, "use_safetensors": True, "attn_implementation": attention(directory)}
    try:
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **options)
    except TypeError:  # before 4.56
        model = AutoModelForCausalLM.from_pretrained(directory, torch_dtype=torch.float32, **options)
    model.eval()
    found = []
    for prompt in prompts:
        positions = prompt["positions"]
        # Only these rows of logits: all of a long prompt's would not fit into memory.
        kept = (
            {"logits_to_keep": torch.tensor(positions)}
            if "logits_to_keep" in inspect.signature(model.forward).parameters
            else {}
        )
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([prompt["token_ids"]]), use_cache=False, **kept).logits[0].float()
        rows = (logits if kept else logits[positions]).log_softmax(-1)
        candidates = prompt.get("candidates") or rows.topk(BEST).indices.tolist()
        found.append([{str(i): float(row[i]) for i in ids} for row, ids in zip(rows, candidates)])  # noqa: B905
    return {"context_length": context_length(directory, model.config), "prompts": found}


def main(request_path: str, response_path: str) -> None:
    import transformers

    transformers.logging.set_verbosity_error()
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    models = []
    for model in request["models"]:
        try:
            models.append(answer(model["directory"], model["prompts"]))
        except Exception as error:
            models.append({"error": f"{type(error).__name__}: {error}"})
    with open(response_path, "w", encoding="utf-8") as file:
        json.dump({"program": "transformers", "version": transformers.__version__, "models": models}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
