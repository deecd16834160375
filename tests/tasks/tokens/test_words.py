"""Encoding by words gives the tokenizer's own ids, for each way a byte-level pre-tokenizer is built."""

import json
import random
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tasks.tokens import words
from tasks.tokens.encoding import Encoder
from tests.conftest import TEXT

CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
KINDS = ["gpt2", "digits", "cl100k", "o200k", "nfc", "qwen2"]
PIECES = ["the", "Don't", "it'S", "’s", "ſ", "x1y22", "1234567", " ", "  ", "   ", "\n", "\r\n", "\t", "a_b", "(self.x)", "...", "é",
          "e\u0301",           "ΑΒγ", "мир", "日本",
          "पहाड़ी", "क्षि", "ஆற்றை", "বাংলা", "جِسْر", "۳٣", "גֶּשֶׁר", "다리", "สะพาน", "ほん", "々", "ー", "〇", "　", "，", "ﷺ", "\u200c", "👩‍👩‍👧",
          "→x✓1", "€²", "™a", "Ⅷ①", "\u200d", "☃\ufe0f", "\u00a0", "\u2003", "\u0085", "\x1c", "²", "½", "ǅ",
          "\u0378", "</s>", "İ", "K", "\ufeff"]  # fmt: skip
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=6)), max_size=30).map("".join)


def build(kind: str) -> Tokenizer:
    raw = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind in ("gpt2", "digits", "nfc"))
    expression = {"cl100k": CL100K, "o200k": O200K, "qwen2": QWEN2}.get(kind)
    if expression:
        raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), "isolated"), byte_level])
    elif kind == "digits":
        raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    else:
        raw.pre_tokenizer = byte_level
    if kind in ("nfc", "qwen2"):
        raw.normalizer = normalizers.NFC()
    raw.decoder = decoders.ByteLevel()
    corpus = [TEXT, "".join(PIECES), "  x   y\n\n\n  z 12 345 don't I'LL"] * 4
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(corpus, trainer)
    return raw


