"""Ingest as a stage: what stays, what is left out and why, and which side of the split it is on."""

import json
import random
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_schemas.documents import document_files
from data_schemas.errors import UserError
from data_schemas.ledger import ledger_of, read_ledger
from data_schemas.params import CorpusParams, CorpusSource, PipelineParams
from data_schemas.storage import Artifact, Storage
from data_schemas.tables import CONTAMINATION, DOCUMENTS, DUPLICATES, EXCERPTS, QUARANTINE, SHARED_TEXT
from ray_jobs.prepare.ray_data import workers_for
from tasks.ingest.documents_stage import run
from tasks.ingest.split import split_of

WORDS = "rope bridge valley cliff traveller coin river stone wind path lantern market rain tower field mill bell lamp".split()  # noqa: SIM905


def prose(seed: int, num_words: int = 400) -> str:
    draw = random.Random(seed)
    return " ".join(f"{draw.choice(WORDS)}{draw.randrange(50)}" for _ in range(num_words))


def ingest(tmp_path: Path, *sources: Any, qa_file: Path | None = None, **options: Any) -> Artifact:
    corpus = {"sources": sources, "heldout_fraction": 0.5, **options}
    params = PipelineParams.model_validate(
        {
            "run_name": "x",
            "corpus": corpus,
            "evaluation": {"qa_file": str(qa_file) if qa_file else None},
            "model": {"base": "demo", "target_length": 512},
            "storage": str(tmp_path / "storage"),
        }
    )
    return run(params, Storage(params.storage), partial(workers_for, params), lambda _: None)


def table(artifact: Artifact, name: str, schema: pa.Schema) -> list[dict[str, Any]]:
    files = document_files(artifact.path) if name == "documents" else [artifact.path / f"{name}.parquet"]
    read = pa.concat_tables([pq.read_table(file) for file in files])
    assert read.schema.equals(schema)
    rows: list[dict[str, Any]] = read.to_pylist()
    return rows


def documents(artifact: Artifact) -> list[dict[str, Any]]:
    return table(artifact, "documents", DOCUMENTS)


def work_on(side: str, fraction: float = 0.5, used: tuple[str, ...] = ()) -> str:
    return next(w for w in "abcdefghijklmnopqrstuvwxyz" if split_of(w, fraction, 0) == side and w not in used)


