"""Train the demo's base model from scratch: a 4M-parameter Llama for Python source, window 512.

From the root of the repository, `python -m tools.demo_base.train --out DIR` trains the tokenizer and the model; 24 million tokens take
about an hour on two cores. `--from DIR` starts at the weights of a finished run, keeps its tokenizer and goes on in the order of its rows.
Matrices are trained with Muon, the rest with AdamW; the learning rate falls linearly to zero over the second half,
which flattens the validation loss. Progress goes to DIR/training_log.jsonl. Weights are written as bfloat16 safetensors.
A run that was cut off goes on where DIR/state.safetensors was last written, every 500 steps, if the packages are the same.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tools.demo_base.corpus import training_texts

WINDOW = 512
VOCAB_SIZE = 4096
BATCH_ROWS = 16
MICRO_ROWS = 16
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE: digits stand alone, a run of indentation is one piece."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[bos])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", model_max_length=WINDOW)


def token_stream(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> np.ndarray:
    """All texts as one stream, each between BOS and EOS. int16 holds 4096 ids."""
    parts: list[np.ndarray] = []
    for start in range(0, len(texts), 512):
        for encoding in tokenizer.backend_tokenizer.encode_batch_fast(texts[start : start + 512], add_special_tokens=False):
            parts.append(np.array([tokenizer.bos_token_id, *encoding.ids, tokenizer.eos_token_id], dtype=np.int16))
    return np.concatenate(parts)


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=WINDOW,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    return LlamaForCausalLM(config)


def save_state(path: Path, step: int, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer]) -> None:
    """Weights and the optimizers' state after `step` steps, replaced at once so that a kill leaves the one before."""
    tensors = {f"model.{name}": tensor for name, tensor in model.named_parameters()}
    for number, optimizer in enumerate(optimizers):
        for index, of_parameter in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{index}.{name}": value for name, value in of_parameter.items()}
    staged = path.with_suffix(".staged")
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, staged, {"step": str(step)})
    staged.replace(path)


def load_state(path: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer]) -> int:
    """Put back what `save_state` wrote; returns the number of finished steps, 0 without a file."""
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        step = int(file.metadata()["step"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"optimizer.{number}."):
                index, key = name.split(".")[2:]
                state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return step


def seen_tokens(finished: Path) -> int:
    """The tokens that a finished run was trained on, from its log."""
    return int(json.loads((finished / "training_log.jsonl").read_text().splitlines()[-1])["tokens"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, tokenizer and log")
    parser.add_argument("--tokens", type=float, default=24e6, help="tokens to train on")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate, of Muon and AdamW alike")
    parser.add_argument("--from", dest="start", type=Path, help="folder of a finished run to go on from")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    args.out.mkdir(parents=True, exist_ok=True)

    texts, heldout, versions = training_texts()
    random.Random(0).shuffle(texts)
    if args.start:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.start)
    else:
        tokenizer = train_tokenizer(texts[:: max(1, sum(map(len, texts)) // 30_000_000)])
    tokenizer.save_pretrained(args.out)
    stream, validation = token_stream(tokenizer, texts), token_stream(tokenizer, heldout)
    print(f"{len(texts)} texts, {len(stream):,} tokens; held out {len(heldout)} texts, {len(validation):,} tokens", flush=True)

    model = LlamaForCausalLM.from_pretrained(args.start, dtype=torch.float32) if args.start else new_model(tokenizer)
    before = seen_tokens(args.start) if args.start else 0

    def mean_loss(rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.model(input_ids=rows, use_cache=False).last_hidden_state
            logits = model.lm_head(hidden[:, :-1]).flatten(0, 1)
        return F.cross_entropy(logits.float(), rows[:, 1:].flatten())

    compiled = torch.compile(mean_loss)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=args.lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]

    num_rows = len(stream) // WINDOW
    order = np.random.default_rng(0).permutation(num_rows)
    steps = int(args.tokens) // (BATCH_ROWS * WINDOW)
    fixed = torch.from_numpy(validation[: 128 * WINDOW].astype(np.int64)).view(-1, WINDOW)
    started = time.perf_counter()
    state = args.out / "state.safetensors"
    done = load_state(state, model, optimizers)
    with (args.out / "training_log.jsonl").open("a" if done else "w") as log:
        for step in range(done, steps):
            if step > done and step % 500 == 0:
                save_state(state, step, model, optimizers)
            scale = min(1.0, (step + 1) / 50, 2 * (1 - step / steps))
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = args.lr * scale
            first = before // WINDOW + step * BATCH_ROWS
            rows = [order[(first + i) % num_rows] for i in range(BATCH_ROWS)]
            batch = np.stack([stream[r * WINDOW : (r + 1) * WINDOW] for r in rows]).astype(np.int64)
            total = 0.0
            for micro in torch.from_numpy(batch).split(MICRO_ROWS):
                loss = compiled(micro) * len(micro) / BATCH_ROWS
                loss.backward()
                total += loss.item()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            if not math.isfinite(total):
                raise SystemExit(f"loss became {total} at step {step}: lower --lr")
            if step % 100 == 0 or step == steps - 1:
                with torch.no_grad():
                    heldout_loss = sum(compiled(micro).item() for micro in fixed.split(MICRO_ROWS)) * MICRO_ROWS / len(fixed)
                line = {
                    "step": step, "steps": steps, "tokens": before + (step + 1) * BATCH_ROWS * WINDOW, "loss": round(total, 4),
                    "heldout_loss": round(heldout_loss, 4), "seconds": round(time.perf_counter() - started),
                }  # fmt: skip
                print(line, flush=True)
                log.write(json.dumps(line) + "\n")
                log.flush()
    (args.out / "packages.json").write_text(json.dumps(versions, indent=1, sort_keys=True))
    model.bfloat16().save_pretrained(args.out)
    state.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
