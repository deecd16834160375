"""The format of each record: named by a field, by the source, or guessed; and HTML in records."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.chunk.structure import find_structure
from tasks.ingest.reading.format_guess import guess_format, named_format
from tests.tasks.ingest.reading_example import read

MARKDOWN = "# First\n\nA paragraph about cables.\n\n## Second\n\nMore about cables.\n"
GUESSED = {
    "markdown": [
        MARKDOWN,
        "Some text.\r\n\r\n# One\r\n\r\nText\r\n\r\n# Two\r\n\r\nText",
        "Title\n=====\n\n- **one**\n- two\n- three\n",
        "Text\n\n```sh\nls\n```\n",
        "| a | b |\n|---|---|\n| 1 | 2 |\n",
        "# A title\n\nSee [the page](https://x.example).\n",
    ],
    "rst": ["Title\n=====\n\n.. note::\n\n   See :ref:`x`.\n\n.. code-block:: python\n\n   x\n"],
    "latex": ["\\documentclass{article}\n\\begin{document}\n\\section{One}\nText\n\\end{document}\n"],
    "python": ["import os\n\n\ndef main():\n    return os.name\n\n\nclass A:\n    pass\n"],
    "code": ["int main(void) {\n" + "  call(1);\n" * 12 + "}\n"],
    "plain": [
        "A story.\n\nIt was a dark night - and so on.\n\n* * *\n\nThe end.",
        "#!/bin/sh\n# a comment\n# another comment\nls\n\n# more\ncd\n",
        "#hashtag and # one more\n\n1. a\n2. b\n",
        "CHAPTER I\n---------\n\nCall me Ishmael.\n",
        "C:\\section{x}\nand so on",
        "",
    ],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in GUESSED.items() for text in texts])
def test_a_guess_says_what_leaves_little_doubt(name: str, text: str) -> None:
    assert guess_format(text) == name


@pytest.mark.parametrize("piece", ["-", " ", ":", "#", "# \n", "*", "|-", "_:", "[", "\n "])
def test_a_guess_costs_little_for_any_text(piece: str) -> None:
    """Without a bound in each pattern these take minutes."""
    assert guess_format(piece * 16384) in ("plain", "markdown")


def test_names_of_formats() -> None:
    assert [
        named_format(name) for name in ("Markdown", "text/html; charset=utf-8", ".MD", "tex", "latex", "?", "", None, 7)
    ] == [
        "markdown",
        "html",
        "markdown",
        "latex",
        "latex",
        *[None] * 4,
    ]


def test_headings_of_records_are_found_where_the_chunker_looks(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": MARKDOWN}))
    (document,) = read(str(tmp_path)).documents
    assert [heading.title for heading in find_structure(document.text, document.format).headings] == ["First", "Second"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "hf"])
def test_a_field_comes_before_the_source_and_the_source_before_a_guess(tmp_path: Path, kind: str) -> None:
    rows = [
        {"text": MARKDOWN, "mime": "text/plain"},
        {"text": MARKDOWN, "mime": "unknown"},
        {"text": "<h1>Ropes</h1><p>a_b &lt;c&gt;</p>", "mime": "text/html"},
    ]
    uri = str(tmp_path / f"a.{kind}")
    if kind == "jsonl":
        Path(uri).write_text("\n".join(map(json.dumps, rows)))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), uri)
    else:
        datasets.Dataset.from_list(rows).save_to_disk(uri)
        uri = f"hf:{uri}"

    def formats(**options: Any) -> list[str]:
        return [d.format for d in read({"uri": uri, **options}).documents]

    assert formats()[:2] == ["markdown", "markdown"]
    assert formats(format_field="mime") == ["plain", "markdown", "markdown"]
    assert formats(format="rst") == ["rst", "rst", "rst"]
    assert formats(format="rst", format_field="mime") == ["plain", "rst", "markdown"]
    assert read({"uri": uri, "format_field": "mime"}).texts[2] == "# Ropes\n\na_b <c>\n"


def test_the_source_names_the_format_of_text_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(MARKDOWN)
    (tmp_path / "b.txt").write_text("<p>one_two</p>")
    assert [d.format for d in read(str(tmp_path)).documents] == ["plain", "plain"]
    assert [d.format for d in read({"uri": str(tmp_path), "format": "markdown"}).documents] == ["markdown"] * 2
    assert read({"uri": f"{tmp_path}/b.txt", "format": "html"}).texts == ["one_two\n"]
