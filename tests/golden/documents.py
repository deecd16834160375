"""The documents of a corpus with every format, duplicates, a contaminated document and what must be refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.params import PipelineParams
from data_schemas.storage import Storage
from tasks.ingest import documents_stage
from tests.golden.inputs import prose, story, workers_here

TABLES = ("documents-*.parquet", "quarantine.parquet", "duplicates.parquet", "contamination.parquet")


def output(folder: Path) -> Any:
    """{table: rows}, texts in full, and the summary."""
    corpus = write_corpus(folder / "corpus")
    params = PipelineParams.model_validate(
        {
            "run_name": "golden",
            "storage": str(folder / "storage"),
            "corpus": {
                "sources": [
                    {"uri": str(corpus / "prose"), "licence": "CC0-1.0", "min_bytes": 20},
                    {"uri": str(corpus / "rows"), "name": "rows"},
                    {"uri": str(corpus / "code"), "repository": "files", "name": "code"},
                ],
                "heldout_fraction": 0.4,
                "detect_language": True,
                "max_quarantined_fraction": 1.0,
            },
            "model": {"base": "demo", "target_length": 512},
        }
    )
    artifact = documents_stage.run(params, Storage(params.storage), workers_here, lambda _: None)
    rows = {}
    for pattern in TABLES:
        files = sorted(artifact.path.glob(pattern))
        rows[pattern] = pa.concat_tables([pq.read_table(file) for file in files]).to_pylist()
    made = {"tables": rows, "summary": artifact.manifest.summary, "files": [entry.path for entry in artifact.manifest.files]}
    return json.loads(json.dumps(made).replace(f"{corpus}/", ""))


def write_corpus(folder: Path) -> Path:
    for name in ("prose", "rows", "code/src"):
        (folder / name).mkdir(parents=True)
    texts, rows, code = folder / "prose", folder / "rows", folder / "code"
    (texts / "plain.txt").write_text(prose(1, 12) + "\r\n\r\n" + prose(2, 3))
    (texts / "story.md").write_text(story(3, 2))
    (texts / "page.html").write_text(
        f"<html><head><title>T</title></head><body><nav>Menu</nav><h1>A page</h1><p>{prose(4, 6)}</p>"
        f"<ul><li>{prose(5, 1)}</li><li>{prose(6, 1)}</li></ul><p>{prose(7, 5)}</p></body></html>"
    )
    (texts / "manual.rst").write_text(f"Manual\n======\n\n{prose(8, 4)}\n")
    (texts / "packed.txt.gz").write_bytes(gzip.compress(prose(9, 10).encode(), mtime=0))
    (texts / "latin.txt").write_bytes("Café au lait".encode("latin-1"))
    (texts / "again.txt").write_text(prose(9, 10))
    (texts / "almost.txt").write_text(prose(1, 12) + "\n\n" + prose(2, 3) + " The end.")
    (texts / "short.txt").write_text("Short.")
    (texts / "empty.txt").write_text("")
    records = [{"text": prose(20 + n, 8), "id": f"id{n}", "work": f"work {n % 5}"} for n in range(9)]
    records.append({"text": f"{prose(40, 2)} {records[0]['text']}", "id": "copies", "work": "work 7"})
    lines = [json.dumps(record) for record in records]
    (rows / "records.jsonl").write_text("\n".join([*lines[:4], "{not json", '{"id": "no text"}', *lines[4:]]) + "\n")
    table = pa.table({"text": [prose(50 + n, 5) for n in range(4)], "work": ["a", "b", "c", "d"]})
    pq.write_table(table, rows / "table.parquet")
    (code / "src" / "main.py").write_text('"""A program."""\n\n\ndef main() -> None:\n    print("hello, bridge")\n')
    (code / "Makefile").write_text("all:\n\tpython src/main.py\n")
    return folder
