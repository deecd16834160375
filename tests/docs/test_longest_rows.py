import runpy
from typing import Any

from tests.docs.page_names import ROOT


def test_the_table_is_fresh_and_its_smallest_model_is_what_the_formulas_say() -> None:
    tool = runpy.run_path(str(ROOT / "docs/tools/longest_rows.py"))
    page = (ROOT / "docs/attention.md").read_text(encoding="utf-8")
    assert tool["with_table"](page) == page, "run python docs/tools/longest_rows.py"
    assert tool["BEGIN"] in page
    assert " 0 /" not in tool["table"](), "hours have two digits that count"
    assert [tool["_two_digits"](hours) for hours in (0.0721, 0.8, 9.97, 1234.5)] == ["0.072", "0.80", "10", "1,234"]

    from benchmarks.longest_rows import rows_of

    recorded: list[dict[str, Any]] = tool["json"].loads(tool["RECORD"].read_text(encoding="utf-8"))["rows"]
    assert rows_of("1B") == [row for row in recorded if row["model"] == "1B"], "run python -m benchmarks.longest_rows"
