"""Looking keys up: trained on lines in four forms or in thousands, with names of few kinds or of many.

`python -m benchmarks.lookup_forms [--steps 100] [--json FILE]`

LoRA of rank 32 on the demo base, with RoPE scaled for 4096 tokens, is trained in full attention on retrieval documents of the kind
`key_value_rounds`, made from the running Python's library, once in each way. Then it is asked for keys in its own kind of documents,
from other texts, and in the evaluation's `short_key_value`, JSON objects whose form and names no training has. One thread; eight documents
of 1024 tokens a step, with 80 % of the loss on answers. An answer counts if each of its tokens is the likeliest one.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

FEW_FORMS = (("[", "] ", ""), ("", " := ", ""), ("<", "> ", ""), ("@", " @ ", ""))  # all that the mix had up to its version 6
FEW_LETTERS = "bdfgklmnprstvz", "aeiou"  # of all names up to its version 7
WAYS = {
    "four forms, names of few kinds": (True, True),
    "many forms, names of few kinds": (False, True),
    "many forms, names of many kinds": (False, False),
}
ROW, ROWS, ANSWER_WEIGHT = 1024, 8, 0.8
RANK, LORA_RATE, FULL_RATE, WARM_UP = 32, 2e-3, 1e-3, 20
MEASURED, DEPTHS, SAMPLES, OWN = (512, 2048), 5, 16, 16
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
        "answer_weight": ANSWER_WEIGHT,
        "lora_rank": RANK,
        "trained_on": {name: _trained(args.steps, *few) for name, few in WAYS.items()},
    }
    print(json.dumps(found, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _trained(steps: int, few_forms: bool, few_names: bool) -> dict[str, Any]:
    import torch
    import torch.nn.functional as F
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base, tokenizer = _base()
    documents, other = _documents(tokenizer, TRAINED_FILES, seed=0), _documents(tokenizer, OTHER_FILES, seed=1)
    with _few(few_forms, few_names):
        held_out = [next(other) for _ in range(OWN)]
        before = _measured(base, tokenizer, held_out)
        full = ["embed_tokens", "norm", "input_layernorm", "post_attention_layernorm"]
        lora = LoraConfig(
            r=RANK,
            lora_alpha=2 * RANK,
            target_modules="all-linear",
            modules_to_save=full,
            task_type="CAUSAL_LM",
            ensure_weight_tying=True,
        )
        model = get_peft_model(base, lora)
        trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        rates = {
            LORA_RATE: [w for name, w in trained if "lora_" in name],
            FULL_RATE: [w for name, w in trained if "lora_" not in name],
        }
        optimizer = torch.optim.AdamW(
            [{"params": weights, "rate": rate} for rate, weights in rates.items()], betas=(0.9, 0.95), weight_decay=0.0
        )
        started = time.perf_counter()
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * min(1.0, (step + 1) / WARM_UP)
            for _ in range(2):
                ids, weights, _answers = zip(*(next(documents) for _ in range(ROWS // 2)), strict=True)
                tokens, wanted = torch.tensor(np.stack(ids), dtype=torch.long), torch.tensor(np.stack(weights))[:, 1:]
                with torch.autocast("cpu", torch.bfloat16):
                    logits = model(tokens).logits[:, :-1]
                losses = F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none")
                ((losses * wanted.flatten()).sum() / wanted.sum() / 2).backward()
            torch.nn.utils.clip_grad_norm_([weight for _, weight in trained], 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if not step % 10:
                print(f"step {step}", file=sys.stderr, flush=True)
        seconds = round(time.perf_counter() - started)
        return {"before": before, "after": _measured(model, tokenizer, held_out), "seconds": seconds}


@contextmanager
def _few(few_forms: bool, few_names: bool) -> Iterator[None]:
    """Few forms or kinds of names in place of the mix's own."""
    from tasks.retrieval.families import forms, key_value, key_value_rounds

    def form(rng: np.random.Generator, _symbols: Any, _signs: str) -> forms.Form:
        return forms.Form(*FEW_FORMS[rng.integers(len(FEW_FORMS))])

    with ExitStack() as patched:
        if few_forms:
            patched.enter_context(patch.object(key_value_rounds, "form", form))
        if few_names:
            for name, few in (("name_kind", _few_kinds), ("value_kind", _few_kinds), ("short_name", _short_name)):
                patched.enter_context(patch.object(key_value, name, few))
            patched.enter_context(patch.object(forms, "short_name", _short_name))
        yield


def _few_kinds(rng: np.random.Generator, _symbols: Any, _number: int) -> Callable[[], str]:
    from tasks.retrieval.families.names import digits

    kinds: list[Callable[[], str]] = [
        lambda: _few_letters(rng, 3),
        lambda: f"{_few_letters(rng, 2)}-{_few_letters(rng, 2)}",
        lambda: digits(rng),
        lambda: "-".join(str(n) for n in rng.integers(0, 10, 4).tolist()),
        lambda: str(rng.integers(100_000, 1_000_000)),
        lambda: f"{_few_letters(rng, 2)}{rng.integers(10, 100)}",
        lambda: f"{rng.integers(10, 100)}{_few_letters(rng, 2)}",
    ]
    return kinds[int(rng.integers(len(kinds)))]


def _short_name(rng: np.random.Generator, _symbols: Any) -> str:
    return _few_letters(rng, 2)


def _few_letters(rng: np.random.Generator, syllables: int) -> str:
    consonants, vowels = FEW_LETTERS
    return "".join(consonants[rng.integers(len(consonants))] + vowels[rng.integers(len(vowels))] for _ in range(syllables))


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
            weights = loss_weights(rendered.is_answer, rendered.is_invented, ANSWER_WEIGHT)
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
