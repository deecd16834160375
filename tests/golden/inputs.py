"""Inputs that never change: texts, a tokenizer, a base model and rows, from formulas."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data_schemas.tables import DOCUMENTS
from tasks.work import InProcess, Workers

_TEXT = """
rope bridge valley cliff traveller coin river stone wind path lantern market rain tower field mill bell lamp
keeper letter winter orchard harbour ladder silver thunder garden window candle mountain shepherd compass
"""
WORDS = _TEXT.split()
NUM_IDS = 384


def prose(seed: int, num_sentences: int) -> str:
    """Sentences of 4 to 11 words, by a linear congruential generator."""
    state, sentences = seed * 7919 + 1, []
    for _ in range(num_sentences):
        words = []
        for _ in range(12):
            state = (state * 1103515245 + 12345) % 2**31
            words.append(WORDS[(state >> 8) % len(WORDS)])
        sentences.append(" ".join(words[: 4 + (state >> 8) % 8]).capitalize() + ".?!"[(state >> 16) % 3])
    return " ".join(sentences)


def story(seed: int, num_sections: int) -> str:
    """Markdown: sections of two paragraphs, one of them a list in every third."""
    sections = []
    for number in range(num_sections):
        second = prose(seed * 31 + number, 5)
        if number % 3 == 2:
            second = "\n".join(f"- {line}." for line in second.split(".") if line.strip())
        sections.append(f"## Part {number}\n\n{prose(seed * 17 + number, 4)}\n\n{second}")
    return f"# Story {seed}\n\n" + "\n\n".join(sections) + "\n"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One id a byte and for a few pairs of letters; BOS 0, EOS 1."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("i", "n"), ("e", "r"), ("a", "n"), ("th", "e"), ("Ġ", "t")]
    tokens = ["<s>", "</s>", *alphabet, *("".join(pair) for pair in merges)]
    raw = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", model_max_length=64)


def workers_here(num_bytes: int) -> AbstractContextManager[Workers]:
    return nullcontext(InProcess())


def fill(model: Any, seed: int, scale: float, *, trained_only: bool = False) -> None:
    """Add numbers of a generator that numpy has frozen to the parameters, or give them these where all are filled."""
    draw = np.random.RandomState(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.from_numpy(scale * draw.standard_normal(parameter.shape)).to(parameter.dtype)
            if not trained_only:
                parameter.copy_(1 + noise if "norm" in name else noise)
            elif parameter.requires_grad:
                parameter.copy_(noise if ".lora_" in name else parameter + noise)


def write_base(folder: Path, window: int) -> Path:
    """A Llama of two layers with that window, and its tokenizer."""
    config = LlamaConfig(
        vocab_size=NUM_IDS, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=window, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    fill(model, seed=1, scale=0.2)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    (folder / "LICENSE").write_text("Do as you like.\n")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    return folder


def write_documents(folder: Path, texts: dict[str, tuple[str, str, str]]) -> dict[str, Any]:
    """A documents artifact's file: doc_id -> (split, format, text). Returns the summary."""
    rows = []
    for doc_id, (split, form, text) in texts.items():
        row = {
            "doc_id": doc_id,
            "text": text,
            "source_uri": doc_id,
            "source": "x",
            "record": 0,
            "num_bytes": len(text.encode()),
        }
        row |= {"byte_start": None, "byte_end": None, "format": form, "language": None, "content_hash": "x"}
        rows.append(row | {"licence": "CC0-1.0", "work": doc_id, "split": split})
    pq.write_table(pa.Table.from_pylist(rows, schema=DOCUMENTS), folder / "documents-00000-of-00001.parquet")
    return {"num_documents": len(rows), "num_bytes": sum(row["num_bytes"] for row in rows)}