def lines(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return str(path)


def test_every_column_is_filled(tmp_path: Path) -> None:
    rows = [{"text": prose(i), "work": w, "id": f"id{i}"} for i, w in enumerate("abcdefgh")]
    source = {"uri": lines(tmp_path / "x.jsonl", *rows), "licence": "CC0-1.0", "name": "made-up"}
    made = documents(ingest(tmp_path, source, detect_language=False))
    assert [d["text"] for d in made] == [row["text"] for row in rows]
    content = (tmp_path / "x.jsonl").read_bytes()
    for number, (document, row) in enumerate(zip(made, rows, strict=True), 1):
        assert document["source_uri"] == f"{tmp_path}/x.jsonl#id{number - 1}"
        assert (document["source"], document["record"], document["licence"]) == ("made-up", number, "CC0-1.0")
        assert json.loads(content[document["byte_start"] : document["byte_end"]]) == row
        assert (document["work"], document["split"]) == (row["work"], split_of(row["work"], 0.5, 0))
        assert document["num_bytes"] == len(row["text"])
        assert document["content_hash"].startswith(document["doc_id"])
        assert document["language"] is None


def test_language_is_found_and_chosen_if_asked_for(tmp_path: Path) -> None:
    english = "The bridge hangs between the cliffs, and every traveller who crosses it pays one coin to the keeper. "
    german = "Die Brücke hängt zwischen den Felsen, und jeder Reisende bezahlt dem Wächter eine Münze dafür. "
    rows = [
        {"text": f"{text * 5}{i}", "work": w} for i, (text, w) in enumerate(zip([english, german] * 4, "abcdefgh", strict=True))
    ]
    source = lines(tmp_path / "x.jsonl", *rows)
    options = {"near_duplicates": {"enabled": False}, "decontamination": {"enabled": False}}
    assert [d["language"] for d in documents(ingest(tmp_path, source, detect_language=True, **options))] == ["en", "de"] * 4
    german_only = ingest(tmp_path, source, languages=["de"], **options)
    assert {d["language"] for d in documents(german_only)} == {"de"}
    assert german_only.manifest.summary["skipped"]["language"] == 4


@pytest.mark.parametrize("first", ["train", "heldout"])
def test_a_text_on_both_sides_stays_on_the_held_out_side(tmp_path: Path, first: str) -> None:
    sides = {side: work_on(side) for side in ("train", "heldout")}
    order = [first, "train" if first == "heldout" else "heldout"]
    rows = [{"text": "twice", "work": sides[side]} for side in order]
    rows += [{"text": side, "work": sides[side]} for side in order] + [{"text": "twice", "work": sides["train"]}]
    artifact = ingest(tmp_path, lines(tmp_path / "x.jsonl", *rows))
    made = documents(artifact)
    assert [d["split"] for d in made if d["text"] == "twice"] == ["heldout"]
    assert artifact.manifest.summary["num_duplicates"] == 2
    assert len(made) == 3
    [kept] = [d for d in made if d["text"] == "twice"]
    for row in table(artifact, "duplicates", DUPLICATES):
        assert (row["kind"], row["similarity"], row["kept_doc_id"], row["kept_split"]) == (
            "exact",
            1.0,
            kept["doc_id"],
            "heldout",
        )


def test_near_duplicates_go_and_the_report_says_who_kept_them_out(tmp_path: Path) -> None:
    train, heldout = work_on("train"), work_on("heldout")
    other = work_on("train", used=(train,))
    original = prose(1)
    rows = [
        {"text": original + " with another end", "work": train, "id": "copy"},
        {"text": prose(2), "work": train, "id": "own"},
        {"text": original, "work": heldout, "id": "original"},
        {"text": prose(2).replace("rope1", "rope2", 1), "work": other, "id": "own-again"},
        {"text": original + " with another end", "work": other, "id": "copy-again"},
    ]
    artifact = ingest(tmp_path, lines(tmp_path / "x.jsonl", *rows))
    assert [d["source_uri"].split("#")[1] for d in documents(artifact)] == ["own", "original"]
    report = {row["source_uri"].split("#")[1]: row for row in table(artifact, "duplicates", DUPLICATES)}
    assert {name: (row["kind"], row["kept_source_uri"].split("#")[1], row["kept_split"]) for name, row in report.items()} == {
        "copy": ("near", "original", "heldout"),
        "own-again": ("near", "own", "train"),
        "copy-again": ("near", "original", "heldout"),
    }
    assert report["copy-again"]["similarity"] == report["copy"]["similarity"]
    assert 0.8 <= report["copy"]["similarity"] < 1
    summary = artifact.manifest.summary
    assert (summary["num_duplicates"], summary["num_near_duplicates"]) == (0, 3)
    kept = ingest(
        tmp_path, lines(tmp_path / "x.jsonl", *rows), near_duplicates={"enabled": False}, decontamination={"enabled": False}
    )
    assert len(documents(kept)) == 4


def test_training_text_that_holds_what_is_evaluated_is_listed_and_removed(tmp_path: Path) -> None:
    train, heldout = work_on("train"), work_on("heldout")
    quoted = prose(1, 400)
    question = "Which traveller paid the keeper of the rope bridge with a coin that was found in the river?"
    rows = [
        {"text": quoted, "work": heldout, "id": "heldout"},
        {"text": " ".join(quoted.split()[:200]) + " " + prose(2, 400), "work": train, "id": "holds-half"},
        {"text": " ".join(quoted.split()[:20]) + " " + prose(3, 2000), "work": train, "id": "quotes"},
        {"text": f"{prose(4)} {question} {prose(5)}", "work": train, "id": "holds-question"},
        {"text": prose(6), "work": train, "id": "clean"},
    ]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"question": question}) + "\n")
    options = {"decontamination": {"prompt_files": [str(prompts)]}}
    artifact = ingest(tmp_path, lines(tmp_path / "x.jsonl", *rows), **options)
    assert [d["source_uri"].split("#")[1] for d in documents(artifact)] == ["heldout", "quotes", "clean"]
    hits = {row["source_uri"].split("#")[1]: row for row in table(artifact, "contamination", CONTAMINATION)}
    assert {name: (row["evaluated_in"], row["removed"]) for name, row in hits.items()} == {
        "holds-half": ("heldout", True),
        "quotes": ("heldout", False),
        "holds-question": (f"{prompts}:1", True),
    }
    assert hits["quotes"]["num_shared"] == 8
    assert quoted.startswith(hits["quotes"]["example"][:100])
    assert artifact.manifest.summary["num_contaminated"] == 2
    prompts.write_text(
        json.dumps({"question": "Another question that nobody has asked before in this corpus of made-up words?"}) + "\n"
    )
    again = ingest(tmp_path, str(tmp_path / "x.jsonl"), **options)
    assert again.digest != artifact.digest
    assert "holds-question" in [d["source_uri"].split("#")[1] for d in documents(again)]


