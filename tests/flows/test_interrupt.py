"""Ctrl-C: one line, status 130, and a cancelled run in Prefect; wherever it comes."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.flows.prefect_server import copy_tables
from tests.flows.small_run import small_params, write_params
from tests.waiting import HANGS_AFTER_S, EndedTooSoon, interrupted, wait_until

ROPEWAY = str(Path(sys.executable).parent / "ropeway")

WAITS = "threading.Event().wait()"
NEVER_ENDS = """
while True:
    try: threading.Event().wait()
    except KeyboardInterrupt: logging.getLogger('prefect').error('Crash detected!')
"""


@pytest.mark.parametrize("work", [WAITS, NEVER_ENDS])
@pytest.mark.parametrize(
    ("reached", "line"),
    [
        ("", "ropeway: stopped"),
        ("REACHED.doing = 'publishing'", "ropeway: stopped while publishing; run again to go on"),
        (
            "REACHED.doing, REACHED.exactly = 'training', 'at step 41 of 120'",
            "ropeway: stopped at step 41 of 120; run again to go on",
        ),
    ],
)
def test_one_line_and_status_130(work: str, reached: str, line: str) -> None:
    code = f"""
import logging, sys, threading
from flows import cli, interrupt
from ray_jobs.reached import REACHED
{reached}
def run():
    print('ready', flush=True)
    exec({work!r})
cli.app.command('wait')(run)
sys.argv = ['ropeway', 'wait']
cli.main()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HANGS_AFTER_S)
    assert (process.returncode, out, err) == (130, "", f"{line}\n")


def test_what_must_happen_at_the_latest_happens() -> None:
    code = """
import threading
from flows import interrupt
interrupt.GRACE_S = 0.01
kept = __import__('os').dup(1)
interrupt.at_the_latest(lambda: 1 / 0)
interrupt.at_the_latest(threading.Event().wait)
interrupt.at_the_latest(lambda: __import__('os').write(kept, b'cancelled'))
interrupt.stop_on_interrupt()
try: __import__('signal').raise_signal(2)
except KeyboardInterrupt: threading.Event().wait()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "cancelled", "ropeway: stopped\n")


@pytest.mark.usefixtures("servers")
def test_a_run_is_stopped_in_training_like_from_a_terminal(tokenizer, prefect_tables, tmp_path_factory) -> None:
    def attempt(amount: int) -> None:
        home = tmp_path_factory.mktemp("interrupt")
        copy_tables(prefect_tables, home / "prefect")
        training = {"steps": 200 * amount, "checkpoint_every": 5, "validate_every": 100}
        config = write_params(home / "run.yaml", small_params(home, tokenizer, training=training, ray={"num_workers": 1}))
        environment = os.environ | {"PREFECT_HOME": str(home / "prefect"), "OMP_NUM_THREADS": "1"}
        environment.pop("PREFECT_API_URL", None)
        with (home / "log.txt").open("w") as log:
            process = subprocess.Popen(
                [ROPEWAY, "run", config], stdout=log, stderr=log, env=environment, start_new_session=True
            )

        def has_trained() -> bool:
            files = (home / "storage").glob("work/finetune/*/progress.jsonl")
            return any(len(file.read_text().splitlines()) >= 7 for file in files)

        wait_until(has_trained, "step 7", process)
        below = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all processes of the group
        process.wait(HANGS_AFTER_S)
        *_, last = (home / "log.txt").read_text().splitlines()
        if process.returncode == 0 or ("training" not in last and "at step" not in last):
            raise EndedTooSoon("training, before it was interrupted")
        assert process.returncode == 130
        assert last.startswith("ropeway: stopped at step ")
        assert last.endswith(f" of {training['steps']}; run again to go on")
        assert "Traceback" not in (home / "log.txt").read_text()
        with sqlite3.connect(home / "prefect" / "prefect.db") as database:
            assert database.execute("select state_type from flow_run").fetchall() == [("CANCELLED",)]
        wait_until(lambda: not [child for child in below if child.is_running()], "Ray and the server have ended")

    interrupted(attempt)
