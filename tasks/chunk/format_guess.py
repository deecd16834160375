"""Guesses which of `data_schemas.tables.TEXT_FORMATS` a text of unknown origin has."""

from __future__ import annotations

import re

_SAMPLE_CHARS = 1 << 15
_PYTHON = re.compile(
    r"^(?:(?:async )?def \w+\(.*|class \w+[:(].*|from [\w.]+ import \S.*|import \w[\w., ]*|if __name__ == .*|@\w[\w.]*(?:\(.*)?)$",
    re.MULTILINE,
)
_PYTHON_BLOCK = re.compile(r"^[ \t]*(?:async )?(?:def|class)\b[^\n]*:[ \t]*(?:#[^\n]*)?\n", re.MULTILINE)
_PROSE = re.compile(r"^(?: {0,3}(?:```|~~~)|[ \t]*\\(?:documentclass|begin|section|chapter)\b)", re.MULTILINE)


def guess_format(lines: str) -> str:
    """`python` or `code` if the text's beginning leaves little doubt, else `auto`: prose with some mark-up.

    Conservative: a text with fenced code, or LaTeX, counts as prose. A program must show a definition with a block, or end
    many of its lines in `;`, `{` or `}`. `lines` has "\\n" for every line end.
    """
    sample = lines[:_SAMPLE_CHARS]
    has_blocks = ("def" in sample or "class" in sample) and _PYTHON_BLOCK.search(sample)
    ends = [line.rstrip(" \t")[-1:] for line in sample.split("\n") if line and not line.isspace()]
    if has_blocks and len(_PYTHON.findall(sample)) >= max(2, len(ends) / 100):
        found = "python"
    elif len(ends) >= 8 and sum(end in ";{}" for end in ends) > 0.4 * len(ends):
        found = "code"
    else:
        return "auto"
    return "auto" if _PROSE.search(sample) else found