def test_a_source_for_training_alone_holds_nothing_out(tmp_path: Path) -> None:
    train, heldout, other = work_on("train"), work_on("heldout"), work_on("heldout", used=(work_on("heldout"),))
    domain = lines(
        tmp_path / "domain.jsonl",
        {"text": prose(1), "work": train, "id": "trained"},
        {"text": prose(2), "work": heldout, "id": "measured"},
    )
    quoting = " ".join(prose(2).split()[:200]) + " " + prose(4)
    more = lines(
        tmp_path / "more.jsonl",
        {"text": prose(3), "work": other, "id": "would-be-held-out"},
        {"text": quoting, "work": train, "id": "quotes-the-measured"},
        {"text": prose(2), "work": other, "id": "copy"},
    )
    for sources in ((domain, {"uri": str(more), "train_only": True}), ({"uri": str(more), "train_only": True}, domain)):
        artifact = ingest(tmp_path, *sources)
        assert {d["source_uri"].split("#")[1]: d["split"] for d in documents(artifact)} == {
            "trained": "train",
            "measured": "heldout",
            "would-be-held-out": "train",
        }
        ledger = read_ledger(artifact.path)
        counted = {n.step: n.documents for n in ledger.lines if n.source == "more.jsonl" and n.documents}
        assert counted == {"read": 3, "duplicate": 1, "contaminated": 1, "remaining": 1}
    split = ingest(tmp_path, domain, str(more))
    assert {d["source_uri"].split("#")[1]: d["split"] for d in documents(split)}["would-be-held-out"] == "heldout"


def test_a_corpus_whose_only_other_source_holds_nothing_out_is_refused_with_the_reason(tmp_path: Path) -> None:
    mine = lines(tmp_path / "mine.jsonl", {"text": prose(1), "work": work_on("train"), "id": "a"})
    more = lines(tmp_path / "more.jsonl", {"text": prose(2), "work": work_on("heldout"), "id": "b"})
    with pytest.raises(UserError, match=r"no held-out document .* train_only \(more\.jsonl\) hold nothing out: raise"):
        ingest(tmp_path, mine, {"uri": str(more), "train_only": True})


def test_training_text_with_a_question_of_the_evaluation_or_its_gold_passage_is_removed(tmp_path: Path) -> None:
    train, heldout = work_on("train"), work_on("heldout")
    answer = "the lamp keeper of the northern tower in the mill street"
    question = {
        "question": "Who was it that lit the bell tower lantern on the night of the great rain?",
        "answers": ["the keeper", answer],
        "gold": f"{prose(10, 40)} It was {answer}. {prose(11, 40)}",
        "passages": [prose(12, 60), prose(13, 60)],
    }
    held = {
        "question": question["question"],
        "gold": question["gold"],
        "answer": f"as is known, {answer}",
        "passages": question["passages"][0],
        "no more than a name": "the keeper",
    }
    rows = [
        {"text": f"{prose(20 + i)} {text} {prose(30 + i)}", "work": train, "id": name}
        for i, (name, text) in enumerate(held.items())
    ]
    rows.append({"text": prose(1), "work": heldout, "id": "heldout"})
    asked = Path(lines(tmp_path / "asked.jsonl", question))
    source = lines(tmp_path / "x.jsonl", *rows)
    artifact = ingest(tmp_path, source, qa_file=asked)
    assert [d["source_uri"].split("#")[1] for d in documents(artifact)] == ["passages", "no more than a name", "heldout"]
    hits = {(row["source_uri"].split("#")[1], row["evaluated_in"]) for row in table(artifact, "contamination", CONTAMINATION)}
    found_in = {"question": ["question"], "gold": ["gold", "answers[1]"], "answer": ["answers[1]"]}
    assert hits == {(name, f"evaluation.qa_file:1 {part}") for name, parts in found_in.items() for part in parts}
    moved = asked.rename(tmp_path / "moved.jsonl")
    assert ingest(tmp_path, source, qa_file=moved).reused
    assert not ingest(tmp_path, source).reused
    lines(moved, question | {"answers": ["the keeper"], "gold": "It was the keeper."})
    assert "gold" in [d["source_uri"].split("#")[1] for d in documents(ingest(tmp_path, source, qa_file=moved))]


