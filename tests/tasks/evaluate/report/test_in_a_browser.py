"""`report.html` in a real browser: no error, nothing loaded, sorted by click and by key, light and dark, narrow and on paper."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tasks.evaluate.plots.all_plots import plots_of
from tasks.evaluate.report.html_page import html_page
from tests.browser import chromium
from tests.tasks.evaluate.six_models import six_report

pytestmark = pytest.mark.slow
CELLS = "table => [...table.tBodies[0].rows].map(row => row.cells[%d].textContent)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html_page(six_report(), plots_of(six_report())), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Browser, written: Path) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.goto(written.as_uri())
    yield page
    page.close()


def picture(page: Page, name: str) -> None:
    if folder := os.environ.get("ROPEWAY_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_opens_without_errors_and_loads_nothing(browser: Browser, written: Path, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
    said: list[str] = []
    loaded: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: loaded.append(request.url))
    page.goto(written.as_uri())
    assert said == []
    assert [url for url in loaded if not url.startswith("data:")] == [written.as_uri()]
    background, ink = (
        page.evaluate(f"getComputedStyle(document.querySelector('{of}')).{what}")
        for of, what in (("body", "backgroundColor"), ("figure svg text", "fill"))
    )
    light, dark = ("rgb(255, 255, 255)", "rgb(27, 31, 36)"), ("rgb(20, 23, 27)", "rgb(232, 234, 237)")
    assert (background, ink) == (light if scheme == "light" else dark), "figures follow the page"
    picture(page, f"report-{scheme}")
    page.close()


def test_a_click_sorts_by_number_and_a_second_turns_it_round(page: Page) -> None:
    table = page.locator("table").first
    header = table.locator("th").nth(1)
    unsorted = table.evaluate(CELLS % 1)
    numbers = [float(cell.split()[0]) for cell in unsorted]
    assert numbers != sorted(numbers)
    header.get_by_role("button").click()
    assert [float(cell.split()[0]) for cell in table.evaluate(CELLS % 1)] == sorted(numbers)
    assert header.get_attribute("aria-sort") == "ascending"
    header.get_by_role("button").click()
    assert [float(cell.split()[0]) for cell in table.evaluate(CELLS % 1)] == sorted(numbers, reverse=True)
    assert header.get_attribute("aria-sort") == "descending"
    assert table.locator("th").first.get_attribute("aria-sort") == "none"


def test_the_keyboard_sorts_words(page: Page) -> None:
    table = page.locator("table").first
    table.locator("th button").first.focus()
    page.keyboard.press("Enter")
    names = table.evaluate(CELLS % 0)
    assert names == sorted(names)
    assert table.locator("th").first.get_attribute("aria-sort") == "ascending"


def test_cells_without_a_value_stay_last(page: Page) -> None:
    found = page.evaluate("""() => {
      const table = document.querySelector("table"), cell = table.tBodies[0].rows[0].cells[1];
      cell.textContent = ""; delete cell.dataset.key;
      const places = [];
      for (let press = 0; press < 2; press++) {
        table.querySelectorAll("th button")[1].click();
        places.push([...table.tBodies[0].rows].map(row => row.cells[1].textContent).indexOf(""));
      }
      return [places, table.tBodies[0].rows.length];
    }""")
    assert found == [[5, 5], 6]


@pytest.mark.parametrize("width", [1100, 400])
def test_only_figures_and_tables_scroll_sideways(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    picture(page, f"report-{width}")


def test_prints(page: Page) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf().startswith(b"%PDF")
