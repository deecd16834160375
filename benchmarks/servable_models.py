"""A tiny random Llama published with each RoPE method, with what the model says before it is saved."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tasks.model.rope_plan import RopePlan, plan_rope
from tasks.publish.assemble import _write_tokenizer
from tasks.publish.serving import next_tokens

WINDOW, TARGET = 64, 256
VOCABULARY = 384
HEAD_DIM = 32  # the smallest that vLLM's CPU attention takes
_ONE_LIST = [1.0 + i / 4 for i in range(HEAD_DIM // 2)]
METHODS = ("linear", "dynamic", "ntk", "yarn", "longrope", "longrope_switching", "llama3")


def tiny_plan(method: str) -> tuple[LlamaConfig, RopePlan]:
    """A config of the base, 64 tokens, and the plan to 256. `longrope_switching` has different short and long factors."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=WINDOW, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, initializer_range=0.2,
    )  # fmt: skip
    factors = None
    if method.startswith("longrope"):
        short = [1.0] * (HEAD_DIM // 2) if method == "longrope_switching" else _ONE_LIST
        factors = {"short_factor": short, "long_factor": _ONE_LIST}
    rope_method = "longrope" if factors else method
    return config, plan_rope(config, TARGET, rope_method, factors=factors, packed_rows=False)  # type: ignore[arg-type]


def publish_tiny(folder: Path, method: str) -> Path:
    """Write weights, tokenizer, config in all spellings, plan and recorded next tokens into `folder`/method."""
    config, plan = tiny_plan(method)
    plan.apply(config)
    torch.manual_seed(5)
    model = LlamaForCausalLM(config).eval()
    directory = folder / method
    directory.mkdir(parents=True)
    next_tokens.record(directory, model, WINDOW, TARGET)
    model.save_pretrained(directory)
    plan.write_config(directory)
    (directory / "rope_plan.json").write_text(plan.to_json())
    _write_tokenizer(directory, byte_tokenizer(), TARGET)
    return directory


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """BPE that falls back to bytes, as Llama 2's: of those that llama.cpp's converter takes, the smallest."""
    words = [chr(code) for code in range(ord("a"), ord("z") + 1)] + ["\u2581", "\u2581a", "th", "he"]
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    vocabulary += [
        chr(0x3B1 + i) for i in range(VOCABULARY - len(vocabulary))
    ]  # llama.cpp wants one token for each row of the model
    merges = [("\u2581", "a"), ("t", "h"), ("h", "e")]
    raw = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    raw.normalizer = normalizers.Replace(" ", "\u2581")
    raw.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