def test_split_follows_the_work_alone(corpus: Path, tmp_path: Path) -> None:
    made = documents(ingest(tmp_path, str(corpus), split_seed=5))
    assert {d["split"] for d in made} == {"train", "heldout"}
    assert all(d["split"] == split_of(d["work"], 0.5, 5) for d in made)


def test_the_first_of_equal_texts_wins(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "copy")
    artifact = ingest(tmp_path, str(corpus), str(tmp_path / "copy"))
    assert all(d["source_uri"].startswith(f"{corpus}/") for d in documents(artifact))
    summary = artifact.manifest.summary
    assert (summary["num_documents"], summary["num_duplicates"]) == (8, 8)
    assert summary["sources"] == {"corpus": {"documents": 8, "bytes": 152}, "copy": {"documents": 0, "bytes": 0}}


def test_bad_input_is_quarantined_and_counted(corpus: Path, tmp_path: Path) -> None:
    (corpus / "nul.txt").write_bytes(b"a\0b")
    (corpus / "blank.txt").write_bytes(b" \r\n\t\n")
    (corpus / "broken.jsonl").write_text('{"text": \n{"text": "fine"}\n{"other": 1}\n')
    (corpus / "secret.txt").symlink_to("/etc/hostname")
    (corpus / "short.txt").write_text("é")
    artifact = ingest(tmp_path, {"uri": str(corpus), "min_bytes": 3})
    quarantine = {Path(row["source_uri"]).name: row["reason"] for row in table(artifact, "quarantine", QUARANTINE)}
    assert quarantine == {
        "nul.txt": "nul_bytes",
        "blank.txt": "empty",
        "broken.jsonl": "missing_text",
        "secret.txt": "outside_root",
    }
    summary = artifact.manifest.summary
    assert summary["quarantined"] == {"empty": 1, "invalid_json": 1, "missing_text": 1, "nul_bytes": 1, "outside_root": 1}
    assert summary["skipped"]["short"] == 1
    assert "fine" in {d["text"] for d in documents(artifact)}


def test_units_lose_nothing_and_keep_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": prose(i, 50), "work": f"work {i}"} for i in range(300)]
    source = lines(tmp_path / "x.jsonl", *rows)
    whole = documents(ingest(tmp_path, source))
    assert [d["text"] for d in whole] == [row["text"] for row in rows]
    shutil.rmtree(tmp_path / "storage")
    monkeypatch.setattr("tasks.ingest.corpus_units.MIN_UNIT_BYTES", 20_000)
    monkeypatch.setattr("tasks.ingest.survey.ROW_GROUP_BYTES", 3_000)
    cut = ingest(tmp_path, source)
    assert len(document_files(cut.path)) > 3
    assert pq.ParquetFile(document_files(cut.path)[0]).num_row_groups > 2
    assert documents(cut) == whole


def test_a_storage_root_inside_the_corpus_is_left_out(corpus: Path) -> None:
    first = ingest(corpus, str(corpus))
    (corpus / "storage" / "README.md").write_text("a release's card")
    assert ingest(corpus, str(corpus)).digest == first.digest


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/at-all", r"corpus\.sources\[0\] 'nowhere/at-all' does not exist"),
        ("nowhere/*.txt", "does not exist, correct the pattern"),
        ({"uri": "{corpus}", "include": ["*.nothing"]}, r"no file matches `include` \*\.nothing; there are 8 \.txt"),
    ],
)
def test_a_wrong_source_is_one_sentence(corpus: Path, tmp_path: Path, source: Any, message: str) -> None:
    if isinstance(source, dict):
        source["uri"] = str(corpus)
    with pytest.raises(UserError, match=message) as raised:
        ingest(tmp_path, source)
    assert "\n" not in str(raised.value)


