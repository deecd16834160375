"""Write the table of deviations into docs/evaluation.md: `python docs/tools/deviations_table.py`."""

import re
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "evaluation.md"
sys.path.insert(0, str(PAGE.parents[1]))

from tasks.evaluate.published.deviations import deviations_table  # noqa: E402

BEGIN, END = "<!-- deviations: written by docs/tools/deviations_table.py -->", "<!-- end of deviations -->"


def with_table(page: str) -> str:
    """The page with the present table between the marks."""
    return re.sub(
        re.escape(BEGIN) + r".*?" + re.escape(END), lambda _: f"{BEGIN}\n\n{deviations_table()}\n\n{END}", page, flags=re.S
    )


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
