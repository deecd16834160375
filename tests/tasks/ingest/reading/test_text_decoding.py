"""UTF-8 first; anything else only on evidence; never other letters without a word."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest.reading.records import Unusable
from tasks.ingest.reading.text_decoding import decode, decode_replacing

TEXTS = {
    "fr": "Le château était fermé; l'élève préféra attendre à côté. « Déjà vu », dit-il, très étonné, « où êtes-vous passé ? »\n",
    "de": "Die Straße führte über die Brücke; Äpfel, Öl und Übermut. Später hörten wir Gänse und größere Vögel schnattern.\n",
    "en": "The café’s “special” was naïve — a résumé of last week’s menu. It’s not what he’d expected, she said; but it cost £5.\n",
    "es": "El niño comió la piña mañana; ¿qué pasó? Además, según él, la canción terminó rápidamente en el jardín.\n",
    "pl": "Zażółć gęślą jaźń. Pewnego dnia książę wyruszył w podróż, żeby znaleźć źródło szczęścia; śnieg padał.\n",
    "cs": "Příliš žluťoučký kůň úpěl ďábelské ódy. Bylo to večer, když se všichni sešli na náměstí.\n",
    "ru": "Однажды весною, в час небывало жаркого заката, в Москве, на Патриарших прудах, появились два гражданина.\n",
    "el": "Η γρήγορη αλεπού πηδάει πάνω από τον τεμπέλη σκύλο, και το βράδυ όλοι γύρισαν στο σπίτι τους.\n",
    "tr": "İstanbul'da güneşli bir gündü; çocuklar ağaçların gölgesinde şarkı söylüyordu. Işık yavaşça değişti.\n",
    "ja": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗い所でニャーニャー泣いていた。\n",
    "zh": "很久以前,有一个国王住在山上的城堡里。他有三个女儿,最小的那个最聪明,也最喜欢读书。\n",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 서로 형제애의 정신으로 행동하여야 한다.\n",
}
WRITTEN_IN = [
    *[(language, "cp1252") for language in ("fr", "de", "en", "es")],
    *[(language, "latin-1") for language in ("fr", "de", "es")],
    ("pl", "cp1250"),
    ("pl", "iso8859_2"),
    ("cs", "cp1250"),
    ("ru", "cp1251"),
    ("ru", "koi8_r"),
    ("ru", "cp866"),
    ("el", "cp1253"),
    ("tr", "cp1254"),
    ("ja", "cp932"),
    ("ja", "euc_jp"),
    ("zh", "gb18030"),
    ("ko", "cp949"),
]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_utf8_is_utf8(text: str) -> None:
    assert decode(("\ufeff" + text).encode()) == text
    assert decode(("\ufeff" + text).encode(), is_start=False) == "\ufeff" + text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-be", "utf-16-le", "utf-32-be", "utf-32-le"])
def test_a_byte_order_mark_decides(encoding: str) -> None:
    mark = "" if encoding in ("utf-16", "utf-32") else "\ufeff"
    assert decode((mark + TEXTS["ja"]).encode(encoding)) == TEXTS["ja"]


@pytest.mark.parametrize(("language", "encoding"), WRITTEN_IN)
@pytest.mark.parametrize("num_ascii_lines", [0, 5000])
def test_customary_encodings_are_found(language: str, encoding: str, num_ascii_lines: int) -> None:
    text = "0123456789 = plain ASCII\n" * num_ascii_lines + TEXTS[language] * 8
    assert decode(text.encode(encoding)) == text


SEVEN_BIT = [
    ("ja", "iso2022_jp"),
    ("ja", "iso2022_jp_2"),
    ("ko", "iso2022_kr"),
    ("zh", "hz"),
    *((one, "utf-7") for one in TEXTS),
]


@pytest.mark.parametrize(("language", "encoding"), SEVEN_BIT)
@pytest.mark.parametrize("num_times", [1, 8])
def test_letters_in_ascii_bytes_are_found(language: str, encoding: str, num_times: int) -> None:
    text = TEXTS[language] * num_times
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize(
    "text",
    [
        "a + b +- c, x+y-z +ABC- +1234-5678- C++ g++-12 1+1=2\n",
        "+SGVsbG8gd29ybGQ- is base64, +aGk- too\n" * 9,
        "~{not Chinese~} ~/bin ~~ and ~{\n" * 3,
        "\x1b[31mred\x1b[0m \x1b(B\x1b[m a log of a terminal\n" * 3,
        "git log --format='+%H-%an' +refs/heads/*-tip\n" * 9,
    ],
)
def test_plain_ascii_stays_as_it_is(text: str) -> None:
    assert decode(text.encode()) == text


def test_marks_of_iso_2022_that_do_not_decode_are_undecodable() -> None:
    with pytest.raises(Unusable, match="ISO-2022"):
        decode(b"text \x1b$B\x01\x02\x03 text")


def test_damaged_places_are_replaced_up_to_a_share() -> None:
    book = TEXTS["fr"] * 50
    data = book.encode().replace("é".encode(), b"\xff", 2)
    for share in (0, 1e-4):
        with pytest.raises(Unusable):
            decode_replacing(data, share)
    assert decode_replacing(data, 0.001) == (book.replace("é", "\ufffd", 2), 2)
    assert decode_replacing(("\ufeff\ufffd" + book).encode() + b"\xe9", 0.001) == ("\ufffd" + book + "\ufffd", 1)
    assert decode_replacing(TEXTS["de"].encode("cp1252") * 8, 0.01) == (TEXTS["de"] * 8, 0)  # another encoding, no damage
    assert decode_replacing((TEXTS["ja"] * 9).encode("utf-16")[:-1], 0.01) == ((TEXTS["ja"] * 9)[:-1] + "\ufffd", 1)
    for bad in (b"\xff" * 9 + data, random.Random(1).randbytes(5000), b"text \x1b$B\x01\x02\x03 text"):
        with pytest.raises(Unusable):
            decode_replacing(bad, 0.001)


@pytest.mark.parametrize(
    "name", ["rot13", "base64", "hex", "unicode_escape", "idna", "undefined", "utf-16", "no-such", "utf-8"]
)
def test_a_declared_name_that_is_no_encoding_of_the_page_is_ignored(name: str) -> None:
    page = f'<meta charset="{name}">' + TEXTS["cs"] * 8
    assert decode(page.encode("cp1250"), is_html=True) == page


def has_letters_of(encoding: str, language: str) -> bool:
    text = without_typography(TEXTS[language])
    return len(text.encode(encoding, "ignore").decode(encoding)) == len(text)


def without_typography(text: str) -> str:
    return re.sub("[’“”—«»]", "'", text)


UNCUSTOMARY = ["cp437", "mac_roman", "cp037", "utf-7", "cp1257", "iso8859_10", "hp_roman8", "cp850", "cp775", "cp1006"]
UNUSUAL = [(language, encoding) for language in TEXTS for encoding in UNCUSTOMARY if has_letters_of(encoding, language)]


@pytest.mark.parametrize(("language", "encoding"), UNUSUAL)
def test_other_encodings_give_the_right_text_or_none(language: str, encoding: str) -> None:
    data = (without_typography(TEXTS[language]) * 8).encode(encoding)
    try:
        decoded = decode(data)
    except Unusable as problem:
        assert problem.reason == "undecodable"  # noqa: PT017
    else:
        assert decoded == data.decode(encoding)


def noise(share: float) -> bytes:
    rng = random.Random(7)
    data = bytearray(b"The quick brown fox jumps over the lazy dog and runs away. " * 100)
    for place in rng.sample(range(len(data)), int(len(data) * share)):
        data[place] = rng.randrange(128, 256)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"caf\xe9",
        random.Random(1).randbytes(5000),
        noise(0.03),
        noise(0.3),
        (TEXTS["fr"] * 50).encode()[:-3].replace(b"vu", b"v\xff", 2),  # UTF-8 with two damaged places
        b"\x89PNG\r\n\x1a\n" + random.Random(2).randbytes(300).replace(b"\0", b"\1"),
        (TEXTS["ja"] * 3).encode("utf-16")[:-1],
        b"\xff\xfe" + b"\x00\xd8" * 9,
        bytes(range(128, 256)) * 9,
    ],
    ids=[
        "too short",
        "random",
        "a little noise",
        "much noise",
        "damaged UTF-8",
        "image",
        "cut UTF-16",
        "surrogates",
        "every byte",
    ],
)
def test_what_is_not_clear_is_undecodable(data: bytes) -> None:
    with pytest.raises(Unusable) as raised:
        decode(data)
    assert raised.value.reason == "undecodable"
    assert raised.value.detail
