"""The report's table of scores by the number of facts and the distance between them."""

from __future__ import annotations

from data_schemas.report import Report
from tasks.evaluate.labels import arm_label
from tasks.evaluate.report import numbers
from tasks.evaluate.report.section import Table

SPACING_TITLE = "Several facts and their distance"


def spacing_note(level: str) -> str:
    return (
        f"Mean score with its [{level} interval] over samples, by how many facts the answer needs and how far apart the first and the "
        "last stand: 0 together, 1 at both ends of the text. –: the task does not control the distance."
    )


def spacing_table(report: Report) -> Table:
    arms = list(dict.fromkeys(row.arm for row in report.spacing))
    cells: dict[tuple[str, int, int, float | None], dict[str, str]] = {}
    for row in report.spacing:
        key = row.task, row.length, row.num_evidence, row.distance
        cells.setdefault(key, {})[row.arm] = numbers.share(row.accuracy, row.low, row.high)
    columns = ["task", "tokens", "facts", "distance", *map(arm_label, arms)]
    return columns, [
        [task, str(length), str(facts), "–" if distance is None else f"{distance:g}", *(of_arm.get(arm, "") for arm in arms)]
        for (task, length, facts, distance), of_arm in cells.items()
    ]
