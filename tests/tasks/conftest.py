"""A small corpus of text files."""

from pathlib import Path

import pytest


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    (folder / "deep" / "er").mkdir(parents=True)
    for number in range(8):
        (folder / "deep" / f"{number}.txt").write_text(f"Document number {number}.\n")
    return folder
