"""Text is encoded as text, whole or in segments, and ids give back their characters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tasks.tokens import encoding
from tasks.tokens.encoding import Encoder, encoder_of
from tasks.tokens.special_tokens import SpecialTokens, special_tokens
from tests.conftest import TEXT
from tests.tasks.tokens.made_tokenizers import KINDS

PIECES = ["the", " bridge", " ", "  ", "\n", "\n\n", ".\n", "12345", "</s>", "<s>", "\u00e9", "\u65e5\u672c", "x", "A line"]
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=20).map("".join)


def plain(kind: str) -> Tokenizer:
    """The tokenizer itself, for text as text."""
    raw = Tokenizer.from_str(KINDS[kind]().backend_tokenizer.to_str())
    raw.encode_special_tokens = True
    return raw


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
def test_a_text_has_the_tokenizers_ids_and_no_control_token(kind: str, text: str) -> None:
    tokenizer = KINDS[kind]()
    (encoded,) = encoder_of(tokenizer).encode([text])
    if kind != "unigram" or "s>" not in text:  # a Unigram model itself finds its control tokens in a text
        assert encoded.ids.tolist() == plain(kind).encode(text, add_special_tokens=False).ids
    assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(encoded.ids.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_segments_have_the_ids_of_the_whole_text(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXT * 8
    monkeypatch.setattr(encoding, "SEGMENT_CHARS", 128)
    (encoded,) = Encoder(KINDS[kind]()).encode([text])
    assert encoded.ids.tolist() == plain(kind).encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", KINDS)
@given(before=TEXTS, text=TEXTS)
def test_ids_in_the_middle_of_a_text_stand_for_its_characters(kind: str, before: str, text: str) -> None:
    encoder = encoder_of(KINDS[kind]())
    if kind == "unigram":  # it has no ids for other characters
        before, text = (one.encode("ascii", "ignore").decode() for one in (before, text))
    (encoded,) = encoder.encode([text], is_start=False)
    assert encoder.text(encoded.ids) == text
    (whole,) = encoder.encode([before + text])
    assert encoder.text(whole.ids).removeprefix(" ").endswith((before + text).removeprefix(" "))


def test_parts_of_characters_are_dropped() -> None:
    encoder = encoder_of(KINDS["bytes"]())
    (encoded,) = encoder.encode(["a\u65e5b"])
    assert encoder.text(encoded.ids[2:]) == "b"
    assert encoder.text(encoded.ids[:-2]) == "a"


@pytest.mark.parametrize("kind", KINDS)
def test_bos_begins_every_piece_and_eos_ends_a_document(kind: str) -> None:
    tokenizer = KINDS[kind]()
    special = special_tokens(tokenizer)
    assert special == SpecialTokens(None if kind == "bytes" else tokenizer.bos_token_id, tokenizer.eos_token_id)
    bos, eos = [] if special.bos is None else [special.bos], [special.eos]
    assert special.around([7, 8], is_last=False).tolist() == [*bos, 7, 8]
    assert special.around(np.array([7, 8], np.int32), is_last=True).tolist() == [*bos, 7, 8, *eos]
    assert special.around([7], is_last=True).dtype == np.int32
