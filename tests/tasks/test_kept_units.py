"""A grown corpus is read and chunked only where it changed, and gives what working on all of it gives."""

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data_schemas.documents import part_names
from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.prepare.ray_data import workers_for
from tasks import kept_units
from tasks.ingest import corpus_units
from tasks.ingest.documents_stage import run
from tasks.pack import shards_stage
from tests.tasks.ingest.test_documents_stage import documents, prose


@pytest.fixture(autouse=True)
def _small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_units, "MIN_UNIT_BYTES", 20_000)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path)


def write_corpus(home: Path) -> Path:
    folder = home / "corpus"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:03d}.txt").write_text(prose(number))
    return folder


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, and the storage of a run that read all of it."""
    home = tmp_path_factory.mktemp("first-run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_units, "MIN_UNIT_BYTES", 20_000)
        _, num_kept, num_units = ingested(write_corpus(home))
    assert (num_kept, num_units > 5) == (0, True)
    return home


@pytest.fixture
def ingested_corpus(first_run: Path) -> Iterator[Path]:
    """The corpus that the first run read; a test changes it and its storage as it likes, and both are put back."""
    kept = first_run.with_name(f"{first_run.name}-kept")
    shutil.copytree(first_run, kept)
    yield first_run / "corpus"
    shutil.rmtree(first_run)
    kept.rename(first_run)


def pipeline(folder: Path, storage: str = "storage", **options: Any) -> PipelineParams:
    return PipelineParams.model_validate(
        {
            "run_name": "x",
            "corpus": {"sources": [str(folder)], "heldout_fraction": 0.3, **options},
            "model": {"base": "demo", "target_length": 512},
            "storage": str(folder.parent / storage),
        }
    )


def packed(params: PipelineParams) -> tuple[Artifact, int, int]:
    """(shards, parts of the documents chunked by an earlier run, all parts)."""
    said: list[str] = []
    storage, workers = Storage(params.storage), partial(workers_for, params)
    documents = run(params, storage, workers, said.append)
    shards = shards_stage.run(params, storage, documents, workers, lambda event: said.append(str(event)))
    told = next((str(line) for line in said if "chunked by an earlier run" in str(line)), "prepare: 0 of")
    return shards, int(told.split("prepare: ")[1].split()[0]), len(part_names(documents.manifest))


def ingested(folder: Path, storage: str = "storage", **options: Any) -> tuple[Artifact, int, int]:
    """(artifact, units read by an earlier run, all units)."""
    said: list[str] = []
    params = pipeline(folder, storage, **options)
    artifact = run(params, Storage(params.storage), partial(workers_for, params), lambda event: said.append(str(event)))
    num_units = len(corpus_units.plan_corpus(params.corpus).units)
    told = next((line for line in said if "read by an earlier run" in line), "ingest: 0 of")
    return artifact, int(told.split("ingest: ")[1].split()[0]), num_units


def assert_as_from_scratch(artifact: Artifact, folder: Path, **options: Any) -> None:
    again, _, _ = ingested(folder, "other-storage", **options)
    assert {entry.path: entry.sha256 for entry in artifact.manifest.files} == {
        entry.path: entry.sha256 for entry in again.manifest.files
    }
    assert artifact.manifest.summary == again.manifest.summary


@pytest.mark.parametrize("name", ["000a.txt", "030a.txt", "zzz.txt"])
@pytest.mark.slow
def test_an_added_file_costs_the_unit_it_falls_into(ingested_corpus: Path, name: str) -> None:
    corpus = ingested_corpus
    (corpus / name).write_text(prose(99))
    artifact, num_kept, num_units = ingested(corpus)
    assert num_units - num_kept <= 2
    assert_as_from_scratch(artifact, corpus)


@pytest.mark.slow
def test_a_changed_or_removed_file_is_never_taken_from_an_earlier_run(ingested_corpus: Path) -> None:
    corpus = ingested_corpus
    (corpus / "030.txt").write_text(prose(98))
    (corpus / "010.txt").unlink()
    artifact, num_kept, num_units = ingested(corpus)
    assert 2 <= num_units - num_kept <= 4
    texts = {document["text"] for document in documents(artifact)}
    assert prose(98) in texts
    assert not {prose(30), prose(10)} & texts
    assert_as_from_scratch(artifact, corpus)


@pytest.mark.slow
def test_lines_added_to_a_file_cost_its_last_part(corpus: Path) -> None:
    lines = [json.dumps({"text": prose(number), "id": f"r{number}"}) for number in range(200, 260)]
    (corpus / "records.jsonl").write_text("\n".join(lines[:50]) + "\n")
    ingested(corpus)
    (corpus / "records.jsonl").write_text("\n".join(lines) + "\n")
    artifact, num_kept, num_units = ingested(corpus)
    assert 1 <= num_units - num_kept <= 4  # 10 more records are two units of lines
    assert_as_from_scratch(artifact, corpus)


@pytest.mark.parametrize(
    ("options", "is_reused"),
    [
        ({"decontamination": {"heldout_share": 0.5}}, True),
        ({"near_duplicates": {"similarity": 0.9}}, True),
        ({"split_seed": 7}, False),
        ({"detect_language": False}, False),
        ({"near_duplicates": {"num_permutations": 64}}, False),
        ({"quality": {"min_words": 3}}, False),
        ({"keep_units": False}, False),
    ],
    ids=str,
)
@pytest.mark.slow
def test_units_are_taken_only_if_they_would_be_read_the_same(
    ingested_corpus: Path, options: dict[str, Any], is_reused: bool
) -> None:
    corpus = ingested_corpus
    (corpus / "zzz.txt").write_text(prose(99))  # also without a change of what the artifact records, it must be made anew
    artifact, num_kept, _ = ingested(corpus, **options)
    assert (num_kept > 0) == is_reused
    assert_as_from_scratch(artifact, corpus, **options)


@pytest.mark.slow
def test_units_of_corpora_before_the_latest_three_are_dropped(corpus: Path) -> None:
    folder = corpus.parent / "storage" / kept_units.FOLDER / "read"
    for number in range(5):
        for file in corpus.iterdir():
            file.write_text(prose(1000 * number + int(file.stem)))
        _, num_kept, num_units = ingested(corpus)
        assert num_kept == 0
    kept = {path.name.split("-")[1] for path in folder.glob("read-*.parquet")}
    assert 2 * num_units < len(kept) <= 4 * num_units
    assert len(list((folder / "used").iterdir())) == 3


@pytest.mark.slow
def test_a_kept_unit_that_is_damaged_by_a_crash_is_read_again(ingested_corpus: Path) -> None:
    corpus = ingested_corpus
    folder = corpus.parent / "storage" / kept_units.FOLDER / "read"
    for result in folder.glob("read-*.json"):
        result.unlink()
    (corpus / "zzz.txt").write_text(prose(99))
    artifact, num_kept, _ = ingested(corpus)
    assert num_kept == 0
    assert_as_from_scratch(artifact, corpus)


@pytest.mark.slow
def test_only_changed_parts_of_the_documents_are_chunked(corpus: Path) -> None:
    (corpus / "long.txt").write_text("\n\n".join(prose(number) for number in range(300, 320)))
    _, num_kept, num_parts = packed(pipeline(corpus))
    assert (num_kept, num_parts > 5) == (0, True)
    (corpus / "030a.txt").write_text(prose(99))
    shards, num_kept, num_parts = packed(pipeline(corpus))
    assert num_parts - 2 <= num_kept < num_parts
    again, num_kept, _ = packed(pipeline(corpus, "other-storage"))
    assert num_kept == 0
    assert shards.digest == again.digest
    assert shards.manifest.summary == again.manifest.summary
    assert [entry.sha256 for entry in shards.manifest.files] == [entry.sha256 for entry in again.manifest.files]


@pytest.mark.slow
def test_chunks_are_taken_only_if_they_would_be_cut_the_same(corpus: Path) -> None:
    (corpus / "long.txt").write_text("\n\n".join(prose(number) for number in range(300, 320)))
    packed(pipeline(corpus))
    (corpus / "zzz.txt").write_text(prose(99))
    params = pipeline(corpus)
    for group, change in (
        ("chunking", {"max_tokens": 200}),
        ("packing", {"max_waste": 0.3}),
        ("corpus", {"keep_units": False}),
    ):
        changed = params.model_copy(update={group: getattr(params, group).model_copy(update=change)})
        assert packed(changed)[1] == 0
    assert packed(params.model_copy(update={"packing": params.packing.model_copy(update={"window_chunks": 50})}))[1] > 0


@pytest.mark.slow
def test_a_result_goes_before_the_parts_that_it_vouches_for(ingested_corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill while old units are dropped leaves no unit that looks whole and is not."""
    corpus = ingested_corpus
    removed: list[str] = []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: (removed.append(path.name), unlink(path, missing_ok))[1])
    for number in range(4):
        for file in corpus.iterdir():
            file.write_text(prose(2000 * (number + 1) + int(file.stem)))
        ingested(corpus)
    dropped = [name for name in removed if name.startswith("read-") and name.endswith((".json", ".parquet"))]
    of_unit = {name.split(".")[0] for name in dropped if len(name) > 40}
    assert of_unit
    for key in of_unit:
        assert dropped.index(f"{key}.json") < dropped.index(f"{key}.parquet")
