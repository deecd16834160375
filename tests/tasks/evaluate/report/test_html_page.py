"""`report.html` read as a browser reads it: its words, its escapes, what it would load."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from data_schemas.report import Report, read_report
from data_schemas.report_seen import SeenDocument, SeenText
from tasks.evaluate.plots.all_plots import plots_of
from tasks.evaluate.report.html_page import html_page, marked, sort_key
from tasks.evaluate.report.sections import report_sections
from tests.tasks.evaluate.six_models import six_report

RECORDED = Path(__file__).parents[4] / "benchmarks" / "results" / "demo" / "report.json"
HOSTILE = "<img src=x onerror=alert(1)>\"'</script>"


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("style", "script") and data.strip():
            self.words.append(data.strip())

    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def report() -> Report:
    return six_report()


@pytest.fixture(scope="module")
def written(report: Report) -> str:
    return html_page(report, plots_of(report))


def test_nothing_is_loaded_and_no_other_script_may_run(written: str) -> None:
    page = Page(written)
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,")), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    assert "@import" not in written
    assert not re.findall(r"url\((?!#)", written)
    assert [tag for tag, _ in page.tags].count("script") == 1
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    assert "script-src 'unsafe-inline'" not in policy


def test_verdict_then_figures_then_tables(written: str) -> None:
    places = [written.index(f'<h2 id="{name}">') for name in ("verdict", "figures", "tables")]
    assert places == sorted(places)
    assert written.count("<li><span class=") == 5
    assert written.count("<svg") == 6, "perplexity, effective length, tasks, a curve of each task, position; no heat maps"


def test_the_page_names_what_was_measured_with_what(written: str) -> None:
    text = Page(written).text()
    for said in ("acme/Base-7B", "yarn to 131072 tokens", "books, law", "4096, 8192, 32768, 131072 tokens", "2026-11-30"):
        assert said in text
    assert "float32 on CPU" in text
    assert "ropeway 0.1.0, torch 2.13.0" in text
    assert "base + dynamic" in text


@pytest.mark.parametrize("scheme", ["prefers-color-scheme: dark", "print"])
def test_light_dark_and_paper(written: str, scheme: str) -> None:
    block = written.partition(f"@media {'(' + scheme + ')' if ':' in scheme else scheme}")[2][:900]
    assert {f"--series-{n}" for n in range(1, 10)} | {"--ink", "--paper", "--grid"} <= set(
        re.findall(r"--[a-z]+(?:-\d)?", block)
    )


def test_hostile_names_stay_text(report: Report) -> None:
    seen = SeenText(
        num_documents=1, num_seen=1, share=0.5, num_left_out=0, worst=(SeenDocument(doc_id="d", name=HOSTILE, share=0.5),)
    )
    origin = report.settings.measured_with
    assert origin is not None
    settings = report.settings.model_copy(
        update={
            "seen_text": seen,
            "arms_left_out": {HOSTILE: HOSTILE},
            "measured_with": origin.model_copy(update={"base": HOSTILE, "corpus": (HOSTILE,)}),
        }
    )
    rows = tuple(row.model_copy(update={"task": HOSTILE}) for row in report.task_means)
    named = tuple(row.model_copy(update={"arm": HOSTILE}) for row in report.perplexity if row.arm == "base_ntk")
    changed = report.model_copy(update={"settings": settings, "task_means": rows, "perplexity": (*report.perplexity, *named)})
    written = html_page(changed, plots_of(changed))
    page = Page(written)
    assert "img" not in [tag for tag, _ in page.tags]
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert page.text().count(HOSTILE) >= 5
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]


NOT_ESTIMATED = {
    "model", "task", "models", "task, model", "family", "samples better : worse", "p of this test", "p of this row", "p corrected",
    "p by gain, corrected", "verdict", "order", "length", "against none", "depth", "n", "perplexity of", "over that of",
    "effective context length",
}  # fmt: skip


def test_every_estimate_has_its_interval(report: Report) -> None:
    found = 0
    for section in report_sections(report, with_long=True):
        columns, rows = section.table or ([], [])
        for column, *cells in zip(columns, *rows, strict=True):
            if column not in NOT_ESTIMATED and not column.startswith("against the base"):
                assert all("[" in cell for cell in cells if cell), (section.title, column, cells)
                found += len(cells)
    assert found > 300


def test_a_p_value_says_what_it_is_corrected_for(report: Report, written: str) -> None:
    sizes = {len(family.tests) for family in report.tests}
    for size in sizes:
        assert f"(Holm over {size})" in written
    assert "p corrected" in written


def test_reports_of_older_versions_make_a_page_too() -> None:
    old = read_report(RECORDED)
    old = old.model_copy(update={"settings": old.settings.model_copy(update={"measured_with": None}), "ratios_by_length": ()})
    text = Page(html_page(old, plots_of(old))).text()
    assert "window 512 tokens" in text
    assert "Not shown" in text


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("9.20 [7.94, 10.66]", "9.20"), ("-12 [-50, 29]", "-12"), ("+15.1 [+14.2, +16.0] nats", "15.1"), ("18% [4%, 52%]", "18"),
        ("≥ 2048 [≥ 2048, ≥ 2048]", "2048"), ("– [–, 512]", "-1"), ("<0.0001 (Holm over 6)", "0.0001"), ("1e-05", "1e-05"), ("", None),
        ("passkey@512", None), ("3 : 0 of 8", "3"), ("2048", "2048"), ("7z", None),
    ],
)  # fmt: skip
def test_cells_are_sorted_by_the_number_they_begin_with(text: str, key: str | None) -> None:
    assert sort_key(text) == key


def test_notes_mark_code_after_escaping() -> None:
    assert str(marked("use `a<b` & `c`")) == "use <code>a&lt;b</code> &amp; <code>c</code>"
