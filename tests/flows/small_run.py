"""A run small enough for a test: a tiny random base, window 64 -> 128, and a dozen made-up documents."""

import json
import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data_schemas.params import PipelineParams
from data_schemas.storage import Storage
from tasks.ingest import documents_stage
from tasks.pack import shards_stage
from tasks.work import InProcess

WORDS = (
    "rope",
    "bridge",
    "valley",
    "cliff",
    "traveller",
    "coin",
    "river",
    "stone",
    "wind",
    "path",
    "lantern",
    "market",
    "rain",
)


def write_base(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_corpus(folder: Path, num_documents: int = 14) -> None:
    folder.mkdir()
    for number in range(num_documents):
        draw = random.Random(number)
        sentences = [" ".join(draw.choices(WORDS, k=8)).capitalize() + "." for _ in range(30)]
        text = f"# Story {number}\n\n" + "\n\n".join(" ".join(sentences[i : i + 5]) for i in range(0, 30, 5))
        (folder / f"story-{number}.{'md' if number % 2 else 'txt'}").write_text(text)
    (folder / "broken.txt").write_bytes(b"caf\xe9 in Latin-1")


# Short, because every token counts in a window of 128.
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] + ':' + m.content + ('</s>' if m.role == 'assistant' else '\n') }}{% endfor %}"
    "{{ 'a:' if add_generation_prompt }}"
)


def with_conversations(params: dict[str, Any], home: Path) -> dict[str, Any]:
    """The run with a base that has a chat template, and instruction data beside its documents; one record of it is wrong."""
    (home / "template.jinja").write_text(CHAT_TEMPLATE)
    lines = []
    for number in range(16):
        draw = random.Random(f"chat {number}")
        question, answer = (" ".join(draw.choices(WORDS, k=4)) for _ in range(2))
        talk = [{"role": "user", "content": f"{question}?"}, {"role": "assistant", "content": f"{answer}."}]
        lines.append(json.dumps({"id": str(number), "messages": talk}))
    lines.append(json.dumps({"messages": [{"content": "Who speaks?"}]}))
    (home / "chats.jsonl").write_text("\n".join(lines))
    sources = [*params["corpus"]["sources"], {"uri": str(home / "chats.jsonl"), "instructions": "auto", "name": "chats"}]
    model = params["model"] | {"chat_template": str(home / "template.jinja")}
    return params | {"corpus": params["corpus"] | {"sources": sources}, "model": model}


def small_params(home: Path, tokenizer: PreTrainedTokenizerFast, **groups: Any) -> dict[str, Any]:
    """Parameters of the run, with base and corpus written below `home`; `groups` are merged into them."""
    if not (home / "base").exists():
        write_base(home / "base", tokenizer)
        write_corpus(home / "corpus")
    params: dict[str, Any] = {
        "run_name": "small",
        "storage": str(home / "storage"),
        "corpus": {"sources": [str(home / "corpus")], "heldout_fraction": 0.3},
        "model": {"base": str(home / "base"), "target_length": 128, "rope_method": "yarn"},
        "training": {
            "steps": 6, "rows_per_step": 2, "warmup_steps": 1, "precision": "fp32", "validate_every": 3,
            "validation_rows": 2, "checkpoint_every": 2, "gradient_checkpointing": False,
        },
        "evaluation": {
            "lengths": [64, 128], "target_tokens": 16, "num_documents": 4, "tasks": ["passkey"], "task_lengths": [128],
            "num_depths": 2, "num_samples": 2,
        },
        # Six steps make no better model; what is tested is how the version is served.
        "publish": {"dtype": "float32", "current": "always"},
        "ray": {"num_workers": 2},
    }  # fmt: skip
    return params | {name: params.get(name, {}) | value if isinstance(value, dict) else value for name, value in groups.items()}


def prepare_here(params: dict[str, Any]) -> None:
    """Make the documents and shards in this process, so that a job need not start Ray Data for them."""
    checked = PipelineParams.model_validate(params)
    storage, here = Storage(checked.storage), lambda _: nullcontext(InProcess())
    documents = documents_stage.run(checked, storage, here, lambda _: None)
    shards_stage.run(checked, storage, documents, here, lambda _: None)


def write_params(path: Path, params: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(params))
    return str(path)
