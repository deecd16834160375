"""Looking keys up: trained on lines in four forms, or in forms drawn from thousands.

`python -m benchmarks.lookup_forms [--steps 100] [--json FILE]`

The demo base, with RoPE scaled for 4096 tokens, is trained in full attention on retrieval documents of the kind `key_value_rounds`, made
from the running Python's library, once in each way. Then it is asked for keys in its own kind of documents, from other texts, and in the
evaluation's `short_key_value`, JSON objects whose form neither training has. All weights are trained, with one rate, on one thread; eight
documents of 1024 tokens a step. An answer counts if each of its tokens is the likeliest one.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

FEW = (("[", "] ", ""), ("", " := ", ""), ("<", "> ", ""), ("@", " @ ", ""))  # all that the mix had up to its version 6
ROW, ROWS, RATE, WARM_UP = 1024, 8, 1e-3, 20
MEASURED, DEPTHS, SAMPLES, OWN = (512, 2048), 5, 8, 16
TRAINED_FILES, OTHER_FILES = slice(0, 90), slice(90, 120)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lookup_forms", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    found = {
        "machine": f"{platform.machine()}, 1 thread, bf16 autocast, torch {torch.__version__}",
        "steps": args.steps,
        "rows_per_step": ROWS,
        "tokens_per_row": ROW,
        "trained_on": {"four forms": _trained(args.steps, few=True), "many forms": _trained(args.steps, few=False)},
    }
    print(json.dumps(found, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _trained(steps: int, few: bool) -> dict[str, Any]:
    import torch
    import torch.nn.functional as F

    from tasks.retrieval.families import key_value_rounds
    from tasks.retrieval.families.forms import Form, form

    def of_few(rng: np.random.Generator, symbols: Any, signs: str) -> Form:
        return Form(*FEW[rng.integers(len(FEW))]) if few else form(rng, symbols, signs)

    with patch.object(key_value_rounds, "form", of_few):
        model, tokenizer = _base()
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
        documents, other = _documents(tokenizer, TRAINED_FILES, seed=0), _documents(tokenizer, OTHER_FILES, seed=1)
        held_out = [next(other) for _ in range(OWN)]
        before = _measured(model, tokenizer, held_out)
        started = time.perf_counter()
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP)
            for _ in range(2):
                ids, weights, _answers = zip(*(next(documents) for _ in range(ROWS // 2)), strict=True)
                tokens, wanted = torch.tensor(np.stack(ids), dtype=torch.long), torch.tensor(np.stack(weights))[:, 1:]
                with torch.autocast("cpu", torch.bfloat16):
                    logits = model(tokens).logits[:, :-1]
                losses = F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none")
                ((losses * wanted.flatten()).sum() / wanted.sum() / 2).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if not step % 10:
                print(f"{'four' if few else 'many'} forms, step {step}", file=sys.stderr, flush=True)
        seconds = round(time.perf_counter() - started)
        return {"before": before, "after": _measured(model, tokenizer, held_out), "seconds": seconds}


def _base() -> tuple[Any, Any]:
    """The demo base with YaRN for 4096 tokens, as the demo has it, and its tokenizer."""
    import torch
    from transformers import AutoConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    import tasks.model

    place = Path(tasks.model.__file__).parent / "demo_base"
    config = AutoConfig.from_pretrained(place)
    config.rope_parameters = {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 512,
        "rope_theta": config.rope_parameters["rope_theta"],
    }
    config.max_position_embeddings = 4096
    return LlamaForCausalLM.from_pretrained(place, config=config, dtype=torch.float32), PreTrainedTokenizerFast.from_pretrained(
        place
    )


def _texts(files: slice) -> list[Any]:
    import sysconfig

    from tasks.retrieval.text_supply import SourceText

    found = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[files]
    return [SourceText(path.name, path.read_text(errors="ignore"), "PSF-2.0", "en") for path in found]


def _documents(tokenizer: Any, files: slice, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(ids, loss weights, which are answers) of one document after another; texts are used again once they are used up."""
    from functools import partial

    from tasks.retrieval.draft import NotMade
    from tasks.retrieval.families.key_value_rounds import key_value_rounds
    from tasks.retrieval.families.negatives import Negatives
    from tasks.retrieval.families.request import Request
    from tasks.retrieval.fitting import fit
    from tasks.retrieval.rendering import Renderer
    from tasks.retrieval.settings import name_cost, writable_signs, writable_symbols
    from tasks.retrieval.text_supply import TextSupply
    from tasks.retrieval.weights import loss_weights
    from tasks.tokens.encoding import encoder_of
    from tasks.tokens.special_tokens import special_tokens

    encoder = encoder_of(tokenizer)
    renderer = Renderer(encoder, special_tokens(tokenizer), None)
    texts = _texts(files)
    sample = next(encoder.encode([texts[0].text[:20_000]]))
    chars = len(sample.text) / len(sample.ids)
    names = writable_symbols(encoder), writable_signs(encoder), name_cost(encoder, chars)
    number = 0
    while True:
        supply = TextSupply(texts, np.random.default_rng([seed, number]))
        request = Request(supply, Negatives(texts, 400), 16, int(ROW * chars), *names)
        while supply.num_left > 2 * request.num_chars:
            number += 1
            rng = np.random.default_rng([seed, number])
            try:
                fitted = fit(partial(_draft, key_value_rounds, request, int(rng.integers(1 << 30))), renderer, ROW, chars)
            except NotMade:
                supply.use(request.num_chars)
                continue
            supply.use(fitted.draft.num_used + fitted.num_filled)
            rendered = fitted.rendered
            weights = loss_weights(rendered.is_answer, rendered.is_invented, 0.5)
            yield rendered.token_ids, weights, rendered.is_answer


def _draft(family: Any, request: Any, seed: int, num_chars: int) -> Any:
    return family(request, num_chars, np.random.default_rng(seed))


def _measured(model: Any, tokenizer: Any, own: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, float]:
    import torch

    from tasks.evaluate.heldout import tokenize
    from tasks.evaluate.prompts.make import make_prompts
    from tasks.evaluate.prompts.material import Haystack, Material

    haystack = Haystack.of([tokenize(text.doc_id, text.text, tokenizer) for text in _texts(OTHER_FILES)])
    material = Material(tokenizer, haystack, num_depths=DEPTHS, num_samples=SAMPLES, seed=0)
    scores: dict[str, float] = {}
    with torch.no_grad():
        right = [part for ids, _, is_answer in own for part in _right(model, ids, is_answer)]
        scores["of its own kind, from other texts"] = round(float(np.mean(right)), 4)
        for length in MEASURED:
            found = []
            for prompt in make_prompts("short_key_value", length, material):
                ids = np.concatenate([prompt.tokens, prompt.answer])
                found += _right(model, ids, np.arange(len(ids)) >= len(prompt.tokens))
            scores[f"short_key_value at {length}"] = round(float(np.mean(found)), 4)
    return scores


def _right(model: Any, ids: np.ndarray, is_answer: np.ndarray) -> list[bool]:
    """Whether each run of answer tokens is what the model would say, given what stands before each token."""
    import torch

    likeliest = model(torch.tensor(ids[None], dtype=torch.long)).logits[0, :-1].argmax(-1).numpy()
    hit = np.concatenate([[True], likeliest == ids[1:]])
    starts = np.flatnonzero(is_answer & ~np.concatenate([[False], is_answer[:-1]]))
    ends = np.flatnonzero(is_answer & ~np.concatenate([is_answer[1:], [False]])) + 1
    return [bool(hit[a:b].all()) for a, b in zip(starts, ends, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
