"""Publishers as processes of their own, several at once or killed at a chosen moment, for tests.

One process imports everything; each publisher is a fork of it, so that many cost little.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# A line of input: destination (`rollback:` before it: go back to the release there), the file operation to die at (0: never;
# -1: count them), releases, one publisher each.
# Output: the publishers' process ids, and when all have ended, their exit codes (0 done, 3 refused with a sentence).
_PROGRAM = """
import os, shutil, signal, sys
from pathlib import Path
import s3fs
from data_schemas.errors import UserError
from data_schemas.params import PublishParams
from data_schemas.storage import Storage
from tasks.publish.destinations.delivery import deliver
from tasks.publish.destinations.history import rollback
from tasks.publish.destinations.version import read_version
from tasks.publish.releases import point_current
from data_schemas.releases import version_kind

CHANGES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "shutil.copyfile", "shutil.rmtree"}

def to_storage(root, release):
    version, storage = read_version("tiny", release), Storage(root)
    def make(folder):
        shutil.copytree(release, folder, dirs_exist_ok=True, ignore=lambda *_: ["manifest.json"])
        return version.manifest.summary
    m = version.manifest
    storage.build(version_kind("tiny"), stage=m.stage, params=m.params, code_version=m.code_version, parents=m.parents, make=make)
    point_current(storage, "tiny", version.digest)

def publish(destination, release):
    try:
        if destination.startswith("rollback:"):
            rollback(destination.removeprefix("rollback:"), "tiny", release.name)
        elif destination.startswith("storage:"):
            to_storage(destination.removeprefix("storage:"), release)
        else:
            deliver("tiny", release, PublishParams(destinations=(destination,)), lambda _: None)
        return 0
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        return 3

for line in sys.stdin:
    destination, die_at, *releases = line.split()
    children = []
    for release in releases:
        pid = os.fork()
        if pid == 0:
            seen = 0
            def hook(event, args):
                global seen
                if event in CHANGES:
                    seen += 1
                    if seen == int(die_at):
                        os.kill(os.getpid(), signal.SIGKILL)
            if int(die_at):
                sys.addaudithook(hook)
            code = publish(destination, Path(release))
            if int(die_at) < 0:
                print(seen, file=sys.stderr, flush=True)
            os._exit(code)
        children.append(pid)
    print(*children, flush=True)
    print(*[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children], flush=True)
"""


@dataclass(frozen=True)
class Publishers:
    """`told` is the file with what the publishers said."""

    process: subprocess.Popen[str]
    told: Path

    def start(self, destination: str, *releases: Path, die_at: int = 0) -> list[int]:
        """Start one publisher a release; their process ids."""
        assert self.process.stdin
        print(destination, die_at, *releases, file=self.process.stdin, flush=True)
        return self._numbers()

    def wait(self) -> list[int]:
        """The exit codes of those started, in their order; negative for a signal."""
        return self._numbers()

    def run(self, destination: str, *releases: Path, die_at: int = 0) -> list[int]:
        self.start(destination, *releases, die_at=die_at)
        return self.wait()

    def count_operations(self, destination: str, release: Path) -> int:
        """How many file operations a publisher does that nobody disturbs."""
        assert self.run(destination, release, die_at=-1) == [0], self.told.read_text()
        return int(self.told.read_text().split()[-1])

    def _numbers(self) -> list[int]:
        assert self.process.stdout
        return [int(text) for text in self.process.stdout.readline().split()]


@contextmanager
def publishers(folder: Path) -> Iterator[Publishers]:
    """The process that publishers are forked from; what they say goes to a file in `folder`."""
    told = folder / "told.txt"
    with told.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        with process:
            yield Publishers(process, told)
            assert process.stdin
            process.stdin.close()
