"""Which files of a listing a repository's own .gitignore files leave out (the rules of gitignore(5))."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tasks.ingest.globs import any_of

GITIGNORE = ".gitignore"


@dataclass(frozen=True)
class _Rule:
    """One pattern: which paths below the repository's folder it is about, and whether it takes back what others ignore."""

    matches: re.Pattern[str]
    folders_only: bool
    is_negated: bool


def not_ignored(names: Iterable[str], gitignores: Mapping[str, str]) -> list[str]:
    """The paths of `names` that no rule ignores; `gitignores` has the content of each .gitignore by the path of its folder.

    Paths are POSIX and relative; the top folder is "". A path below an ignored folder stays ignored, whatever follows.
    """
    rules = {
        folder: [rule for line in text.splitlines() if (rule := _rule(folder, line))] for folder, text in gitignores.items()
    }
    known: dict[str, bool] = {"": False}

    def is_ignored(path: str, is_folder: bool) -> bool:
        parent = PurePosixPath(path).parent.as_posix() if "/" in path else ""
        if parent not in known:
            known[parent] = is_ignored(parent, True)
        if known[parent]:
            return True
        ignored = False
        for above in _folders_above(path):
            for rule in rules.get(above, ()):
                if (is_folder or not rule.folders_only) and rule.matches.fullmatch(path):
                    ignored = not rule.is_negated
        return ignored

    return [name for name in names if not is_ignored(name, False)]


def _folders_above(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(len(parts) + 1)]


def _rule(folder: str, line: str) -> _Rule | None:
    pattern = re.sub(r"(?<!\\)\s+$", "", line)
    if not pattern or pattern.startswith("#"):
        return None
    is_negated = pattern.startswith("!")
    pattern = re.sub(r"\\([#!\s])", r"\1", pattern[is_negated:])
    folders_only = pattern.endswith("/")
    pattern = pattern.rstrip("/")
    if not pattern:
        return None
    anchored = pattern.removeprefix("/") if "/" in pattern else f"**/{pattern}"
    matches = any_of((anchored,))
    return _Rule(
        re.compile(re.escape(f"{folder}/" if folder else "") + f"(?:{matches.pattern})", re.DOTALL), folders_only, is_negated
    )
