"""What the three retrieval examples share: a few texts, a question, and asking a served release in the way that it advises.

OPENAI_BASE_URL names another server with the API of `vllm serve`, and OPENAI_MODEL the model there: `transformers serve FOLDER` lists
none, so give FOLDER.
"""

import json
import os
import re
from collections.abc import Iterable
from typing import Any
from urllib.request import Request, urlopen
from zlib import crc32

from tasks.reorder import HowToServe
from tasks.reorder.measured_prompts import answer_prompt, first_line_logprob, measured_notes
from tasks.reorder.splitting import split

SERVER = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
NAMES = ("north", "south", "old", "iron", "mill", "moon")
TEXTS = [f"The {name} bridge is {60 + 7 * i} m long." for i, name in enumerate(NAMES)]
QUESTION = "How long is the iron bridge?"
NUM_SLOTS = 512
TIMEOUT_S = 120


def word_counts(text: str) -> list[float]:
    """A vector that stands for an embedding here: counts of words, hashed to NUM_SLOTS numbers."""
    slots = [crc32(word.encode()) % NUM_SLOTS for word in re.findall(r"\w+", text.lower())]
    return [float(slots.count(slot)) for slot in range(NUM_SLOTS)]


def passages(how: HowToServe) -> list[str]:
    """The texts, cut as the release advises. Words stand for tokens here; count with the release's tokenizer."""
    return [piece for text in TEXTS for piece in split(text, how.chunking.max_tokens, num_words)]


def num_words(text: str) -> int:
    return len(text.split())


def tell(how: HowToServe) -> None:
    """Say what the release advises, and whether that is for another model than the release."""
    if how.other_model:
        print(how.other_model)
    print("advised:", how.way, how.reason)


def answer(found: Iterable[str], how: HowToServe) -> str:
    """What the served model writes for the passages that were found, or in the other way that the release advises."""
    if how.way in ("map_reduce", "refine"):
        found = [measured_notes("\n\n".join(TEXTS), SERVER, QUESTION, how, count_tokens=num_words).text]
    text, logprob = complete(TEXTS if how.way == "full" else found, how)
    if logprob is not None and how.asks_long(logprob):
        text, _ = complete(TEXTS, how)  # the first answer is unlikely: read everything
    return text


def complete(texts: Iterable[str], how: HowToServe) -> tuple[str, float | None]:
    """The answer, and the mean log-probability of its first line's tokens if the server gives it."""
    model = os.environ.get("OPENAI_MODEL") or ask("models")["data"][0]["id"]
    prompt = answer_prompt("\n\n".join(texts), QUESTION)
    most = how.answer_tokens or 32
    body = {"model": model, "prompt": prompt, "max_tokens": most, "temperature": 0, "logprobs": 1}
    choice = ask("completions", body)["choices"][0]
    given = choice.get("logprobs") or {}
    return str(choice["text"]), first_line_logprob(given.get("tokens") or [], given.get("token_logprobs") or [])


def ask(path: str, body: object = None) -> Any:
    """What the server answers; an error after TIMEOUT_S without a sign of it."""
    content = None if body is None else json.dumps(body).encode()
    asked = Request(f"{SERVER}/{path}", content, {"Content-Type": "application/json"})
    with urlopen(asked, timeout=TIMEOUT_S) as response:
        return json.load(response)
