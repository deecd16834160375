"""The whole publish stage, killed at random file operations: the release before stays served, and a rerun completes."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tasks.publish.checks import failures
from tasks.publish.verify import check_files
from tests.tasks.release_example import finished_run
from tests.tasks.small_release import served_folder

# A line of input: the file operation to die at (0: never; -1: count them). Output: the exit code, and the count where asked for.
PROGRAM = """
import os, signal, sys
from pathlib import Path
import peft, transformers
from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage, read_manifest
from tasks.model import extended, rope_plan as rope
from tasks.publish import release_stage as stage, verify

params = PipelineParams.model_validate_json(sys.argv[1])
artifacts = [Artifact(Path(path), read_manifest(Path(path)), True) for path in sys.argv[2:]]
CHANGES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.copyfile", "shutil.rmtree", "shutil.move"}

def hook(event, args):
    global seen
    if event in CHANGES and str(params.storage) in str(args[0]):
        seen += 1
        if seen == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

for line in sys.stdin:
    die_at, seen = int(line), 0
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        sys.addaudithook(hook)
        stage.run(params, Storage(params.storage), *artifacts, lambda _: None)
        os.write(writer, b"%d" % seen)
        os._exit(0)
    os.close(writer)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(code, (os.read(reader, 20) or b"0").decode(), flush=True)
"""


@pytest.mark.slow
def test_sigkill_at_any_file_operation_of_publishing(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    run = finished_run(tmp_path, tokenizer)
    old = run.publish()
    new = run.params.model_copy(update={"publish": run.params.publish.model_copy(update={"dtype": "float32"})})
    versions = old.path.parent
    parents = [str(a.path) for a in (run.documents, run.shards, run.checkpoint, run.evaluation)]
    command = [sys.executable, "-c", PROGRAM, new.model_dump_json(), *parents]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def publish(die_at: int) -> tuple[int, int]:
            assert process.stdin
            assert process.stdout
            print(die_at, file=process.stdin, flush=True)
            code, seen = process.stdout.readline().split()
            return int(code), int(seen)

        def back_to_old() -> None:
            (versions.parent / "current").write_text(f"{old.digest}\n")
            for other in versions.iterdir():
                if other.name != old.digest:
                    subprocess.run(["rm", "-r", other], check=True)

        code, operations = publish(-1)
        assert code == 0
        assert operations > 60
        for moment in sorted(random.Random().sample(range(1, operations + 1), 8)):
            back_to_old()
            assert publish(moment)[0] == -signal.SIGKILL, f"{moment} of {operations}"
            served = served_folder(run.storage, "tiny")
            assert served is not None, f"{moment} of {operations}"
            assert failures(check_files(served)) == [], f"{moment} of {operations}"
            assert failures(check_files(old.path)) == []
            assert publish(0)[0] == 0, f"{moment} of {operations}"
            finished = served_folder(run.storage, "tiny")
            assert finished is not None
            assert finished != old.path
            assert failures(check_files(finished)) == []
            assert list((run.storage.root / ".staging").iterdir()) == []
        assert process.stdin
        process.stdin.close()
