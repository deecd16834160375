"""How a line of key and value is written: signs and invented words around them, drawn anew for each document or round.

Trained on a few forms, a model looks keys up in these and hardly in others (see docs/retrieval-mix.md). None of them is the form of a
line in an evaluation task, which a test proves for all by the signs, and for many by runs of three words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tasks.retrieval.draft import Turn
from tasks.retrieval.families.names import name_kind, short_name

# Around a key or a value. The first is nothing. What stands twice in a list below is drawn twice as often.
AROUND = (
    ("", ""), ("[", "]"), ("<", ">"), ("(", ")"), ("{", "}"), ("@ ", " @"), ("'", "'"), ("`", "`"), ("|", "|"), ("*", "*"), ("/", "/"),
    ("~", "~"), ("_", "_"), ("<<", ">>"), ("[[", "]]"), ("{{", "}}"), ("$", "$"), ("# ", " #"), ("!", "!"),
    *[('"', '"')] * 5,
)  # fmt: skip
BETWEEN = (
    " := ", " @ ", " :: ", " | ", " ~ ", " > ", " & ", " % ", " ^ ", " == ", " ..> ", " =: ", " <- ", " >> ", " => ", " # ", " $ ", " ! ",
    "~ ", "| ", "> ", ":= ", "=> ", ":: ", "; ", "# ", "~", "|", "::", ":=", "=>", "&", "^",
)  # fmt: skip
# Only where the key has signs around it, and neither key nor value is in double quotes: else they are the form of sentences or of
# evaluation tasks.
AFTER_SIGNS = (": ", ": ", ":", " : ", " = ", "=", ", ", ",")
START = ("", "- ", "+ ", "* ", "; ", "% ", "> ", "| ", "@ ")
END = ("", "", ";", " |", " ;", " >", " @")
# Written by any tokenizer that can write the names: forms of the others are drawn only where all their signs come back.
ALWAYS = "[]<>@:=-"
_PARTS = (*sum(AROUND, ()), *BETWEEN, *AFTER_SIGNS, *START, *END)
SIGNS = "".join(sorted({sign for part in _PARTS for sign in part if not sign.isspace()}))
_PHRASES = 0.25  # of the forms have invented words around key and value instead of signs
_PLAIN = 0.5  # of the others have nothing at the start of the line
_MOST_WORDS = 3
_Part = TypeVar("_Part", str, tuple[str, str])


@dataclass(frozen=True)
class Form:
    """A line is `front`, the key, `middle`, the value and `end`."""

    front: str
    middle: str
    end: str

    def line(self, key: str, value: str) -> str:
        return f"{self.front}{key}{self.middle}{value}{self.end}"

    def turn(self, key: str, value: str, evidence: int) -> Turn:
        """The line as a question up to the white space before its value, and the rest."""
        asked = f"{self.front}{key}{self.middle}"
        question = asked.rstrip()
        return Turn(question, f"{asked[len(question) :]}{value}", evidence, self.end)


def sample_lines(symbols: Sequence[str], signs: str, number: int = 200) -> str:
    """Lines of many forms, of which the cost of a line's characters in tokens is estimated."""
    rng = np.random.default_rng(0)
    names = (name_kind(rng, symbols, number) for _ in range(2 * number))
    return "\n".join(form(rng, symbols, signs).line(next(names)(), next(names)()) for _ in range(number))


def form(rng: np.random.Generator, symbols: Sequence[str], signs: str) -> Form:
    """A form whose names are of `symbols` and whose signs are among `signs`."""
    if rng.random() < _PHRASES:
        front, middle, end = (
            [short_name(rng, symbols) for _ in range(int(rng.integers(0, _MOST_WORDS + 1)))] for _ in range(3)
        )
        middle = middle or [short_name(rng, symbols)]
        return Form("".join(f"{word} " for word in front), f" {' '.join(middle)} ", "".join(f" {word}" for word in end))
    start = "" if rng.random() < _PLAIN else _drawn(START, rng, signs)
    (before_key, after_key), (before_value, after_value) = (_drawn(AROUND, rng, signs) for _ in range(2))
    between = _drawn(BETWEEN + AFTER_SIGNS if may_have_colon(after_key, before_value) else BETWEEN, rng, signs)
    return Form(f"{start}{before_key}", f"{after_key}{between}{before_value}", f"{after_value}{_drawn(END, rng, signs)}")


def may_have_colon(after_key: str, before_value: str) -> bool:
    """Whether AFTER_SIGNS may stand between these signs after a key and before a value."""
    return bool(after_key) and '"' not in after_key + before_value


def _drawn(parts: Sequence[_Part], rng: np.random.Generator, signs: str) -> _Part:
    usable = [part for part in parts if all(sign in signs or sign.isspace() for sign in "".join(part))]
    return usable[int(rng.integers(len(usable)))]
