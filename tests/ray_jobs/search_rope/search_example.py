"""A tiny base of eight pairs, and documents to search its factors on. Run as a script, it searches in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from data_schemas.tables import DOCUMENTS


def write_base(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def search_params(folder: Path, **changes: Any) -> PipelineParams:
    search = {
        "evaluations": 24, "generation_size": 4, "samples": 3, "finalists": 1, "deciding_samples": 4, "depths": 2, "text_tokens": 16,
        "knots": 2,
    }  # fmt: skip
    training = {"short_window_share": changes.pop("short_window_share", 0.0)}
    return PipelineParams.model_validate(
        {
            "training": training,
            "run_name": "tiny",
            "storage": str(folder / "storage"),
            "corpus": {"sources": ["nowhere"]},
            "model": {"base": str(folder / "base"), "target_length": 384, "rope_method": "longrope"},
            "rope_search": search | changes,
        }
    )


def documents_of(storage: Storage, works: Sequence[str] = tuple(f"w{number}" for number in range(7))) -> Artifact:
    """A document of each of `works`. The first is held out, and a search must not read it."""

    def make(folder: Path) -> dict[str, Any]:
        rows = []
        for number, work in enumerate(works):
            text = "".join(
                f"Bridge {line} of work {number} hangs over a valley, and nobody crosses it.\n" for line in range(40)
            )
            row = {"doc_id": f"d{number}", "text": text, "source_uri": "x", "record": 0, "num_bytes": len(text)}
            row |= {"source": "x", "byte_start": None, "byte_end": None, "format": "plain", "language": None}
            split = "train" if number else "heldout"
            rows.append(row | {"content_hash": "x", "licence": "CC0-1.0", "work": work, "split": split})
        pq.write_table(pa.Table.from_pylist(rows, schema=DOCUMENTS), folder / "documents-00000-of-00001.parquet")
        return {}

    return storage.build("documents", stage="documents", params={}, code_version=1, parents={}, make=make)


if __name__ == "__main__":
    from ray_jobs.search_rope import search_stage

    torch.set_num_threads(1)
    params = search_params(Path(sys.argv[1]))
    here = Storage(params.storage)
    search_stage.run(params, here, documents_of(here), lambda event: None)
