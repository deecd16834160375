"""Every name on the pages exists; and the walker finds each kind of wrong name."""

import re
from pathlib import Path

import pytest

from tests.docs.page_names import ROOT, Page, slug, wrong_names

PAGES = sorted(
    path
    for pattern in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md", "docs/*.md")
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_exists(path: Path) -> None:
    assert wrong_names(Page(path, path.read_text(encoding="utf-8"))) == []


GOOD = """# A good page

[This](good.md#a-good-page), [that](#two-words--more), `tasks/chunk/chunker.py`, `docs/*.md`, `benchmarks/{attention,memory}.py`.

## Two `words` & more

`ropeway prepare | finetune CONFIG`, `ropeway plan my.yaml --set training.steps=50 --gpu-memory 80`, `make test`,
`tasks.chunk.chunker.Chunker`, `model.target_length`, `corpus.sources[].uri`, `storage/documents/DIGEST`, `report.json`.

```console
$ .venv/bin/ropeway verify PATH --with vllm
$ make demo && python -m ray_jobs.finetune --params my.yaml
```

```tree
tasks/        what
  chunk/      what
```
"""

BAD = {
    "[x](gone.md)": "link to gone.md: no such file",
    "[x](good.md#gone)": "link to good.md#gone: no such heading",
    "![x](gone.png)": "link to gone.png: no such file",
    "`tasks/chunk/chunkr.py`": "tasks/chunk/chunkr.py: no such file in the repository",
    "`task/chunk/chunker.py`": "task/chunk/chunker.py: no such file in the repository",
    "`chunkr.py`": "chunkr.py: no such file in the repository",
    "`benchmarks/{attention,memry}.py`": "benchmarks/{attention,memry}.py: no such file in the repository",
    "`deploy/kubernets/`": "deploy/kubernets/: no such file in the repository",
    "```mermaid\nflowchart LR\n  a[tasks/chunk/chunkr.py] --> b\n```": "tasks/chunk/chunkr.py: no such file in the repository",
    "```tree\ntasks/  x\n  chunks/  x\n```": "tasks/chunks in a tree: no such file in the repository",
    "`ropeway retrain my.yaml`": "ropeway retrain: no such command",
    "`ropeway prepare | retrain | publish`": "ropeway retrain: no such command",
    "`ropeway plan my.yaml --gpu-memry 80`": "ropeway plan --gpu-memry: no such option",
    "```console\n$ .venv/bin/ropeway verify X --wit vllm\n```": "ropeway verify --wit: no such option",
    "`make tests`": "make tests: no such target",
    "```console\n$ make dem\n```": "make dem: no such target",
    "`python -m sphynx`": "python -m sphynx: no such module",
    "`tasks.chunk.chunker.Chunkr`": "tasks.chunk.chunker.Chunkr: no such module or name in one",
    "`tasks.chunks`": "tasks.chunks: no such module or name in one",
    "`training.step`": "training.step: no such parameter",
    "`ropeway run my.yaml --set model.lenght=1`": "model.lenght: no such parameter",
}


def test_a_good_page_has_no_wrong_name(tmp_path: Path) -> None:
    path = tmp_path / "good.md"
    path.write_text(GOOD)
    assert wrong_names(Page(path, GOOD)) == []


@pytest.mark.parametrize("wrong", BAD)
def test_each_kind_of_wrong_name_is_found(wrong: str, tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text(GOOD)
    assert wrong_names(Page(tmp_path / "bad.md", f"# Bad\n\n{wrong}\n")) == [BAD[wrong]]


def test_anchors_are_those_of_code_hosts() -> None:
    assert slug("S²-Attn, [exactly](x.md): `tasks/` & more") == "s²-attn-exactly-tasks--more"


def test_messages_quoted_as_symptoms_are_said_somewhere() -> None:
    said = (ROOT / "Makefile").read_text()
    for folder in ("data_schemas", "tasks", "ray_jobs", "flows"):
        for path in (ROOT / folder).rglob("*.py"):
            said += re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8"))  # a sentence over several lines of source
    symptoms = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.M)
    quoted = [
        part
        for symptom in symptoms
        for quote in re.findall(r'"([^"]+)"', symptom)
        for part in re.split(r" ?… ?", quote)
        if part
    ]
    of_prefect = {"not fully defined"}
    assert len(quoted) > 10
    assert [part for part in quoted if part not in said and part not in of_prefect] == []
