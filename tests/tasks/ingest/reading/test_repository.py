"""Code repositories: what people wrote, as one document a file or one a repository."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.ingest.listing.gitignore import not_ignored
from tasks.ingest.reading.file_formats import names
from tests.tasks.ingest.reading_example import read

FILES = {
    "README.md": "# Tool\n",
    "src/main.py": "print('hello')\n",
    "src/empty.py": "",
    "src/page.html": "<p>Kept as code</p>\n",
    "src/README": "inner readme",
    "Makefile": "all:\n\ttrue\n",
    "a.go": "package a",
    "data/lines.jsonl": '{"text": "not a record"}\n',
    "package-lock.json": "{}",
    "site/app.min.js": "var a",
    "node_modules/x/index.js": "var x",
    ".git/HEAD": "ref: refs/heads/main\n",
    "__pycache__/a.py": "cached",
    ".gitignore": "*.log\n/build/\n",
    "debug.log": "noise",
    "build/out.py": "generated",
    "src/build/kept.py": "kept = 1\n",
}
BINARY = {"logo.png": b"\x89PNG\r\n\x1a\n\0\0", "words.gz": b"\x1f\x8b\x08\0abc"}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "tool"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name, data in BINARY.items():
        (folder / name).write_bytes(data)
    (folder / "latin.c").write_bytes(b"/* caf\xe9 */")
    (folder / "huge.sql").write_text("INSERT;\n" * 130_000)
    return folder


def test_files_of_any_kind_are_read_as_they_are(code: Path) -> None:
    found = read({"uri": str(code), "repository": "files"})
    assert {d.source_uri.removeprefix(f"{code}/"): (d.text, d.format) for d in found.documents} == {
        "Makefile": (FILES["Makefile"], "code"),
        "README.md": (FILES["README.md"], "markdown"),
        "a.go": (FILES["a.go"], "code"),
        "data/lines.jsonl": (FILES["data/lines.jsonl"], "plain"),
        "src/README": (FILES["src/README"], "plain"),
        "src/build/kept.py": (FILES["src/build/kept.py"], "python"),
        "src/main.py": (FILES["src/main.py"], "python"),
        "src/page.html": (FILES["src/page.html"], "code"),
    }
    assert found.reasons == {("empty.py", 0): "empty", ("latin.c", 0): "undecodable"}
    assert {(s.source_uri.removeprefix(f"{code}/"), s.reason) for s in found.skipped} == {
        ("logo.png", "binary"),
        ("words.gz", "binary"),
        ("huge.sql", "large_file"),
    }


def test_a_whole_repository_is_one_document_with_the_readme_first(code: Path) -> None:
    found = read({"uri": str(code), "repository": "whole", "licence": "MIT"})
    (document,) = found.documents
    headers = [line for line in document.text.splitlines() if line.startswith("==> ")]
    assert headers == [
        f"==> {name} <=="
        for name in (
            "README.md",
            "src/README",
            "Makefile",
            "a.go",
            "data/lines.jsonl",
            "src/build/kept.py",
            "src/main.py",
            "src/page.html",
        )
    ]
    assert document.text.startswith("==> README.md <==\n# Tool\n\n==> src/README <==\ninner readme\n\n==> Makefile <==\nall:")
    assert (document.source_uri, document.work, document.format) == (str(code), "tool", "code")
    assert (document.licence, document.record, document.byte_start) == ("MIT", 0, None)
    assert found.reasons == {("latin.c", 0): "undecodable"}
    assert len(found.skipped) == 3


def test_a_folder_of_repositories_gives_one_document_each(code: Path, tmp_path: Path) -> None:
    shutil.copytree(code, tmp_path / "other")
    (tmp_path / "other" / "README.md").write_text("# Other\n")
    (tmp_path / "empty" / "node_modules").mkdir(parents=True)
    (tmp_path / "loose.txt").write_text("beside the repositories")
    found = read({"uri": str(tmp_path), "repository": "whole", "name": "all"})
    assert [(d.work, d.source_uri, d.text.split("\n")[1]) for d in found.documents] == [
        ("other", f"{tmp_path}/other", "# Other"),
        ("tool", f"{tmp_path}/tool", "# Tool"),
    ]


def test_what_makes_a_folder_one_repository_is_in_the_fingerprint(code: Path) -> None:
    source = {"uri": str(code), "repository": "whole"}
    one = read(source)
    shutil.move(code / ".git", code.parent / "away")
    several = read(source)
    assert [d.work for d in one.documents] == ["tool"]
    assert [d.work for d in several.documents] == ["data", "src"]
    assert one.corpus.fingerprint != several.corpus.fingerprint


def test_include_and_exclude_narrow_a_repository_and_its_gitignore_still_counts(code: Path) -> None:
    source = {"uri": str(code), "repository": "files", "include": ("**/*.py",), "exclude": ("src/main.py",)}
    assert [d.work for d in read(source).documents] == ["src/build/kept"]


def test_a_repository_over_the_limit_is_refused(code: Path) -> None:
    found = read({"uri": str(code), "repository": "whole"}, max_document_megabytes=1e-4)
    assert (found.documents, found.reasons[("tool", 0)]) == ([], "too_large")


def test_the_order_of_reading_changes_nothing(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"uri": str(code), "repository": "files"}
    whole = read(source)
    monkeypatch.setattr("tasks.ingest.corpus_units.MIN_UNIT_BYTES", 1)
    monkeypatch.setattr("tasks.ingest.corpus_units.MAX_UNITS", 10**9)
    cut = read(source)
    assert cut.documents == whole.documents
    assert len(cut.corpus.units) > 5


RULES = {
    "": "*.log\n!keep.log\n/top.txt\nbuild/\nsub/deep.txt\n**/any/x\na/**\n\\#odd\n\\!odd\nspace\\ \nspaced   \n# comment\n\n[ab]?.c\n",
    "sub": "/only-here.txt\n!again.log\ninner/\n!inner/kept.txt\n",
}
NAMES = sorted(
    names("""
    x.log keep.log sub/x.log sub/again.log sub/keep.log top.txt sub/top.txt build/a sub/build/a build sub/deep.txt
    sub/sub/deep.txt any/x z/any/x z/any/y a/b a/c/d b/a/c #odd !odd sub/#odd spaced sub/only-here.txt only-here.txt
    sub/inner/x sub/inner/kept.txt inner/x a1.c ab.c c1.c sub/b2.c
    """)
)


def test_gitignore_rules_are_those_of_git(tmp_path: Path) -> None:
    paths = [*NAMES, "space "]
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for folder, text in RULES.items():
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / ".gitignore").write_text(text)
    done = subprocess.run(
        ["git", "-C", str(tmp_path), "check-ignore", "--stdin", "-z", "--no-index"],
        input="\0".join(paths),
        capture_output=True,
        text=True,
    )
    ignored = set(done.stdout.split("\0"))
    assert 10 < len(ignored & set(paths)) < len(paths)
    assert not_ignored(paths, RULES) == [path for path in paths if path not in ignored]
