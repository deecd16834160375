"""Damaged places are replaced where a source asks for it, in every format, and counted."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tasks.ingest.reading_example import read

GOOD = "The rope bridge crosses the deep valley. " * 30
BAD = GOOD.encode() + b"caf\xff"


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.parquet", "a.html", "code/a.txt"])
def test_one_bad_byte_does_not_cost_a_document(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    line = json.dumps({"text": GOOD + "caf?"}).encode().replace(b"?", b"\xff")
    written = {
        ".txt": BAD,
        ".jsonl": line,
        ".json": b"[" + line + b"]",
        ".csv": b'text\n"' + BAD + b'"\n',
        ".html": b"<html><body><p>" + BAD + b"</p></body></html>",
    }
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": pa.array([BAD]).view(pa.string())}), path)
    else:
        path.write_bytes(written[path.suffix])
    source = {"uri": str(tmp_path), "include": ("**/a.*",), "repository": "whole" if "/" in name else "no"}
    assert set(read(source).reasons.values()) in ({"undecodable"}, {"undecodable", "empty"})
    (document,) = read({**source, "replace_undecodable": 0.001}).documents
    assert document.text.rstrip("\n").endswith(GOOD + "caf\ufffd")
    assert document.changes == (("undecodable", 1),)
    assert not read({**source, "replace_undecodable": 0.0001}).documents
