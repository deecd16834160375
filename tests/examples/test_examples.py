"""Every example runs as a user runs it, in a process of its own and without a network, and prints what it promises."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRINTS = {
    "chunk_a_text": ["Rotary position embeddings > Why a longer context fails", "4 chunks, joined equal to the text: True"],
    "plan_rope": [
        "auto    -> yarn",
        "'factor': 4.0",
        "refused: rope_method linear cannot extend a base that is scaled by yarn",
    ],
    "reorder_passages": ["[1, 3, 5, 4, 2]", 'dropped to keep the budget: ["Python\'s library is the corpus."]'],
    "s2_attention": ["training: S2-Attn, 48 of 256 pairs", "evaluation: full attention, 88 of 256 pairs"],
}


SHARED = ("served_model",)  # imported by those in RAG
RAG = ("rag_haystack", "rag_langchain", "rag_llama_index")  # run in test_rag.py
CONFIGS = ("own_pdfs", "s3_corpus")  # run in test_configs.py


def test_every_example_is_run() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {*PRINTS, *RAG, *SHARED}
    assert {path.stem for path in (ROOT / "examples").glob("*.yaml")} == set(CONFIGS)


@pytest.mark.parametrize("name", PRINTS)
@pytest.mark.slow
def test_example_runs(name: str) -> None:
    script = ROOT / "examples" / f"{name}.py"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    for line in PRINTS[name]:
        assert line in ran.stdout


@pytest.mark.parametrize("name", [*PRINTS, *RAG])
def test_example_is_short_and_explains_itself(name: str) -> None:
    source = (ROOT / "examples" / f"{name}.py").read_text()
    assert len(source.splitlines()) <= 40
    assert f"python examples/{name}.py" in (ast.get_docstring(ast.parse(source)) or "")