def test_a_corpus_of_unreadable_files_is_refused(corpus: Path, tmp_path: Path) -> None:
    for number in range(8):
        (corpus / f"{number}.txt").write_bytes(b"a\0b")
    told = r"8 of 16 inputs \(50%\).*8 nul_bytes; the first is .*0\.txt"
    with pytest.raises(UserError, match=told):
        ingest(tmp_path, str(corpus), max_quarantined_fraction=0.49)
    parts = sorted((tmp_path / "storage" / ".parts").glob("*/read-*"))
    written = [path.stat().st_mtime_ns for path in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, "drop_parts", lambda self, key, **_: None)
        made = ingest(tmp_path, str(corpus), max_quarantined_fraction=0.5)  # as the refusal advises: nothing is read again
    assert written
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "storage" / ".parts").glob("*/read-*"))] == written
    assert made.manifest.summary["quarantined"] == {"nul_bytes": 8}
    assert ingest(tmp_path, str(corpus), max_quarantined_fraction=1).reused
    assert not list((tmp_path / "storage" / ".parts").iterdir()), "as if the first run was killed before it removed them"
    with pytest.raises(UserError, match=told):
        ingest(tmp_path, str(corpus), max_quarantined_fraction=0.49)  # finished documents are no way around it
    shutil.rmtree(corpus / "deep")
    with pytest.raises(UserError, match=r"empty: .* 8 inputs were refused \(8 nul_bytes\)"):
        ingest(tmp_path, str(corpus), max_quarantined_fraction=1)


