"""Glob patterns over relative POSIX paths, the same on every file system."""

import re
from collections.abc import Sequence

from data_schemas.params import DEFAULT_INCLUDE

COMPRESSED_SUFFIXES = (".gz", ".zst")
_MAGIC = re.compile(r"[*?\[]")


def has_magic(text: str) -> bool:
    """Whether `text` is a pattern rather than a name."""
    return bool(_MAGIC.search(text))


def split_pattern(path: str) -> tuple[str, str]:
    """A pattern's fixed folder and the rest of it: "a/b/*/c.txt" gives ("a/b", "*/c.txt")."""
    parts = path.split("/")
    first = next((i for i, part in enumerate(parts) if has_magic(part)), len(parts))
    return "/".join(parts[:first]), "/".join(parts[first:])


def any_of(patterns: Sequence[str], or_compressed: bool = False, any_case: bool = False) -> re.Pattern[str]:
    """A regular expression that matches (with `fullmatch`) what any of the patterns matches.

    `or_compressed`: also match the name followed by .gz or .zst. `any_case`: ignore case; by default case counts, on every
    file system.
    """
    joined = "|".join(_regex(p) for p in patterns) or r"(?!)"
    flags = re.DOTALL | (re.IGNORECASE if any_case else re.NOFLAG)
    return re.compile(rf"(?:{joined})(?:\.gz|\.zst)?" if or_compressed else joined, flags)


def included(patterns: Sequence[str]) -> re.Pattern[str]:
    """Matches the files of a source's `include`, compressed or not. The default patterns ignore case, a user's do not."""
    return any_of(patterns, or_compressed=True, any_case=patterns == DEFAULT_INCLUDE)


def max_depth(patterns: Sequence[str]) -> int | None:
    """Number of folders above the deepest possible match; None if there is no limit."""
    if any("**" in pattern for pattern in patterns):
        return None
    return max(pattern.removeprefix("./").count("/") for pattern in patterns)


def _regex(pattern: str) -> str:
    """`**` stands for any number of folders, `*` and `?` stay inside one name, `[ab]` and `[!ab]` are character sets."""
    parts = []
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", pattern.removeprefix("./"), re.DOTALL):
        if token == "**/":
            parts.append(r"(?:.*/)?")
        elif token == "**":
            parts.append(".*")
        elif token == "*":
            parts.append("[^/]*")
        elif token == "?":
            parts.append("[^/]")
        elif len(token) > 1:
            negated = token.startswith("[!")
            members = token[2 if negated else 1 : -1].replace("\\", "\\\\").replace("[", r"\[").replace("^", r"\^")
            parts.append(f"[{'^' if negated else ''}{members}]")
        else:
            parts.append(re.escape(token))
    return "".join(parts)
