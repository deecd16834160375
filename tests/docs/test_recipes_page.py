"""docs/recipes: every recipe is valid, and its page says what `plan` foresees now."""

import runpy

from tests.docs.page_names import ROOT


def test_the_page_is_fresh_and_names_every_recipe() -> None:
    script = ROOT / "docs/tools/recipes_page.py"
    fresh = runpy.run_path(str(script))["recipes_page"]()
    written = (ROOT / "docs/recipes/README.md").read_text(encoding="utf-8")
    assert written == fresh, f"run: python {script.relative_to(ROOT)}"
    assert all(f"({path.name})" in written for path in (ROOT / "docs/recipes").glob("*.yaml"))
