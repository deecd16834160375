"""Promises of the shards: rows come back as planned, the same bytes every time, read without a copy, damage found by name."""

import errno
import json
import mmap
import pickle
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.errors import UserError, is_disk_full
from data_schemas.manifest import hash_file
from data_schemas.params import PackingParams
from data_schemas.parts import Parts
from data_schemas.storage import Artifact, Storage
from data_schemas.tables import PACKED_ROWS
from tasks.pack.packer import PackingPlan, plan_rows
from tasks.pack.reading import open_rows, sample_order, shuffled
from tasks.pack.sequences import SequenceReader, SequenceWriter, read_entries, tokens_name
from tasks.pack.shards import shard_name, split_into_shards, write_dataset_files, write_shard

TARGET = 512
NUM_PARTS = 3


def sequences(number: int = 200) -> list[tuple[str, np.ndarray]]:
    """(doc_id, tokens), the first third in part 0, and so on."""
    rng = np.random.default_rng(0)
    return [(f"d{i}", rng.integers(0, 1000, 1 + i % 90, dtype=np.int32)) for i in range(number)]


def write_sequences(place: Path, made: list[tuple[str, np.ndarray]]) -> Parts:
    parts = Parts(str(place))
    for part in range(NUM_PARTS):
        with SequenceWriter(parts, part) as writer:
            for i in range(part * len(made) // NUM_PARTS, (part + 1) * len(made) // NUM_PARTS):
                writer.append("train", made[i][0], 0, i % 2, made[i][1], 4 * len(made[i][1]), len(made[i][1]))
    return parts


def write(directory: Path, megabytes: float = 256, number: int = 200) -> tuple[list[tuple[str, np.ndarray]], PackingPlan]:
    directory.mkdir(exist_ok=True)
    made = sequences(number)
    parts = write_sequences(directory.parent / f"{directory.name}-parts", made)
    lengths = read_entries(parts, NUM_PARTS, "train").lengths
    plan = plan_rows(lengths, TARGET, PackingParams())
    spans = split_into_shards(plan, lengths, megabytes)
    names = [shard_name(i, len(spans)) for i in range(len(spans))]
    for name, span in zip(names, spans, strict=True):
        write_shard(directory / name, plan.rows(*span), SequenceReader(parts, NUM_PARTS, "train"))
    write_dataset_files(directory, names, [hash_file(directory / name) for name in names], "train")
    return made, plan


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    directory = tmp_path / "shards"
    write(directory, megabytes=0.006)
    return directory


# -- sequences


def test_sequences_come_back_by_number_in_any_order(tmp_path: Path) -> None:
    made = sequences()
    parts = write_sequences(tmp_path, made)
    entries = read_entries(parts, NUM_PARTS, "train")
    assert entries.lengths.tolist() == entries.document_lengths.tolist() == [len(tokens) for _, tokens in made]
    assert entries.sources.tolist() == [i % 2 for i in range(len(made))]
    assert entries.num_bytes.tolist() == [4 * len(tokens) for _, tokens in made]
    assert entries.documents.tolist() == list(range(len(made)))
    reader = SequenceReader(parts, NUM_PARTS, "train")
    wanted = np.array([199, 0, 70, 66, 67, 0, 133, 5])
    located = reader.locate(wanted)
    assert located.chunk_ids.to_pylist() == [f"d{i}:0" for i in wanted]
    assert reader.read(located).tolist() == [t for i in wanted for t in made[i][1].tolist()]
    assert reader.read(located.slice(2, 4)).tolist() == [*made[70][1].tolist(), *made[66][1].tolist()]
    assert reader.read(reader.locate(wanted[:0])).tolist() == []
    assert read_entries(parts, NUM_PARTS, "heldout").lengths.tolist() == []


def test_an_error_leaves_no_half_written_part(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="invalid literal"), SequenceWriter(Parts(str(tmp_path)), 0) as writer:
        writer.append("train", "d", 0, 0, [1, 2, int("not a token")], 3, 3)
    assert list(tmp_path.iterdir()) == []


def test_token_files_cut_short_are_named(tmp_path: Path) -> None:
    parts = write_sequences(tmp_path, sequences())
    cut = tmp_path / tokens_name("train", 1)
    cut.write_bytes(cut.read_bytes()[:-4])
    reader = SequenceReader(parts, NUM_PARTS, "train")
    with pytest.raises(UserError, match=r"train-00001\.tokens was cut short"):
        reader.read(reader.locate(np.arange(200)))


def test_few_files_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.pack.sequences._MOST_OPEN_FILES", 2)
    made = sequences()
    reader = SequenceReader(write_sequences(tmp_path, made), NUM_PARTS, "train")
    wanted = shuffled(200, 0)
    assert reader.read(reader.locate(wanted)).tolist() == [t for i in wanted for t in made[i][1].tolist()]
    assert len(reader._open) == 2


# -- shards


def test_rows_come_back_as_they_were_planned(tmp_path: Path) -> None:
    made, plan = write(tmp_path / "shards", megabytes=0.006)
    assert len(list(tmp_path.glob("shards/*.arrow"))) > 3
    packed = open_rows(tmp_path / "shards")
    loaded = datasets.load_from_disk(str(tmp_path / "shards"))
    assert len(packed) == len(loaded) == plan.num_rows
    for i in range(plan.num_rows):
        ids = np.concatenate([made[j][1] for j in plan.row(i)])
        lengths = [len(made[j][1]) for j in plan.row(i)]
        read = packed.row(i)
        assert read["input_ids"].dtype == read["seq_lengths"].dtype == np.int32
        np.testing.assert_array_equal(read["input_ids"], ids)
        assert read["seq_lengths"].tolist() == lengths
        assert packed.chunk_ids(i) == [f"{made[j][0]}:0" for j in plan.row(i)]
        assert loaded[i] == {"input_ids": ids.tolist(), "seq_lengths": lengths, "chunk_ids": packed.chunk_ids(i)}
    with pytest.raises(IndexError):
        packed.row(plan.num_rows)


def test_rows_are_views_of_the_mapped_file(shards: Path) -> None:
    allocated = pa.total_allocated_bytes()
    packed = open_rows(shards)
    for number in range(len(packed)):
        for array in packed.row(number).values():
            owner = array
            while isinstance(owner, np.ndarray):
                assert not owner.flags.owndata
                assert not owner.flags.writeable
                owner = owner.base.obj if isinstance(owner.base, memoryview) else owner.base
            assert isinstance(owner, mmap.mmap)
            whole = np.frombuffer(owner, np.uint8)
            assert np.shares_memory(array, whole)
    assert pa.total_allocated_bytes() == allocated
    again = pickle.loads(pickle.dumps(packed))  # as multiprocessing sends it
    np.testing.assert_array_equal(again.row(1)["input_ids"], packed.row(1)["input_ids"])


def test_datasets_maps_the_shards_without_copying(shards: Path) -> None:
    loaded = datasets.load_from_disk(str(shards))
    assert {Path(f["filename"]).parent for f in loaded.cache_files} == {shards}
    assert loaded.data.nbytes > 0
    assert loaded.split == "train"


def test_shards_hold_one_row_a_batch_uncompressed_in_the_agreed_schema_and_size(tmp_path: Path) -> None:
    _, plan = write(tmp_path / "shards", megabytes=0.02)
    files = sorted(tmp_path.glob("shards/*.arrow"))
    assert all(10_000 < path.stat().st_size < 24_000 for path in files[:-1])
    num_batches = 0
    for path in files:
        reader = pa.ipc.open_stream(path)
        assert reader.schema.equals(PACKED_ROWS)
        for batch in reader:
            assert batch.num_rows == 1
            assert batch.column(0).values.to_numpy(zero_copy_only=True).tobytes() in path.read_bytes()
            num_batches += 1
    assert num_batches == plan.num_rows


def test_the_split_into_shards_covers_every_row_once() -> None:
    lengths = np.random.default_rng(0).integers(1, TARGET, 500)
    plan = plan_rows(lengths, TARGET, PackingParams())
    for megabytes in (1e-6, 0.01, 0.1, 100):
        spans = split_into_shards(plan, lengths, megabytes)
        assert [row for span in spans for row in range(*span)] == list(range(plan.num_rows))
        assert len(spans) == {1e-6: plan.num_rows, 100: 1}.get(megabytes, len(spans))
    assert split_into_shards(plan_rows(lengths[:0], TARGET, PackingParams()), lengths[:0], 1) == []


def test_two_runs_write_the_same_bytes_and_other_rows_another_fingerprint(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, megabytes=0.01)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert [(tmp_path / "a" / f).read_bytes() for f in files] == [(tmp_path / "b" / f).read_bytes() for f in files]
    write(tmp_path / "c", megabytes=0.01, number=199)
    fingerprints = {json.loads((tmp_path / d / "state.json").read_text())["_fingerprint"] for d in "abc"}
    assert len(fingerprints) == 2


def test_rows_do_not_depend_on_how_many_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a")
    monkeypatch.setattr("tasks.pack.shards._BLOCK_TOKENS", 700)
    _, plan = write(tmp_path / "b")
    a, b = open_rows(tmp_path / "a"), open_rows(tmp_path / "b")
    for number in range(plan.num_rows):
        assert a.row(number)["input_ids"].tolist() == b.row(number)["input_ids"].tolist()
        assert a.row(number)["seq_lengths"].tolist() == b.row(number)["seq_lengths"].tolist()
        assert a.chunk_ids(number) == b.chunk_ids(number)


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    parts = write_sequences(tmp_path, sequences())
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError) as error:
        write_shard(tmp_path / "full", [np.arange(5)], SequenceReader(parts, NUM_PARTS, "train"))
    assert error.value.errno == errno.ENOSPC
    assert is_disk_full(error.value)