def test_a_corpus_on_one_side_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no held-out document.*heldout_fraction"):
        ingest(tmp_path, str(corpus), heldout_fraction=1e-9)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.txt").write_text("The boat is slow. " * 40)
    seed = next(seed for seed in range(100) if split_of("a.txt", 0.9, seed) == "heldout")
    with pytest.raises(UserError, match=r"no training document.*heldout_fraction"):
        ingest(tmp_path, str(tmp_path / "one"), heldout_fraction=0.9, split_seed=seed)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["/data/a/books", "/data/b/books"], "two sources are called 'books'"),
        ([{"uri": "/data/a", "weight": 1}, "/data/b"], "some sources have a weight"),
        ([{"uri": "/data/a", "train_only": True}], "every source is train_only, so nothing could be held out"),
    ],
)
def test_sources_that_do_not_fit_together(sources: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CorpusParams(sources=tuple(sources))


def test_a_source_is_labelled_by_its_last_part() -> None:
    uris = {
        "/data/books": "books", "s3://bucket/web/crawl-7/": "crawl-7", "books/**/*.txt": "books", "stdlib:": "stdlib",
        "hf:allenai/c4": "c4", "zip://inner/*.txt::https://host/all.zip": "inner", "/": "source",
    }  # fmt: skip
    assert {uri: CorpusSource(uri=uri).label for uri in uris} == uris


@pytest.mark.parametrize("named", [True, False])
def test_a_record_stays_on_its_side_wherever_it_is_in_the_file(tmp_path: Path, named: bool) -> None:
    rows = [{"text": f"Record {i} tells of the ford. " * 3} | ({"id": f"doc-{i:04}"} if named else {}) for i in range(200)]
    options = {"near_duplicates": {"enabled": False}, "decontamination": {"enabled": False}, "heldout_fraction": 0.3}

    def heldout(*names: str) -> set[str]:
        source = {"uri": str(tmp_path / "corpus"), "name": "records"}
        made = documents(ingest(tmp_path, source, **options))
        return {d["text"] for d in made if d["split"] == "heldout"} - set(names)

    (tmp_path / "corpus").mkdir()
    lines(tmp_path / "corpus" / "x.jsonl", *rows)
    first = heldout()
    assert 30 < len(first) < 90
    lines(tmp_path / "corpus" / "x.jsonl", {"text": "one line in front", "id": "new"}, *rows)
    assert heldout("one line in front") == first
    (tmp_path / "corpus" / "x.jsonl").unlink()
    lines(tmp_path / "corpus" / "y.jsonl", *rows[120:])
    lines(tmp_path / "corpus" / "z.jsonl", *rows[119::-1])
    assert heldout() == first


def test_the_ledger_accounts_for_every_input_of_every_source(corpus: Path, tmp_path: Path) -> None:
    (corpus / "nul.txt").write_bytes(b"a\0b")
    (corpus / "secret.txt").symlink_to("/etc/hostname")
    (corpus / "short.txt").write_text("é")
    shutil.copytree(corpus, tmp_path / "copy", symlinks=True)
    sources = [{"uri": str(corpus), "min_bytes": 3}, {"uri": str(tmp_path / "copy"), "min_bytes": 3}]
    artifact = ingest(tmp_path, *sources)
    ledger = read_ledger(artifact.path)
    ledger.check()
    assert ledger == ledger_of(artifact.manifest.summary)
    assert ledger.sources == ("copy", "corpus")
    counts = {(line.source, line.step, line.reason): (line.documents, line.bytes) for line in ledger.lines}
    for source in ledger.sources:
        assert counts[source, "read", ""] == (11, 154)
        assert counts[source, "quarantined", "nul_bytes"] == (1, 0)
        assert counts[source, "quarantined", "outside_root"] == (1, 0)
        assert counts[source, "filtered", "short"] == (1, 2)
    assert counts["copy", "duplicate", ""] == (8, 152)
    assert counts["copy", "remaining", ""] == (0, 0)
    made = documents(artifact)
    for step, split in (("held_out", "heldout"), ("remaining", "train")):
        of_split = [d["num_bytes"] for d in made if d["split"] == split]
        assert counts["corpus", step, ""] == (len(of_split), sum(of_split))


@pytest.mark.slow
def test_copies_of_a_heldout_document_go_and_a_shared_licence_stays_for_any_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eleven documents hold the victim, nine others share a licence with a held-out one, forty are clean."""
    train, heldout = work_on("train"), work_on("heldout")
    victim, licence = prose(1, 300), prose(2, 250)
    rows = [
        {"text": victim, "work": heldout, "id": "victim"},
        {"text": f"{licence} {prose(3, 750)}", "work": heldout, "id": "licensed"},
        *({"text": f"{prose(100 + i)} {victim}", "work": train, "id": f"copy{i}"} for i in range(11)),
        *({"text": f"{licence} {prose(200 + i, 750)}", "work": train, "id": f"book{i}"} for i in range(9)),
        *({"text": prose(300 + i, 2_000), "work": train, "id": f"clean{i}"} for i in range(40)),
    ]
    source = lines(tmp_path / "x.jsonl", *rows)
    artifact = ingest(tmp_path, source)
    kept = [d["source_uri"].split("#")[1] for d in documents(artifact)]
    assert kept == ["victim", "licensed", *(f"book{i}" for i in range(9)), *(f"clean{i}" for i in range(40))]
    told = {row["source_uri"].split("#")[1]: row for row in table(artifact, "shared_text", SHARED_TEXT)}
    assert set(told) == {"licensed"}
    assert (told["licensed"]["num_documents"], told["licensed"]["is_given_up"]) == (9, False)
    assert told["licensed"]["example"] == licence[:200]
    assert read_ledger(artifact.path).total("contaminated").documents == 11
    tables = (("documents", DOCUMENTS), ("contamination", CONTAMINATION), ("shared_text", SHARED_TEXT), ("excerpts", EXCERPTS))
    whole = [table(artifact, name, schema) for name, schema in tables]
    monkeypatch.setattr("tasks.ingest.corpus_units.MIN_UNIT_BYTES", 30_000)
    monkeypatch.setattr("tasks.ingest.survey.ROW_GROUP_BYTES", 10_000)
    shutil.rmtree(tmp_path / "storage")
    cut = ingest(tmp_path, source)
    assert len(document_files(cut.path)) > 3
    assert [table(cut, name, schema) for name, schema in tables] == whole
