"""The automations on a real server: silence is a crash, a webhook hears of failures and releases, a release starts a deployment."""

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from tests.waiting import HANGS_AFTER_S, wait_until

ROPEWAY = str(Path(sys.executable).parent / "ropeway")

SERVED = """
import sys, time
from prefect import flow, serve

@flow
def silent(mark: str) -> None:
    from pathlib import Path
    Path(mark).touch()
    time.sleep(86_400)

@flow
def failing() -> None:
    raise ValueError("no such corpus")

@flow
def after(location: str, digest: str) -> str:
    return location + digest

if __name__ == "__main__":
    serve(*(f.to_deployment("tests", tags=["ropeway"]) for f in (silent, failing, after)))
"""


def python(code: str, environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=HANGS_AFTER_S)


def automations(server) -> list[dict]:
    return server.post("automations/filter")


@pytest.fixture(scope="module")
def runner(prefect_server, tmp_path_factory):
    """(folder, process) of a runner that serves three tiny flows, with the shortest heartbeat there is."""
    home = tmp_path_factory.mktemp("served")
    (home / "served.py").write_text(SERVED)
    environment = prefect_server.environment(home) | {
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    }
    with (home / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "served.py"], cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    wait_until(lambda: "being served" in (home / "log.txt").read_text(), "the flows are served", process)
    yield home, process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def webhook():
    """What a local HTTP server has been sent, as it comes in, and its address."""
    heard: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield heard, f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()


def trigger(server, flow: str, **parameters):
    deployment = server.get(f"deployments/name/{flow}/tests")["id"]
    return server.post(f"deployments/{deployment}/create_flow_run", parameters=parameters, state={"type": "SCHEDULED"})["id"]


def state(server, run: str) -> dict:
    return server.flow_run(run)["state"]


def test_failures_and_releases_are_told_and_a_release_starts_a_deployment(prefect_server, runner, webhook) -> None:
    home, _ = runner
    heard, address = webhook
    environment = prefect_server.environment(home)
    python(
        "from prefect.blocks.notifications import CustomWebhookNotificationBlock as B;"
        f"B(name='ml-team', url='{address}', json_data={{'subject': '{{{{subject}}}}', 'body': '{{{{body}}}}'}}).save('ml-team')",
        environment,
    )
    command = [ROPEWAY, "automate", "--notify", "custom-webhook/ml-team", "--then", "after/tests"]
    for _ in range(2):  # the second time changes nothing
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANGS_AFTER_S)
        assert done.returncode == 0, done.stderr
    names = [automation["name"] for automation in automations(prefect_server)]
    assert sorted(names) == sorted(set(names))
    assert set(done.stdout.splitlines()) <= set(names)
    assert len(done.stdout.splitlines()) == 4

    trigger(prefect_server, "failing")
    wait_until(lambda: any("Failed" in told["subject"] and "no such corpus" in told["body"] for told in heard))

    python(
        "from types import SimpleNamespace; from prefect.events import emit_event; from tasks.publish.event import release_event;"
        "emit_event(**release_event('my-model', SimpleNamespace(digest='d1g', location='/store/releases/d1g')))",
        environment,
    )

    def started():
        runs = prefect_server.post("flow_runs/filter", flows={"name": {"any_": ["after"]}})
        return [run for run in runs if run["state"]["type"] == "COMPLETED"]

    (run,) = wait_until(started)
    assert run["parameters"] == {"location": "/store/releases/d1g", "digest": "d1g"}
    wait_until(lambda: any("my-model is published" in told["subject"] for told in heard))


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [("--notify", "slack-webhook/nobody", "no block"), ("--then", "nothing/here", "no deployment")],
)
def test_what_is_not_there_is_one_sentence(prefect_server, runner, option: str, value: str, sentence: str) -> None:
    environment = prefect_server.environment(runner[0])
    done = subprocess.run(
        [ROPEWAY, "automate", option, value], env=environment, capture_output=True, text=True, timeout=HANGS_AFTER_S
    )
    assert (done.returncode, sentence in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_a_run_killed_together_with_its_runner_is_marked_crashed(prefect_server, runner) -> None:
    home, process = runner
    python(
        "from flows.automation import ensure_automations; ensure_automations(silence_s=35)", prefect_server.environment(home)
    )
    run = trigger(prefect_server, "silent", mark=str(home / "mark"))
    wait_until((home / "mark").exists)
    both = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for killed in both[::-1]:  # the runner first, so that it cannot tell
        killed.kill()
    process.wait()
    assert state(prefect_server, run)["type"] == "RUNNING"
    crashed = wait_until(lambda: (found := state(prefect_server, run))["type"] == "CRASHED" and found)
    assert "no sign of life for 35 seconds" in crashed["message"]
