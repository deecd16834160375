"""A second run says which process it waits for."""

import io
import multiprocessing
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from data_schemas.locks import holder_of, locked, locked_at_once
from data_schemas.storage import Storage


def test_a_waiting_process_names_the_holder(tmp_path: Path) -> None:
    path, told = tmp_path / "lock", []
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    with locked(path, told.append):
        second = spawn.Process(target=_take, args=(path, there))
        second.start()
        heard = here.recv()
        with locked_at_once(path) as is_free:
            assert not is_free
    assert here.recv() == "held"
    second.join()
    assert f"process {os.getpid()}, since 20" in heard
    assert told == []
    assert holder_of(path).startswith(f"process {second.pid}, since ")


def _take(path: Path, pipe: Any) -> None:
    with locked(path, pipe.send):
        pipe.send("held")


class Heard(io.StringIO):
    """Standard error that tells when something was said. (Reading `capsys` in a loop can lose what is written meanwhile.)"""

    def __init__(self, awaited: str) -> None:
        super().__init__()
        self.awaited, self.was_said = awaited, threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.awaited in self.getvalue():
            self.was_said.set()
        return written


def test_a_second_run_of_the_same_stage_says_so_and_finds_the_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def make(folder: Path) -> dict[str, Any]:
        begun.set()
        go_on.wait()
        return {}

    def build() -> None:
        made = Storage(str(tmp_path)).build("shards", stage="x", params={}, code_version=1, parents={}, make=make)
        reused.append(made.reused)

    heard = Heard("which makes the same shards (")
    monkeypatch.setattr(sys, "stderr", heard)
    reused: list[bool] = []
    threads = [threading.Thread(target=build) for _ in range(2)]
    threads[0].start()
    begun.wait()
    threads[1].start()
    heard.was_said.wait()
    go_on.set()
    for thread in threads:
        thread.join()
    said = heard.getvalue()
    assert sorted(reused) == [False, True]
    assert f"waiting for process {os.getpid()}, since 20" in said
    assert "which makes the same shards (" in said
