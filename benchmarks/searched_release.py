"""Do the programs that serve releases compute what was trained, where a search found the factors?

    python -m benchmarks.searched_release --storage FOLDER [--home DIR] [--json FILE]

The whole chain, then what `ropeway verify --with` says. A tiny Llama with a window of 256 tokens, which learned for a minute, is searched,
trained for four steps, measured and published at 1024 tokens: once with equal lists, and once with the base's own frequencies for short
prompts. Each release is loaded in transformers 5, transformers 4.57 and vLLM, whose next tokens in a short and a long prompt must be
those of the trained model. So small a model hardly tells methods apart, so the search is asked at little confidence, and with other
seeds until the found factors are chosen. A second run continues.
"""

from __future__ import annotations

import argparse
import email
import json
import platform
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.servable_models import HEAD_DIM, VOCABULARY, byte_tokenizer
from data_schemas.params import PipelineParams
from data_schemas.progress import print_progress
from data_schemas.rope_search import FACTORS_NAME
from data_schemas.storage import Artifact, write_atomically
from flows.chain import Chain
from flows.plain_stages import PlainStages
from tasks.publish.serving.next_tokens import TOLERANCE
from tasks.publish.serving.runners import RUNNERS
from tasks.publish.verify import verify_release

WINDOW, TARGET = 256, 1024
CONSUMERS = ("transformers-5", "transformers-4.57", "vllm")
_NAMED = ("vllm", "transformers")  # the pins that are recorded with the figures
_MOST_SEEDS = 40
_TAUGHT_STEPS, _TAUGHT_ROWS = 400, 8
# What of the parameters differs. Two lists are for transformers 5 alone.
CASES: dict[str, dict[str, Any]] = {
    "equal lists": {"model": {"serve_with": [*CONSUMERS]}},
    "two lists": {
        "model": {"serve_with": ["transformers-5"]},
        "rope_search": {"short_factors": "original"},
        "training": {"short_window_share": 0.25},
    },
}


def write_base(folder: Path) -> Path:
    """The tiny Llama, if it is not there yet, trained for a minute on the texts of the run."""
    if not (folder / "model.safetensors").exists():
        torch.manual_seed(5)
        config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=2 * HEAD_DIM, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=WINDOW, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        tokenizer, model = byte_tokenizer(), LlamaForCausalLM(config)
        texts = [file.read_text(encoding="utf-8") for file in sorted(Path(email.__file__).parent.glob("*.py"))]
        _teach(model, torch.tensor(tokenizer("".join(texts), verbose=False)["input_ids"]))
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    return folder


def _teach(model: LlamaForCausalLM, ids: torch.Tensor) -> None:
    """Next tokens of random windows. `ids` is int64 [tokens]."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(_TAUGHT_STEPS):
        starts = torch.randint(len(ids) - WINDOW, (_TAUGHT_ROWS,)).tolist()
        rows_BS = torch.stack([ids[start : start + WINDOW] for start in starts])
        loss = model(input_ids=rows_BS, labels=rows_BS).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"base: loss {loss.item():.3f} after {_TAUGHT_STEPS} steps", flush=True)


def parameters(storage: Path, case: str, seed: int) -> PipelineParams:
    """Those of one case. `seed` is the search's."""
    given: dict[str, dict[str, Any]] = {
        "corpus": {
            "sources": [{"uri": "stdlib:", "include": ["email/*.py"], "licence": "PSF-2.0", "min_bytes": 5000}],
            "heldout_fraction": 0.3,
        },
        "model": {"base": str(write_base(storage / "base")), "target_length": TARGET, "rope_method": "longrope"},
        "rope_search": {
            "evaluations": 24, "generation_size": 8, "samples": 3, "finalists": 1, "deciding_samples": 4, "depths": 2,
            "text_tokens": 64, "confidence": 0.51, "seed": seed,
        },
        "training": {
            "steps": 4, "rows_per_step": 4, "warmup_steps": 1, "precision": "fp32", "gradient_checkpointing": False,
            "validate_every": 4, "validation_rows": 2, "checkpoint_every": 4,
        },
        "evaluation": {
            "lengths": [WINDOW, TARGET], "num_documents": 4, "target_tokens": 64, "tasks": ["passkey"], "task_lengths": [TARGET],
            "num_depths": 2, "num_samples": 2,
        },
        "publish": {"dtype": "float32", "current": "always"},
        "ray": {"num_workers": 1},
    }  # fmt: skip
    merged = {name: value | CASES[case].get(name, {}) for name, value in given.items()}
    names = {"run_name": case.replace(" ", "-"), "storage": str(storage / "storage")}
    return PipelineParams.model_validate(names | merged)


def with_found_factors(storage: Path, case: str) -> tuple[PipelineParams, Artifact]:
    """The parameters with the first seed whose search chooses the found factors, and that search."""
    for seed in range(_MOST_SEEDS):
        params = parameters(storage, case, seed)
        search = Chain(params, PlainStages()).searched()
        assert search is not None, "the method is longrope without a file"
        if search.manifest.summary["chosen"] == "longrope":
            return params, search
    raise SystemExit(f"None of {_MOST_SEEDS} searches chose its factors.")


def measure(storage: Path, case: str, home: Path | None) -> dict[str, Any]:
    """The whole chain, and what `ropeway verify --with` says of its release."""
    params, search = with_found_factors(storage, case)
    release = Chain(params, PlainStages()).published()
    checks = verify_release(release.path, CONSUMERS, home, print_progress)
    for check in checks:
        print(f"{case:<12} {check.name:<28} {'ok' if check.ok else 'NOT ok':<7} {check.detail}", flush=True)
    return {
        "seed": params.rope_search.seed,
        "verdict": search.manifest.summary["verdict"],
        "factors": json.loads((search.path / FACTORS_NAME).read_text(encoding="utf-8")),
        "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", type=Path, required=True, help="folder that keeps base, searches and releases")
    parser.add_argument("--home", type=Path, help="folder of the programs' environments; default: the cache folder")
    parser.add_argument("--json", type=Path, help="file for the results")
    arguments = parser.parse_args()
    found = {case: measure(arguments.storage.absolute(), case, arguments.home) for case in CASES}
    if arguments.json:
        pinned = {name: [pin for pin in RUNNERS[name].pinned if any(word in pin for word in _NAMED)] for name in CONSUMERS}
        device = f"{platform.processor() or platform.machine()} CPU"
        content = {
            "device": device,
            "window": WINDOW,
            "target": TARGET,
            "tolerance": TOLERANCE,
            "pinned": pinned,
            "releases": found,
        }
        write_atomically(arguments.json, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
