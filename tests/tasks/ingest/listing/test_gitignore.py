"""The .gitignore files of a repository leave out what Git itself leaves out."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.listing.gitignore import not_ignored

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")

_NAMES = ("a", "b", "ab", "a.c", "b.log", "#a", "!b", "a b", "A")
_FOLDERS = ("a", "b", "ab", "a.c", "b.log")
_paths = st.tuples(st.lists(st.sampled_from(_FOLDERS), max_size=3), st.sampled_from(_NAMES)).map(
    lambda p: "/".join([*p[0], p[1]])
)
_pieces = st.sampled_from([*_NAMES, "*", "**", "?", "a*", "*.log", "*b", "[ab]", "[a-z].c", "[!a]", "[^b]b", "\\#a", "\\!b"])
_lines = st.builds(
    lambda negation, anchor, pieces, end: negation + anchor + "/".join(pieces) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(_pieces, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "/*", "/**", " ", "\\ "]),
)
_files = st.lists(
    st.one_of(_lines, st.sampled_from(["", "# comment", "*", "!*/", "/", "//", "a[", "!["])), min_size=1, max_size=6
).map("\n".join)
_gitignores = st.dictionaries(st.lists(st.sampled_from(_FOLDERS), max_size=2).map("/".join), _files, min_size=1, max_size=3)


def ignored_by_git(top: Path, paths: Iterable[str], gitignores: Mapping[str, str]) -> set[str]:
    """Those of `paths`, which are created below `top`, that Git ignores."""
    subprocess.run(["git", "init", "-q", str(top)], check=True)
    for path in paths:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).touch()
    for folder, text in gitignores.items():
        (top / folder).mkdir(parents=True, exist_ok=True)
        (top / folder / ".gitignore").write_text(text)
    done = subprocess.run(
        ["git", "-C", str(top), "-c", "core.excludesFile=", "check-ignore", "--stdin", "-z", "--no-index"],
        input="\0".join(paths),
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr  # 1: none is ignored
    return set(done.stdout.split("\0")) - {""}


def without_clashes(paths: Iterable[str], folders: Iterable[str]) -> list[str]:
    """Paths that can exist together: none of a file that another path, or a .gitignore, needs as a folder."""
    paths = set(paths)
    parents = {parent.as_posix() for path in paths for parent in PurePosixPath(path).parents}
    parents |= {above.as_posix() for folder in folders for above in (PurePosixPath(folder), *PurePosixPath(folder).parents)}
    return sorted(paths - parents)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sets(_paths, min_size=1, max_size=40), _gitignores)
@pytest.mark.slow
def test_random_trees_are_sorted_as_git_sorts_them(found: set[str], gitignores: dict[str, str]) -> None:
    paths = without_clashes(found, gitignores)
    with tempfile.TemporaryDirectory() as top:
        ignored = ignored_by_git(Path(top), paths, gitignores)
    assert not_ignored(paths, gitignores) == [path for path in paths if path not in ignored]


@pytest.mark.parametrize(
    ("gitignores", "kept", "ignored"),
    [
        ({"": "*\n!*/\n!*.py"}, ["a/b/c.py"], ["a/b/c.txt"]),
        ({"": "build/\n!build/keep"}, ["x/buildx"], ["build/keep", "x/build/y"]),
        ({"": "logs/*\n!logs/keep\n"}, ["logs/keep"], ["logs/other"]),
        ({"": "logs/**\n!logs/keep\n"}, ["logs/keep"], ["logs/other/keep"]),
        ({"": "*.log", "sub": "sub\n!sub\n"}, ["sub/sub/x.txt"], ["sub/sub/x.log"]),
        ({"": "*.log", "sub": "!keep.log"}, ["sub/deep/keep.log"], ["keep.log", "sub/x.log"]),
        ({"sub": "/only\r\n"}, ["only", "sub/deep/only"], ["sub/only"]),
        ({"": "*[!x]a.c"}, ["d/a.c"], ["d/ba.c"]),
    ],
)
def test_rules(tmp_path: Path, gitignores: dict[str, str], kept: list[str], ignored: list[str]) -> None:
    paths = [*kept, *ignored]
    assert ignored_by_git(tmp_path, paths, gitignores) == set(ignored)
    assert not_ignored(paths, gitignores) == kept
