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
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TOKENS, WIDTH, INTERMEDIATE, HEADS, KV_HEADS = 1024, 256, 896, 8, 2  # a layer of Llama-8B, a sixteenth as wide


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


@dataclass(frozen=True)
class Traffic:
    """Of one layer, forward and backward; bytes a token and channel."""

    fused: int  # kernels that compute elementwise or reduce
    called: int  # matrix products and attention, which torch.compile calls as they are
    bytes_moved: float

    @property
    def kernels(self) -> int:
        return self.fused + self.called


def is_called(operation: str) -> bool:
    return operation in ("mm", "addmm", "bmm") or "attn" in operation


def counted(**training: Any) -> tuple[Traffic, float]:
    """What a model of two layers needs beyond one of one layer, without torch.compile; and the bytes of attention in it."""
    from ray_jobs.finetune.dry_run.rehearsal import dry_run
    from ray_jobs.finetune.planning.shape import training_shape

    kernels: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    for layers, sign in ((2, 1), (1, -1)):
        with tempfile.TemporaryDirectory() as folder:
            write_config(Path(folder), layers)
            params = parameters(Path(folder), **training)
            found = dry_run(params, training_shape(params))
        for total, part in ((kernels, found.kernels), (moved, found.kernel_bytes)):
            for name, count in part.items():
                total[name] += sign * count
    called = sum(count for name, count in kernels.items() if is_called(name))
    size = TOKENS * WIDTH
    attention = sum(count for name, count in moved.items() if "attn" in name) / size
    return Traffic(sum(kernels.values()) - called, called, sum(moved.values()) / size), attention


def compiled(plain: Traffic, attention_bytes: float, **training: Any) -> Traffic:
    """The same of a compiled layer: by Inductor's counts, and with the attention of the `plain` one, which is not compiled."""
    import torch
    from torch._inductor import metrics

    from ray_jobs.finetune.training.batches import MicroBatch
    from ray_jobs.finetune.training.objective import Objective
    from ray_jobs.finetune.training.training_model import build_model_without_weights

    torch._dynamo.reset()
    torch._logging.set_logs(inductor_metrics=True)  # it counts bytes only where it logs them
    with tempfile.TemporaryDirectory() as folder:
        write_config(Path(folder), 1)
        params = parameters(Path(folder), compile_layers=True, **training)
        model = build_model_without_weights(params).to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            torch.nn.init.normal_(tensor, std=0.02)
    metrics.reset()
    ids = torch.randint(0, 512, (1, TOKENS))
    with torch._inductor.config.patch(force_disable_caches=True):  # a cached graph counts nothing
        Objective(model, params.training).train()(MicroBatch(ids, torch.arange(TOKENS)[None])).backward()
    return Traffic(
        metrics.generated_kernel_count, plain.called, metrics.num_bytes_accessed / (TOKENS * WIDTH) + attention_bytes
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiled", action="store_true", help="also compile a layer, which takes a minute or more")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    rows: dict[str, Traffic] = {}
    for name, training in (("today", {}), ("hidden_states bf16", {"hidden_states": "bf16"})):
        rows[name], attention = counted(**training)
        if args.compiled:
            rows[f"{name}, compiled"] = compiled(rows[name], attention, **training)
    print(f"one layer of width {WIDTH}, {TOKENS} tokens, forward and backward, nothing recomputed; bytes a token and channel")
    print(f"{'layers':<30} {'kernels':>8} {'bytes':>8} {'ratio':>7}")
    today = rows["today"]
    for name, row in rows.items():
        print(f"{name:<30} {row.kernels:>8} {row.bytes_moved:>8.0f} {today.bytes_moved / row.bytes_moved:>6.1f}x")
    if args.json:
        import torch

        record = {"torch": torch.__version__, "tokens": TOKENS, "width": WIDTH}
        args.json.write_text(json.dumps(record | {"rows": {name: asdict(row) for name, row in rows.items()}}, indent=1) + "\n")


if __name__ == "__main__":
    main()
