"""Which files of a listing a repository's own .gitignore files leave out (the rules of gitignore(5))."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

GITIGNORE = ".gitignore"
_BELOW_MATCH = "ps_d"  # pathspec's group for the slash behind a matched folder: the pattern matches a folder above the path


@dataclass(frozen=True)
class _Rule:
    """One line of a .gitignore file. `pattern.include` is false where it takes back what earlier lines ignore."""

    pattern: GitIgnoreSpecPattern
    folders_only: bool
    names_only: bool  # without a slash, a pattern is compared with the last part of a path

    def matches(self, path: str, is_folder: bool) -> bool:
        """Whether the line is about `path` itself, relative to the .gitignore file's folder."""
        if self.folders_only and not is_folder:
            return False
        found = self.pattern.match_file(path.rpartition("/")[2] if self.names_only else path)
        return found is not None and not found.match.groupdict().get(_BELOW_MATCH)


def not_ignored(names: Iterable[str], gitignores: Mapping[str, str]) -> list[str]:
    """The paths of `names` that no rule ignores; `gitignores` has the content of each .gitignore by the path of its folder.

    Paths are POSIX and relative; the top folder is "". The last matching line of the nearest file decides. A path below an
    ignored folder stays ignored, whatever follows: so folders are judged from the top, each by the lines about itself.
    """
    rules = {folder: [rule for line in text.split("\n") if (rule := _rule(line))] for folder, text in gitignores.items()}
    known: dict[str, bool] = {"": False}

    def is_ignored(path: str, is_folder: bool) -> bool:
        parent = PurePosixPath(path).parent.as_posix() if "/" in path else ""
        if parent not in known:
            known[parent] = is_ignored(parent, True)
        if known[parent]:
            return True
        for above in _folders_above(path):
            below = path.removeprefix(f"{above}/") if above else path
            for rule in reversed(rules.get(above, ())):
                if rule.matches(below, is_folder):
                    return bool(rule.pattern.include)
        return False

    return [name for name in names if not is_ignored(name, False)]


def _folders_above(path: str) -> list[str]:
    """The nearest first, the top folder last."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]


def _rule(line: str) -> _Rule | None:
    """None for a blank line, a comment, and a pattern that is not valid, which Git ignores too."""
    line = re.sub(r"(?<!\\)\s+$", "", line)
    text = line.removesuffix("/")
    if text.endswith("/"):
        return None
    try:
        pattern = GitIgnoreSpecPattern(text)
    except (GitIgnorePatternError, re.error):
        return None
    return None if pattern.include is None else _Rule(pattern, text != line, "/" not in text)
