"""The stage counts what it replaced and left out, and the ledger adds up with it."""

from pathlib import Path

import pyarrow.parquet as pq

from data_schemas.ledger import ledger_of
from data_schemas.tables import CHANGES
from tests.tasks.ingest.test_documents_stage import documents, ingest, prose


def test_changes_and_reasons_are_in_the_artifact(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.txt").write_text(prose(number))
    (folder / "bad.txt").write_bytes(prose(20).encode() + b" caf\xff and a@b.org, c@d.org")
    (folder / "poor.txt").write_text("Two words")
    source = {"uri": str(folder), "replace_undecodable": 0.01}
    made = ingest(tmp_path, source, replace_personal_data=["email", "ip"], quality={"min_words": 5})
    table = pq.read_table(made.path / "changes.parquet")
    assert table.schema.equals(CHANGES)
    (bad,) = [d for d in documents(made) if d["source_uri"].endswith("bad.txt")]
    assert bad["text"].endswith("caf\ufffd and <EMAIL>, <EMAIL>")
    place = {"doc_id": bad["doc_id"], "source_uri": bad["source_uri"], "record": 0}
    assert table.to_pylist() == [{**place, "kind": "undecodable", "num_places": 1}, {**place, "kind": "email", "num_places": 2}]
    summary = made.manifest.summary
    assert summary["changed"] == {"email": 2, "undecodable": 1}
    assert summary["skipped"] == {"few_words": 1, "language": 0, "short": 0}
    ledger = ledger_of(summary)
    assert ledger is not None
    filtered = [line for line in ledger.lines if line.step == "filtered" and line.source == ledger.lines[0].source]
    assert sum(line.documents for line in filtered) == 1
