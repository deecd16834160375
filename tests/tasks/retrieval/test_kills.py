"""The retrieval stage, killed after any of its documents and at any of its file operations, and started again."""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from data_schemas.ledger import ledger_of
from data_schemas.params import PipelineParams
from data_schemas.storage import Storage
from tasks.pack import shards_stage
from tests.golden.inputs import workers_here, write_base
from tests.tasks.retrieval.made_texts import write_parts

PARTS, NUM_KILLED = 2, 8

# A line of input: the event to die at (0: never), and the storage. Events are documents made and file operations in the storage.
# Output: the exit code, and the file in which the parts that were worked on are listed, with the number of events at the end.
PROGRAM = """
import os, signal, sys
from data_schemas.params import PipelineParams
from data_schemas.storage import Storage
from tasks.model.base_model import load_tokenizer
from tasks.retrieval import make_job, retrieval_stage
from tasks.retrieval.settings import check_retrieval
from tests.golden.inputs import workers_here

given = PipelineParams.model_validate_json(sys.argv[1])
CHANGES = {"open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}
check_retrieval(given, load_tokenizer(given.model))  # imports what all runs need
make, row = make_job.RetrievalJob.__call__, make_job._Part._row

def event():
    global seen
    seen += 1
    if seen == die_at:
        os.kill(os.getpid(), signal.SIGKILL)

def hook(name, args):
    if name in CHANGES and storage in str(args[0]):
        event()

def noted(job, unit):
    print("part", unit[0], flush=True)
    return make(job, unit)

def counted(*args):
    made = row(*args)
    event()
    return made

for line in sys.stdin:
    die_at, seen, storage = int(line.split()[0]), 0, line.split()[1]
    pid = os.fork()
    if pid == 0:
        params = given.model_copy(update={"storage": storage})
        make_job.RetrievalJob.__call__, make_job._Part._row = noted, counted
        kept = Storage(storage)
        documents = kept.find("documents", sys.argv[2])
        sys.addaudithook(hook)
        retrieval_stage.run(params, kept, documents, workers_here, lambda _: None)
        print("events", seen, flush=True)
        os._exit(0)
    print("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclass
class Told:
    """What a run wrote: its exit code, the parts that it worked on, and how many events it had, if it came to its end."""

    code: int = 0
    worked_on: list[int] = field(default_factory=list)
    events: int = 0


class Runs:
    """Runs of the stage in processes of their own."""

    def __init__(self, params: PipelineParams, documents: str) -> None:
        command = [sys.executable, "-c", PROGRAM, params.model_dump_json(), documents]
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, bufsize=1
        )

    def run(self, storage: Path, die_at: int = 0) -> Told:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{die_at} {storage}\n")
        told = Told()
        for line in self.process.stdout:
            name, number = line.split()
            if name == "part":
                told.worked_on.append(int(number))
            elif name == "events":
                told.events = int(number)
            else:
                told.code = int(number)
                return told
        raise AssertionError("the process that starts the runs has ended")


@dataclass(frozen=True)
class Example:
    """Documents in a storage that is copied for each kill, and the runs on it."""

    folder: Path
    params: PipelineParams
    runs: Runs

    def storage(self, name: str) -> Path:
        return Path(shutil.copytree(self.folder / "documents-only", self.folder / name))


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    base = write_base(tmp_path / "base", window=64)
    storage = Storage(str(tmp_path / "documents-only"))
    documents = storage.build(
        "documents", stage="test", params={}, code_version=1, parents={}, make=lambda path: write_parts(path, PARTS, 4, 3000)
    )
    params = PipelineParams.model_validate({
        "run_name": "r", "storage": "unused", "corpus": {"sources": [{"uri": "x", "name": "x"}]},
        "model": {"base": str(base), "target_length": 512},
        "retrieval": {"share": 0.2, "families": ["key_value", "hard_negatives"], "questions": 4},
    })  # fmt: skip
    runs = Runs(params, documents.digest)
    yield Example(tmp_path, params, runs)
    assert runs.process.stdin
    runs.process.stdin.close()
    assert runs.process.wait() == 0


def files_of(storage: Path) -> dict[str, bytes]:
    """All files of a storage but its locks: artifacts, manifests, parts and what is staged."""
    found = sorted(path for path in storage.rglob("*") if path.is_file() and ".locks" not in path.parts)
    return {str(path.relative_to(storage)): path.read_bytes() for path in found}


def finished_parts(storage: Path) -> set[int]:
    return {int(path.stem.removeprefix("made-")) for path in storage.glob(".parts/*/made-*.json")}


def test_sigkill_at_any_document_and_file_operation(example: Example) -> None:
    whole = example.storage("whole")
    undisturbed = example.runs.run(whole)
    assert (undisturbed.code, undisturbed.worked_on) == (0, list(range(PARTS)))
    expected = files_of(whole)
    draw = random.Random()
    bounds = [undisturbed.events * i // NUM_KILLED for i in range(NUM_KILLED + 1)]
    first = [draw.randint(start + 1, end) for start, end in pairwise(bounds)]  # the last one is after the manifest is written
    for die_at in first:
        storage = example.storage(f"killed-{die_at}")
        later = draw.randint(1, undisturbed.events)
        codes = []
        for moment in (die_at, later, 0):
            finished = finished_parts(storage)
            told = example.runs.run(storage, moment)
            codes.append(told.code)
            assert not finished & set(told.worked_on), f"killed at {die_at} and {later}: a part was made twice"
        assert codes[0] == -signal.SIGKILL
        assert codes[2] == 0
        assert files_of(storage) == expected, f"killed at {die_at} and {later}"
    made, ledgers = [], []
    for name in ("whole", f"killed-{first[-1]}"):
        kept = Storage(str(example.folder / name))
        params = example.params.model_copy(update={"storage": str(kept.root)})
        [documents] = [kept.find("documents", manifest.digest) for manifest in kept.manifests("documents")]
        assert documents is not None
        shards = shards_stage.run(params, kept, documents, workers_here, lambda _: None)
        ledger = ledger_of(shards.manifest.summary)
        assert ledger is not None
        ledger.check()
        [retrieval] = kept.manifests("retrieval")
        assert ledger.total("made").documents == retrieval.summary["num_documents"]
        assert not list((kept.root / ".parts").iterdir())
        made.append((shards.manifest.digest, shards.manifest.files))
        ledgers.append(ledger.to_json())
    assert made[0] == made[1]
    assert ledgers[0] == ledgers[1]
