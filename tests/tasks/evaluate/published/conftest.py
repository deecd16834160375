"""NLTK's Punkt from the package llama-index-core, which the tests have."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def punkt(monkeypatch: pytest.MonkeyPatch) -> None:
    import llama_index.core
    import nltk

    folder = Path(llama_index.core.__file__).parent / "_static" / "nltk_cache"
    monkeypatch.setattr(nltk.data, "path", [str(folder)])
