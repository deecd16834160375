"""Where the topic changes: sentences compared by an embedding model from a folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_schemas.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_GROUP_CHARS = 400  # of text on each side of a boundary that are compared
_WORD_START = re.compile(r"(?<=\s)\S")


class Embedder:
    """Texts as vectors.

    The model is a transformers encoder saved as safetensors; a text's embedding is the mean of its last hidden states
    (Reimers & Gurevych 2019, arXiv 1908.10084, section 3). Nothing is downloaded and no code in the folder is run.
    UserError, which names `parameter`, if the folder cannot be used.
    """

    def __init__(self, path: str, parameter: str) -> None:
        self._tokenizer, self._model = _load(path, parameter)
        known = getattr(self._model.config, "max_position_embeddings", None) or 512
        self._max_tokens = max(2, min(int(known), 512) - 2)  # some count positions from 2

    def embed(self, texts: list[str]) -> np.ndarray:
        """Unit vectors, float64 [num_texts, width]. Texts go one by one: in a batch, its other texts change the last digits."""
        import torch

        with torch.inference_mode():
            rows = [self._embed_one(text) for text in texts]
        stacked = torch.stack(rows).to(torch.float64).numpy()
        return stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12)

    def _embed_one(self, text: str) -> torch.Tensor:
        batch = self._tokenizer(text, truncation=True, max_length=self._max_tokens, return_tensors="pt")
        hidden_BLD = self._model(**batch).last_hidden_state
        return hidden_BLD[0].float().mean(dim=0)


class TopicShift:
    """Compares the text before a place with the text after it, by an `Embedder`."""

    def __init__(self, path: str) -> None:
        self._embedder = Embedder(path, "chunking.embedding_model")

    def choose(self, paragraph: str, offset: int, starts: list[tuple[int, int]]) -> int:
        """The cut with the least similar text before and after it; of equals the last.

        `starts` are (cut, character) of sentences, the characters counted from `offset` before `paragraph`.
        """
        if len(starts) == 1:
            return starts[0][0]
        positions = [char - offset for _, char in starts]
        texts = [_tail(paragraph[max(0, p - _GROUP_CHARS) : p]) for p in positions]
        texts += [_head(paragraph[p : p + _GROUP_CHARS]) for p in positions]
        vectors = self._embedder.embed(texts)
        alike = np.round(np.sum(vectors[: len(starts)] * vectors[len(starts) :], axis=1), 4)
        return starts[len(starts) - 1 - int(np.argmin(alike[::-1]))][0]


def _tail(text: str) -> str:
    """Without a word that is cut at the start."""
    match = _WORD_START.search(text)
    return text[match.start() :] if match and len(text) == _GROUP_CHARS else text


def _head(text: str) -> str:
    """Without a word that is cut at the end."""
    return text.rsplit(None, 1)[0] if len(text) == _GROUP_CHARS and len(text.split(None, 1)) > 1 else text


def _load(path: str, parameter: str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    folder = refuse_unusable(path, parameter)
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model = AutoModel.from_pretrained(folder, use_safetensors=True, **options)
    except (ValueError, OSError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{parameter} {path!r} cannot be loaded: {reason}; give the folder of an encoder.") from error
    return tokenizer, model.eval()


def refuse_unusable(path: str, parameter: str) -> Path:
    """The folder of an embedding model. UserError, which names `parameter`, if it is not one, without loading it."""
    folder = Path(path).expanduser()
    if not (folder / "config.json").is_file():
        raise UserError(f"{parameter} {path!r} is not a model's folder: give a folder with a config.json.")
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{parameter} {path!r} has no .safetensors weights: convert them, because other formats are not loaded."
        )
    return folder
