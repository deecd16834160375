"""What one layer costs on a GPU beside its matrix products: kernels that are started and bytes that they read and write.

`python -m benchmarks.layer_traffic [--json FILE] [--compiled]`. A step's forward and backward pass of a Llama with one layer more,
counted by the dry run on tensors without content, for today's layers and for `training.hidden_states: bf16`. With `--compiled` a
layer is also compiled by torch.compile on this CPU, forward and backward, and Inductor's own counts are taken: fused kernels, and
bytes that they move. No GPU is needed, and no speed is measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

TOKENS, WIDTH, INTERMEDIATE, HEADS, KV_HEADS = 1024, 512, 1792, 8, 2  # a layer of Llama-8B, an eighth as wide


def write_config(folder: Path, layers: int) -> None:
    from transformers import LlamaConfig

    LlamaConfig(
        vocab_size=512, hidden_size=WIDTH, intermediate_size=INTERMEDIATE, num_hidden_layers=layers, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, max_position_embeddings=TOKENS // 4, tie_word_embeddings=True, dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip


def parameters(folder: Path, **training: Any) -> Any:
    from data_schemas.params import PipelineParams

    plain = {"precision": "bf16", "full_attention_layers": "none", "loss_chunk_tokens": TOKENS, "gradient_checkpointing": False}
    return PipelineParams.model_validate(
        {
            "run_name": "traffic",
            "corpus": {"sources": ["none"]},
            "model": {"base": str(folder), "target_length": TOKENS, "rope_method": "yarn"},
            "training": plain | training,
            "ray": {"use_gpu": True},
        }
    )


def counted(**training: Any) -> dict[str, float]:
    """Kernels, and bytes a token and channel, of a layer: what a model of two layers needs beyond one of one layer."""
    from ray_jobs.finetune.dry_run.rehearsal import dry_run
    from ray_jobs.finetune.planning.shape import training_shape

    found = []
    for layers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            write_config(Path(folder), layers)
            params = parameters(Path(folder), **training)
            found.append(dry_run(params, training_shape(params)))
    one, two = found
    moved = two.moved_bytes - one.moved_bytes
    return {"kernels": two.num_kernels - one.num_kernels, "bytes": moved / (TOKENS * WIDTH)}


def compiled(**training: Any) -> dict[str, float]:
    """The same of a compiled layer, by Inductor's counts; attention and matrix products are called as they are and counted alike."""
    import torch
    from torch._inductor import metrics

    from ray_jobs.finetune.training.batches import MicroBatch
    from ray_jobs.finetune.training.objective import Objective
    from ray_jobs.finetune.training.training_model import build_model_without_weights

    with tempfile.TemporaryDirectory() as folder:
        write_config(Path(folder), 1)
        params = parameters(Path(folder), compile_layers=True, **training)
        model = build_model_without_weights(params).to_empty(device="cpu")
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.02)
        objective = Objective(model, params.training).train()
        metrics.reset()
        ids = torch.randint(0, 512, (1, TOKENS))
        objective(MicroBatch(ids, torch.arange(TOKENS)[None])).backward()
    return {"kernels": metrics.generated_kernel_count, "bytes": metrics.num_bytes_accessed / (TOKENS * WIDTH)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiled", action="store_true", help="also compile a layer, which takes a minute or more")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    rows = {"today": counted(), "hidden_states bf16": counted(hidden_states="bf16")}
    if args.compiled:
        rows["compiled"] = compiled()
        rows["compiled, hidden_states bf16"] = compiled(hidden_states="bf16")
    print(f"one layer of width {WIDTH}, {TOKENS} tokens, forward and backward, nothing recomputed; bytes a token and channel")
    print(f"{'layers':<30} {'kernels':>8} {'bytes':>8} {'ratio':>7}")
    for name, row in rows.items():
        print(f"{name:<30} {row['kernels']:>8.0f} {row['bytes']:>8.0f} {rows['today']['bytes'] / max(row['bytes'], 1):>6.1f}x")
    if args.json:
        args.json.write_text(json.dumps({"tokens": TOKENS, "width": WIDTH, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
