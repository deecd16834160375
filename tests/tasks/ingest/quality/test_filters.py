"""Quality filters leave out what they should and are off by default; each reason is counted."""

import random
from pathlib import Path

import pytest

from tasks.ingest.quality.measures import repeated_share, symbol_share
from tasks.ingest.quality.personal_data import replaced
from tests.tasks.ingest.reading.test_text_decoding import TEXTS
from tests.tasks.ingest.reading_example import read

WORDS = ["rope", "bridge", "valley", "grass", "village", "summer", "river", "stone", "winter", "market", "harbour", "letter"]
PHRASE = "the ropes of the bridge are made of grass by a whole village every summer "


def prose(num_words: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) + rng.choice(["", "s", "like", "less"]) for _ in range(num_words)) + ".\n"


POOR = {
    "few": ("Three words only.", {"min_words": 4}, "few_words"),
    "lines": ("Subscribe to our newsletter today.\n" * 9 + prose(9), {"max_repetition": 0.5}, "repetition"),
    "ngrams": ("".join(f"{i} {PHRASE}" for i in range(20)), {"max_repetition": 0.5}, "repetition"),
    "symbols": ("=== *** ||| ### $$$ ~~~ ^^^ text", {"max_symbols": 0.3}, "symbols"),
    "unclear": ("zq xk vj wq zx", {"min_language_confidence": 0.9}, "unclear_language"),
}


@pytest.mark.parametrize("name", POOR)
def test_each_filter_leaves_out_its_kind_and_nothing_else(tmp_path: Path, name: str) -> None:
    for one, (text, _, _) in POOR.items():
        (tmp_path / f"{one}.txt").write_text(text)
    for language, text in TEXTS.items():
        (tmp_path / f"good-{language}.txt").write_text(text)
    (tmp_path / "code.py").write_text("x = {}\n" * 50)  # repeats itself, as programs do
    source = {"uri": str(tmp_path), "include": ("*",)}
    assert not read(source).skipped
    _, quality, reason = POOR[name]
    found = read(source, quality=quality)
    assert {Path(s.source_uri).stem: s.reason for s in found.skipped if s.reason == reason}[name] == reason
    assert {s.reason for s in found.skipped} == {reason}
    assert all(s.num_bytes for s in found.skipped)
    assert not [s.source_uri for s in found.skipped if "good-" in s.source_uri or "code" in s.source_uri]


def test_measures() -> None:
    assert repeated_share("") == symbol_share(" \n") == 0
    assert repeated_share(prose(400)) < 0.01
    assert repeated_share("a line\n\nanother one\na line\n") == pytest.approx(6 / 23)
    assert repeated_share("one two three four five " * 40) > 0.95
    assert symbol_share("ab $c") == pytest.approx(1 / 4)
    for text in TEXTS.values():
        assert symbol_share(text) < 0.02


@pytest.mark.parametrize(
    ("text", "kinds", "expected"),
    [
        ("Write to jo.doe+x@mail.example.org, or a@b.co.", "email", "Write to <EMAIL>, or <EMAIL>."),
        ("x@y and @name and a@b are none; user@localhost too", "email", None),
        ("Call +49 (0)30 1234567 or (555) 123-4567, 555-123-4567.", "phone", "Call <PHONE> or <PHONE>, <PHONE>."),
        ("Tel.: 030/123 456, Fax 0301234567", "phone", "Tel.: <PHONE>, Fax <PHONE>"),
        ("In 2020-2021 1,234,567 of 978-3-16-148410-0; 3.14159265 and 10 000 000", "phone", None),
        ("IBAN DE89 3704 0044 0532 0130 00 OK, GB82WEST12345698765432.", "iban", "IBAN <IBAN> OK, <IBAN>."),
        ("DE88 3704 0044 0532 0130 00, XX89370400440532013000, DE89370400440532013000X", "iban", None),
        ("From 8.8.8.8 and 2001:4860:4860::8888.", "ip", "From <IP> and <IP>."),
        ("127.0.0.1, 192.168.0.1, ::1, 12:30:45, v1.2.3.4.5 and 999.1.1.1", "ip", None),
    ],
)
def test_personal_data_is_replaced_where_asked_for(tmp_path: Path, text: str, kinds: str, expected: str | None) -> None:
    (tmp_path / "a.txt").write_text(text)
    (document,) = read(str(tmp_path), replace_personal_data=(kinds,)).documents
    assert document.text == (expected or text)
    number = document.text.count(f"<{kinds.upper()}>")
    assert document.changes == (((kinds, number),) if expected else ())
    assert read(str(tmp_path)).texts == [text]


@pytest.mark.parametrize("piece", ["1 ", "a", "a@", "+1", "AB12 ", "1:", "tel"])
@pytest.mark.slow
def test_personal_data_is_looked_for_in_linear_time(piece: str) -> None:
    """Without a bound in each pattern these take hours."""
    text, _ = replaced(piece * 200_000, ("email", "phone", "iban", "ip"))
    assert len(text) <= 200_000 * len(piece)
