"""What the three retrieval examples share: a few passages, a question, and asking a served release.

OPENAI_BASE_URL names another server with the API of `vllm serve`.
"""

import json
import os
import re
from collections.abc import Iterable
from urllib.request import Request, urlopen
from zlib import crc32

SERVER = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
NAMES = ("north", "south", "old", "iron", "mill", "moon")
TEXTS = [f"The {name} bridge is {60 + 7 * i} m long." for i, name in enumerate(NAMES)]
QUESTION = "How long is the iron bridge?"
NUM_SLOTS = 512


def word_counts(text: str) -> list[float]:
    """A vector that stands for an embedding here: counts of words, hashed to NUM_SLOTS numbers."""
    slots = [crc32(word.encode()) % NUM_SLOTS for word in re.findall(r"\w+", text.lower())]
    return [float(slots.count(slot)) for slot in range(NUM_SLOTS)]


def answer(passages: Iterable[str]) -> str:
    """What the served model writes after the passages and the question."""
    model = json.load(urlopen(f"{SERVER}/models"))["data"][0]["id"]
    prompt = "\n\n".join([*passages, f"Question: {QUESTION}", "Answer:"])
    body = json.dumps({"model": model, "prompt": prompt, "max_tokens": 32}).encode()
    asked = Request(f"{SERVER}/completions", body, {"Content-Type": "application/json"})
    return str(json.load(urlopen(asked))["choices"][0]["text"])
