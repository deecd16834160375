"""docs/parameters.md says what the models say now."""

import runpy

from tests.docs.page_names import ROOT


def test_the_page_is_fresh() -> None:
    script = ROOT / "docs/tools/parameters_page.py"
    fresh = runpy.run_path(str(script))["parameters_page"]()
    written = (ROOT / "docs/parameters.md").read_text(encoding="utf-8")
    assert written == fresh, f"run: python {script.relative_to(ROOT)}"