@pytest.fixture(scope="module")
def built() -> dict[str, tuple[Tokenizer, Encoder]]:
    made = {kind: build(kind) for kind in KINDS}
    for raw in made.values():
        raw.encode_special_tokens = True
    return {kind: (raw, Encoder(raw)) for kind, raw in made.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_split_by_us(built: dict[str, tuple[Tokenizer, Encoder]], kind: str) -> None:
    splitter = words.find_splitter(json.loads(built[kind][0].to_str()))
    assert splitter is not None
    text = "Don't  stop at 1234,\n\n  “Ça va” — мир."
    pieces = splitter.split(text)
    assert pieces is not None
    assert "".join(pieces) == text
    assert splitter.split("Ready ✓ 👩‍👩‍👧 → €5 😀") is not None
    assert splitter.split("日本 पुल جسر 다리 สะพาน") is not None
    assert splitter.split("\ua000 \u1c90") is None


@settings(max_examples=150)
@given(text=TEXTS)
def test_ids_are_the_tokenizers_own(built: dict[str, tuple[Tokenizer, Encoder]], text: str) -> None:
    for raw, encoder in built.values():
        (encoded,) = encoder.encode([text]) if text else [None]
        if encoded is not None:
            assert encoded.ids.tolist() == raw.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_every_known_character_is_split_as_the_tokenizer_splits_it(
    built: dict[str, tuple[Tokenizer, Encoder]], kind: str
) -> None:
    raw, encoder = built[kind]
    splitter = words.find_splitter(json.loads(raw.to_str()))
    assert splitter is not None
    codes = words.known_characters()
    characters = [chr(i) for i in codes if not 0x3400 <= i < 0xD7A4 or i % 16 == 0]  # Han and Hangul: some of many alike
    texts = [f"a{c}b {c}c 1{c}2  {c}{c}\n{c} '{c} .{c}" for c in characters]
    texts = [text for text in texts if splitter.split(text) is not None]
    assert len(texts) > 9_000
    ours = [encoded.ids.tolist() for encoded in encoder.encode(texts)]
    assert ours == [encoding.ids for encoding in raw.encode_batch(texts, add_special_tokens=False)]


SCRIPTS = {
    "devanagari": (0x900, 0x980), "bengali": (0x980, 0xA00), "tamil": (0xB80, 0xC00), "arabic": (0x600, 0x700), "hebrew": (0x590, 0x600),
    "thai": (0xE00, 0xE80), "kana": (0x3040, 0x3100), "han": (0x4E00, 0x5200), "hangul": (0xAC00, 0xAE00), "armenian": (0x530, 0x590),
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_random_text_of_a_script_has_the_tokenizers_ids(built: dict[str, tuple[Tokenizer, Encoder]], script: str) -> None:
    rng = random.Random(script)
    letters = [chr(i) for i in range(*SCRIPTS[script]) if unicodedata.category(chr(i)) != "Cn"]
    texts = [
        "".join(rng.choice(letters) if rng.random() < 0.8 else rng.choice(" \n.,1a'") for _ in range(400)) for _ in range(10)
    ]
    for raw, encoder in built.values():
        assert [e.ids.tolist() for e in encoder.encode(texts)] == [raw.encode(t, add_special_tokens=False).ids for t in texts]


def test_a_known_text_does_not_reach_the_tokenizer_again() -> None:
    raw = build("gpt2")
    splitter = words.find_splitter(json.loads(raw.to_str()))
    assert splitter is not None
    vocabulary = raw.get_vocab()
    token_bytes = [b""] * len(vocabulary)
    for token, i in vocabulary.items():
        token_bytes[i] = token.replace("Ġ", " ").encode()
    seen: list[str] = []

    class Counting:
        def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> Any:
            seen.extend(texts)
            return raw.encode_batch_fast(texts, add_special_tokens=add_special_tokens)

    table = words.WordTable(Counting(), splitter, token_bytes)  # type: ignore[arg-type]
    first = table.encode("one two one two three")
    assert first is not None
    assert sorted(seen) == [" one", " three", " two", "one"]
    again = table.encode("one two three two")
    assert again is not None
    assert len(seen) == 4
    assert again.tolist() == raw.encode("one two three two").ids


def test_the_table_is_bounded_and_long_words_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_MAX_WORDS", 50)
    raw = build("cl100k")
    encoder = Encoder(raw)
    texts = [" ".join(f"w{chr(97 + i % 26)}{chr(97 + j)}" for j in range(20)) + " " + "x" * 500 for i in range(26)]
    assert [e.ids.tolist() for e in encoder.encode(texts)] == [raw.encode(t, add_special_tokens=False).ids for t in texts]
    assert encoder._words is not None
    assert len(encoder._words._ids) <= 50
    assert max(map(len, encoder._words._ids), default=0) < 100


def test_added_tokens_are_left_to_the_tokenizer() -> None:
    raw = build("gpt2")
    raw.add_tokens([AddedToken("one two", special=False)])
    raw.encode_special_tokens = True
    (encoded,) = Encoder(raw).encode(["say one two three"])
    assert encoded.ids.tolist() == raw.encode("say one two three").ids
    assert raw.token_to_id("one two") in encoded.ids


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}},
        {"pre_tokenizer": None},
        {"model": {"type": "Unigram"}},
        {"model": {"type": "BPE", "dropout": 0.1}},
    ],
)
def test_other_tokenizers_are_left_alone(change: dict[str, Any]) -> None:
    settings_of = json.loads(build("gpt2").to_str())
    assert words.find_splitter(settings_of) is not None
    assert words.find_splitter({**settings_of, **change}) is None


@pytest.mark.parametrize("expression", [r"\w+|\W", r"(a)|.", r"\p{Han}+|.", r"[^\S]+|\S", r"\p{N}{1,3}+|."])
def test_expressions_that_could_mean_something_else_are_not_translated(expression: str) -> None:
    assert words._translated(expression, "ascii") is None
