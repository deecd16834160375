"""The longest rows that 1 to 64 GPUs of 80 GB can train and validate, and the hours of a billion tokens, as `ropeway plan` foresees them.

`python -m benchmarks.longest_rows [--json FILE]`. Nothing is trained or downloaded: three Llama-like shapes are counted on models without
storage. `python docs/tools/longest_rows.py` writes the table of docs/attention.md from the record.

training   bf16 with FSDP2 over all GPUs, LoRA and norms, MLPs in tiles of 4,096 tokens, recomputed layers with their inputs on the CPU,
           hidden states in bf16, S2-Attn in groups of 8,192 in all layers
speed      40 % of 989 TFLOP/s a GPU, which is assumed, not measured
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

GPUS, GPU_BYTES, GROUP_SIZE, TILE = (1, 8, 32, 64), 80e9, 8192, 4096
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
MODELS = {"1B": (2048, 8192, 16, 32, 8), "8B": (4096, 14336, 32, 32, 8), "70B": (8192, 28672, 80, 64, 8)}
VOCABULARY = 128_256
FLOPS_PER_S = 0.4 * 989e12


def parameters(name: str, folder: Path) -> Any:
    """Those of a training of this model, whose configuration is written to `folder`."""
    from transformers import LlamaConfig

    from data_schemas.params import PipelineParams

    sizes: dict[str, Any] = dict(zip(SIZES, MODELS[name], strict=True))
    LlamaConfig(
        **sizes, vocab_size=VOCABULARY, max_position_embeddings=131_072, tie_word_embeddings=name == "1B", dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    training = {
        "precision": "bf16", "parallelism": "fsdp", "train_embeddings": "none", "hidden_states": "bf16", "mlp_tile_tokens": TILE,
        "activation_offload": True, "s2_group_size": GROUP_SIZE, "full_attention_layers": "none", "rows_per_step": 1,
    }  # fmt: skip
    model = {"base": str(folder), "target_length": 1_048_576, "rope_method": "yarn"}
    return PipelineParams.model_validate(
        {"run_name": "long", "corpus": {"sources": ["none"]}, "model": model, "training": training, "ray": {"use_gpu": True}}
    )


def rows_of(name: str) -> list[dict[str, Any]]:
    """One entry for each number of GPUs."""
    from ray_jobs.finetune.planning.sequence import longest_row
    from ray_jobs.finetune.planning.sequence_time import hours_a_billion_tokens
    from ray_jobs.finetune.planning.shape import training_shape

    with tempfile.TemporaryDirectory() as folder:
        params = parameters(name, Path(folder))
        shape = training_shape(params)
    found = []
    for gpus in GPUS:
        tokens = longest_row(params, shape, GPU_BYTES, gpus, cuda=True)
        row: dict[str, Any] = {"model": name, "gpus": gpus, "tokens": tokens}
        if tokens:
            hours = hours_a_billion_tokens(shape.cost, tokens, gpus, GROUP_SIZE, flops_per_s=FLOPS_PER_S)
            row["host_bytes"] = tokens * shape.num_layers * shape.hidden * shape.residual_bytes / gpus
            row |= {f"hours_{method}": value for method, value in vars(hours).items()}
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.longest_rows", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [row for name in MODELS for row in rows_of(name)]
    for row in rows:
        print(json.dumps(row))
    if args.json:
        record = {"gpu_bytes": GPU_BYTES, "flops_per_s": FLOPS_PER_S, "group_size": GROUP_SIZE, "rows": rows}
        args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
