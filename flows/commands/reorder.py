"""`ropeway reorder`: prints passages in prompt order, and on standard error what it left out."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

from data_schemas.errors import UserError
from tasks.reorder.apply import arrange_file
from tasks.reorder.options import ReorderOptions


def print_reordered(
    config: Path, passages: Path, budget_tokens: int | None, options: ReorderOptions, tokenizer: Path | None
) -> None:
    """Print the passages, one JSON object per line. `tokenizer`: a tokenizer.json, or its folder, used to count tokens."""
    if tokenizer is not None:
        from tokenizers import Tokenizer

        from tasks.tokens.encoding import Encoder

        file = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
        if not file.is_file():
            raise UserError(f"There is no tokenizer {file}: give a tokenizer.json or the folder of a release.")
        try:
            counter = Encoder(Tokenizer.from_file(str(file)))
        except Exception as error:  # the library raises nothing narrower
            raise UserError(
                f"{file} is not a tokenizer ({error}): give a tokenizer.json or the folder of a release."
            ) from error
        options = replace(options, count_tokens=lambda text: sum(len(encoded.ids) for encoded in counter.encode([text])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the note is printed below
        arranged = arrange_file(config, passages, budget_tokens, options)
    for part in arranged.parts():
        print(json.dumps(part, ensure_ascii=False))
    if arranged.note:
        print(arranged.note, file=sys.stderr)
    if arranged.dropped:
        print(f"{len(arranged.dropped)} passages do not fit {budget_tokens} tokens and were left out.", file=sys.stderr)
    if arranged.merged:
        print(f"{len(arranged.merged)} passages were merged into others.", file=sys.stderr)
    if arranged.fallback_reason:
        print(arranged.fallback_reason, file=sys.stderr)
