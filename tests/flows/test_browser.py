"""A colleague's way in: the real UI in a real browser, from the form to the artifacts of the finished run."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, TimeoutError, expect
from transformers import PreTrainedTokenizerFast

from tests.browser import chromium
from tests.flows.prefect_server import PrefectServer
from tests.flows.small_run import small_params
from tests.waiting import HANGS_AFTER_S, wait_until

ROPEWAY = str(Path(sys.executable).parent / "ropeway")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 860})
        page.set_default_timeout(HANGS_AFTER_S * 1000)
        expect.set_options(timeout=HANGS_AFTER_S * 1000)
        yield page


@pytest.fixture(scope="module")
def served(
    prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast
) -> Iterator[PrefectServer]:
    """`ropeway serve` with the small run as the chain's default parameters."""
    home = tmp_path_factory.mktemp("served")
    with (home / "serve.log").open("w") as log:
        environment = prefect_server.environment(home) | {"PREFECT_RUNNER_POLL_FREQUENCY": "1"}
        process = subprocess.Popen([ROPEWAY, "serve"], env=environment, cwd=home, stdout=log, stderr=log)

    def registered() -> Any:
        assert process.poll() is None, (home / "serve.log").read_text()[-2000:]
        return "prefect deployment run" in (home / "serve.log").read_text()

    try:
        wait_until(registered)
        chain = prefect_server.get("deployments/name/extend-context/ropeway")
        small = small_params(home, tokenizer, publish={"dtype": "float32", "hub_private": True}, ray={"num_workers": 1})
        prefect_server.patch(f"deployments/{chain['id']}", parameters={"params": small})
        yield prefect_server
    finally:
        process.terminate()
        process.wait(HANGS_AFTER_S)


def picture(page: Page, name: str) -> None:
    if folder := os.environ.get("ROPEWAY_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def submit(page: Page, then: str) -> None:
    """Presses Submit as often as a user would, until the UI goes on to `then`: on a busy machine a click may miss a
    page that is still moving."""
    deadline = time.monotonic() + HANGS_AFTER_S
    while time.monotonic() < deadline:
        with suppress(TimeoutError):
            page.get_by_role("button", name="Submit").click(timeout=30_000)
        with suppress(TimeoutError):
            return page.wait_for_url(then, timeout=30_000)
    pytest.fail(f"The form was not taken. The page says:\n{page.locator('body').inner_text()}")


def open_form(page: Page, served: PrefectServer) -> str:
    """Open the form of the chain's deployment, and return the deployment's id."""
    page.goto(f"{served.ui}/v2/deployments")
    chain: str = served.get("deployments/name/extend-context/ropeway")["id"]
    page.locator(f'a[href$="{chain}"]').first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    return chain


def test_a_credential_in_the_form_never_becomes_a_run(page: Page, served: PrefectServer) -> None:
    open_form(page, served)
    page.get_by_label("Run name", exact=True).fill("leaked")
    page.get_by_label(re.compile("^Storage")).first.fill("s3://key:hunter2@bucket/x")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_function("document.activeElement.validationMessage || document.body.innerText.includes('does not match')")
    picture(page, "credential")
    assert "hunter2" not in str(served.post("flow_runs/filter"))


def test_fill_the_form_watch_the_run_find_the_artifacts(page: Page, served: PrefectServer) -> None:
    chain = open_form(page, served)
    length = page.get_by_label("Target length", exact=True)
    page.get_by_label("Run name", exact=True).fill("clicked")
    length.fill("3")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_function("document.activeElement.validationMessage")
    assert "greater than or equal to 32" in length.evaluate("field => field.validationMessage")
    picture(page, "refused")
    assert not served.post("flow_runs/filter", flow_runs={"deployment_id": {"any_": [chain]}, "name": {"like_": "clicked"}})

    length.fill("128")
    page.get_by_role("button", name="Select RoPE method", exact=True).click()
    linear = page.get_by_role("option", name="linear", exact=True)
    linear.click()
    expect(linear).to_be_hidden()
    page.get_by_label("Run name", exact=True).scroll_into_view_if_needed()
    picture(page, "form")
    submit(page, f"**/deployments/deployment/{chain}*")

    named = wait_until(lambda: served.runs_of("clicked (base, linear, 128)"), "the form was taken")
    wait_until(lambda: served.flow_run(named[0]["id"])["end_time"], "the run ends")
    page.goto(f"{served.ui}/v2/runs/flow-run/{named[0]['id']}")
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    run = served.flow_run(named[0]["id"])
    assert run["state"]["type"] == "COMPLETED"
    assert run["parameters"]["params"]["model"]["rope_method"] == "linear"
    assert {"model:base", "rope:linear", "length:128", "release:clicked"} <= set(run["tags"])
    expect(page.get_by_text("rope:linear").or_(page.get_by_text("+")).first).to_be_visible()
    picture(page, "run")

    page.get_by_role("tab", name="Artifacts").click()
    for key in ("training-loss", "evaluation-perplexity", "release"):
        expect(page.get_by_text(key, exact=True).first).to_be_visible()
    picture(page, "artifacts")
    artifact = served.artifacts_of(run["id"])["evaluation-perplexity"]
    page.goto(f"{served.ui}/v2/artifacts/artifact/{artifact['id']}")
    plot = page.locator('img[src^="data:image/png"]').first
    expect(plot).to_be_visible()
    assert plot.evaluate("image => image.complete && image.naturalWidth") > 100
    picture(page, "artifact")
