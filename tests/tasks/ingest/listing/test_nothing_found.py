"""A source in which nothing matches names the endings that are there, before a run and when the corpus is listed."""

import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from data_schemas.errors import UserError
from data_schemas.params import CorpusParams
from tasks.ingest.corpus_units import plan_corpus, refuse_missing

NAMES = ("a.csv", "deep/b.CSV", "deep/c.csv.gz", "d.xlsx", "LICENSE", "deep/.hidden")
THERE = r"there are 2 without an ending, 1 \.CSV, 1 \.csv, 1 \.csv\.gz, 1 \.xlsx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text("x,y\n")
    return tmp_path / "data"


@pytest.fixture
def everywhere(folder: Path) -> Any:
    """The folder by each kind of address."""
    archive = folder.parent / "all.zip"
    memory = fsspec.filesystem("memory")
    with zipfile.ZipFile(archive, "w") as members:
        for name in NAMES:
            members.write(folder / name, f"data/{name}")
            memory.pipe(f"/nothing/{name}", b"x,y\n")
    yield (str(folder), f"file://{folder}", "memory://nothing", f"zip://data::{archive}")
    memory.rm("/nothing", recursive=True)


def refusals(source: dict[str, Any]) -> list[str]:
    """What is said before a run, and when the corpus is listed; the good source beside it does not help."""
    said = []
    for look in (refuse_missing, plan_corpus):
        with pytest.raises(UserError) as raised:
            look(CorpusParams(sources=({"uri": "stdlib:", "include": ("this.py",)}, source)))
        said.append(str(raised.value))
    return said


def matches(pattern: str, said: list[str]) -> bool:
    import re

    return all(re.search(pattern, sentence) for sentence in said) and len(set(said)) == 1


def test_the_endings_are_counted_wherever_the_folder_is(everywhere: tuple[str, ...]) -> None:
    for uri in everywhere:
        assert matches(
            rf"^corpus\.sources\[1\] '.*': no file matches the default `include`; {THERE}: "
            r"set `include`, such as \['\*\*/\*\.CSV'\], or correct the path\.$",
            refusals({"uri": uri}),
        )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"include": ("**/*.TXT",)}, r"no file matches `include` \*\*/\*\.TXT; there are 2 without"),
        (
            {"include": ("**/*.csv",), "exclude": ("**/*.csv*", "**/*.CSV")},
            r"`exclude` leaves out all 2 files that match `include`; .*: correct `e",
        ),
    ],
)
def test_own_patterns_are_named(everywhere: tuple[str, ...], change: dict[str, Any], sentence: str) -> None:
    for uri in everywhere:
        assert matches(sentence, refusals({"uri": uri, **change}))


def test_a_pattern_and_an_empty_folder(folder: Path, tmp_path: Path) -> None:
    assert matches(rf"no file matches the pattern; {THERE}", refusals({"uri": f"{folder}/**/*.md"}))
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    assert matches(r"empty' holds no files: correct the path", refusals({"uri": str(tmp_path / "empty")}))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.xlsx", "convert it to CSV, JSON Lines or Parquet"),
        ("a.rs", "`repository: files`"),
        ("a.log", "what should be read"),
        ("a.zip", r"zip://::FOLDER/a\.zip"),
    ],
)
def test_the_advice_follows_from_what_is_there(tmp_path: Path, name: str, advice: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / name).write_text("x")
    assert matches(advice, refusals({"uri": str(tmp_path / "x")}))


def test_one_match_among_many_is_enough(folder: Path) -> None:
    (folder / "deep" / "e.txt").write_text("text")
    for look in (refuse_missing, plan_corpus):
        look(CorpusParams(sources=(str(folder),)))