# -- damage


def test_a_folder_without_rows_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no packed rows"):
        open_rows(tmp_path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [truncate, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_missing_or_truncated_shard_is_named_when_rows_are_opened(shards: Path, damage: object) -> None:
    name = sorted(path.name for path in shards.glob("*.arrow"))[1]
    damage(shards / name)  # type: ignore[operator]
    with pytest.raises(UserError, match=f"damaged: .*{name}"):
        len(open_rows(shards))


@pytest.mark.parametrize("damage", [truncate, Path.unlink, flip])
def test_every_kind_of_damage_is_found_by_name_before_training(tmp_path: Path, shards: Path, damage: object) -> None:
    """Training calls `Artifact.check` before it starts a worker."""
    artifact = build(tmp_path, shards)
    artifact.check()
    name = sorted(path.name for path in artifact.path.glob("*.arrow"))[1]
    damage(artifact.path / name)  # type: ignore[operator]
    with pytest.raises(UserError, match=f"{name} (is missing|has)"):
        artifact.check()


def build(tmp_path: Path, shards: Path) -> Artifact:
    def make(directory: Path) -> dict[str, object]:
        shutil.copytree(shards, directory, dirs_exist_ok=True)
        return {}

    return Storage(str(tmp_path / "storage")).build("shards", stage="prepare", params={}, code_version=1, parents={}, make=make)


# -- reading order


@settings(max_examples=60)
@given(st.integers(0, 500), st.integers(0, 2**40), st.integers(0, 1000))
def test_sample_order_visits_every_row_once(num_rows: int, seed: int, epoch: int) -> None:
    assert sorted(sample_order(num_rows, seed, epoch).tolist()) == list(range(num_rows))


def test_sample_order_is_fixed_and_changes_with_the_epoch() -> None:
    assert sample_order(8, 0, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]  # recorded: a change would break resuming
    assert sample_order(100, 0, 0).tolist() != sample_order(100, 0, 1).tolist()
    assert sample_order(100, 0, 0).tolist() != sample_order(100, 1, 0).tolist()


def test_equal_random_keys_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    class Few:
        def random_raw(self, num: int) -> np.ndarray:
            return (np.arange(num, dtype=np.uint64) * 7919) % 5

    monkeypatch.setattr(np.random, "PCG64", lambda seed: Few())
    assert shuffled(2000, 0).tolist() == sorted(range(2000), key=lambda i: i * 7919 % 5)
