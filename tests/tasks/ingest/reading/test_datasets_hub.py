"""Hugging Face data sets: saved to disk, as a folder, and from a hub (a small server that answers like it)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_schemas.errors import UserError
from data_schemas.params import CorpusParams
from tasks.ingest import corpus_units as units
from tasks.ingest.corpus_units import plan_corpus
from tests.hub_server import COMMIT, hub_server
from tests.tasks.ingest.reading_example import read

TEXTS = [f"text {i}" for i in range(30)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    from datasets import Dataset, DatasetDict

    data = Dataset.from_dict({"text": TEXTS, "id": range(30), "license": ["MIT"] * 30, "other": [{"a": 1}] * 30})
    data.save_to_disk(tmp_path / "saved")
    DatasetDict({"train": data, "test": data.select(range(5))}).save_to_disk(tmp_path / "splits")
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    for shard in range(3):
        lines = [json.dumps({"text": text}) for text in TEXTS[shard * 10 : shard * 10 + 10]]
        (path / f"train-{shard}.jsonl").write_text("\n".join(lines))
    return path


def test_a_saved_data_set_is_read_by_rows(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"uri": f"hf:{saved}/saved", "licence": "CC0-1.0"}
    whole = read(source)
    assert [(d.text, d.record) for d in whole.documents] == [(text, i) for i, text in enumerate(TEXTS, 1)]
    first = whole.documents[0]
    assert first.source_uri == f"hf:{saved}/saved:default/train#0"
    assert (first.licence, first.work, first.source, first.byte_start) == ("MIT", "saved#0", "saved", None)
    monkeypatch.setattr(units, "MIN_UNIT_BYTES", 200)
    cut = read(source)
    assert cut.documents == whole.documents
    assert len(cut.corpus.units) > 3


def test_a_saved_split_is_chosen_by_name(saved: Path) -> None:
    assert read({"uri": f"hf:{saved}/splits", "dataset_split": "test"}).texts == TEXTS[:5]
    with pytest.raises(UserError, match="Unknown split 'valid'"):
        read({"uri": f"hf:{saved}/splits", "dataset_split": "valid"})


def test_a_folder_is_read_streamed_or_mapped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "MIN_UNIT_BYTES", 200)
    streamed = read(f"hf:{folder}")
    assert streamed.texts == TEXTS
    assert [(d.record, d.source_uri.rsplit("/", 1)[1]) for d in streamed.documents[9:12]] == [
        (10, "00000-of-00003"),
        (1, "00001-of-00003"),
        (2, "00001-of-00003"),
    ]
    assert len(streamed.corpus.units) == 3
    mapped = read({"uri": f"hf:{folder}", "streaming": False})
    assert [(d.text, d.record) for d in mapped.documents] == [(text, i) for i, text in enumerate(TEXTS, 1)]


@pytest.mark.parametrize("streaming", [True, False])
def test_the_fingerprint_follows_the_content(folder: Path, streaming: bool, tmp_path: Path) -> None:
    def fingerprint(path: Path) -> str:
        source = {"uri": f"hf:{path}", "streaming": streaming, "name": "s"}
        return plan_corpus(CorpusParams(sources=(source,))).fingerprint

    shutil.copytree(folder, tmp_path / "copy")
    assert fingerprint(folder) == fingerprint(tmp_path / "copy")
    (folder / "train-1.jsonl").write_text('{"text": "changed"}')
    assert fingerprint(folder) != fingerprint(tmp_path / "copy")


def test_bad_rows_and_broken_files_do_not_stop_the_others(folder: Path) -> None:
    (folder / "train-0.jsonl").write_text('{"text": "fine"}\n{"text": " "}\n{"text": null}')
    (folder / "train-1.jsonl").write_text('{"text": "broken')
    found = read(f"hf:{folder}", max_document_megabytes=1)
    assert found.texts == ["fine", *TEXTS[20:]]
    assert found.reasons == {
        ("00000-of-00003", 2): "empty",
        ("00000-of-00003", 3): "not_text",
        ("00001-of-00003", 1): "corrupt",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uri": "hf:{folder}", "text_field": "body"}, r"no column 'body' \(it has text\)"),
        ({"uri": "hf:{folder}", "dataset_split": "test"}, "Bad split: test"),
        ({"uri": "hf:{folder}", "dataset_config": "de"}, "'de' not found"),
        ({"uri": "hf:{folder}/empty"}, "has no data files"),
        ({"uri": "hf:{folder}/scripted"}, "scripts are no longer supported"),
        ({"uri": "hf:me/words"}, "cannot be fetched from the Hugging Face hub"),
        ({"uri": "hf:me/words", "streaming": False}, "cannot be fetched from the Hugging Face hub"),
    ],
)
def test_a_wrong_data_set_is_one_sentence(folder: Path, options: dict[str, str], message: str) -> None:
    (folder / "empty").mkdir()
    (folder / "scripted").mkdir()
    (folder / "scripted" / "scripted.py").write_text("raise SystemExit('the data set ran its own code')")
    source = {**options, "uri": options["uri"].format(folder=folder)}
    with pytest.raises(UserError, match=message) as raised:
        plan_corpus(CorpusParams(sources=(source,)))
    assert "\n" not in str(raised.value)


FROM_HUB = """
from data_schemas.errors import UserError
from tests.tasks.ingest.reading_example import read
for streaming in (True, False):
    found = read({"uri": "hf:me/words", "streaming": streaming})
    print(found.texts, found.refused, found.documents[0].source_uri, found.corpus.num_bytes > 50, found.corpus.fingerprint)
try:
    read("hf:me/nothing")
except UserError as error:
    print(error)
"""


@pytest.mark.usefixtures("servers")
def test_a_data_set_from_a_hub_is_read_at_its_commit(tmp_path: Path) -> None:
    files = {
        "README.md": b"---\nlicense: mit\n---\n",
        "data/train-00000.jsonl": b'{"text": "a"}\n{"text": "b"}\n',
        "data/train-00001.jsonl": b'{"text": "c"}\n',
    }
    with hub_server(files) as endpoint:
        environment = os.environ | {
            "HF_ENDPOINT": endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        done = subprocess.run([sys.executable, "-c", FROM_HUB], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    streamed, mapped, missing = done.stdout.splitlines()
    expected = f"['a', 'b', 'c'] [] hf:me/words@{COMMIT}:default/train"
    assert streamed.startswith(f"{expected}/00000-of-00002 True ")
    assert mapped.startswith(f"{expected} ")
    assert "'hf:me/nothing' (revision main) is not on the hub" in missing
