import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_fresh() -> None:
    script = ROOT / "docs/tools/models_page.py"
    fresh = runpy.run_path(str(script))["models_page"]()
    assert (ROOT / "docs/models.md").read_text(encoding="utf-8") == fresh, "run python docs/tools/models_page.py"
