"""The stages with recorded outputs."""

import importlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import ROOT
from tests.golden.comparison import differences

FOLDER = Path(__file__).parent


def _parsed(number: str) -> float:
    """Seven digits of it, so that the noise is not recorded."""
    return float(f"{float(number):.7g}")


@dataclass(frozen=True)
class GoldenStage:
    """`module` has CODE_VERSION; tests.golden.`name` makes the output; `tolerance` None compares exactly.

    `by_kind`: the part of the output that has an entry for each kind of work that a user can ask for. A new kind there changes nothing
    that an earlier version made.
    """

    name: str
    module: str
    tolerance: float | None
    by_kind: str | None = None

    @property
    def code(self) -> str:
        """The file with CODE_VERSION."""
        return f"{self.module.replace('.', '/')}.py"

    @property
    def code_version(self) -> int:
        return int(importlib.import_module(self.module).CODE_VERSION)

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.json"

    @property
    def command(self) -> str:
        return f"python -m tests.golden.record {self.name}"

    def output(self) -> Any:
        """What the stage makes now, as JSON values."""
        with tempfile.TemporaryDirectory() as folder:
            made = importlib.import_module(f"tests.golden.{self.name}").output(Path(folder))
        return json.loads(json.dumps(made, allow_nan=False), parse_float=_parsed if self.tolerance else None)

    def recorded(self) -> dict[str, Any] | None:
        """{"code_version", "output"}, or None before the first recording."""
        found: dict[str, Any] | None = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else None
        return found

    def differences(self, output: Any) -> list[str]:
        """What differs from the recorded output, as sentences."""
        recorded = self.recorded()
        return ["nothing is recorded"] if recorded is None else differences(recorded["output"], output, self.tolerance)

    def is_new_kind(self, difference: str) -> bool:
        """Whether a sentence of `differences` is about a kind that was not there before."""
        return self.by_kind is not None and difference.startswith(f"/{self.by_kind}/") and difference.endswith(" is new")


# Trained and scored floats agree to some 1e-6 between machines; what a change of the algorithm does to them is above 1e-3.
STAGES = {
    stage.name: stage
    for stage in (
        GoldenStage("documents", "tasks.ingest.documents_stage", None),
        GoldenStage("retrieval", "tasks.retrieval.retrieval_stage", None),
        GoldenStage("shards", "tasks.pack.shards_stage", None),
        GoldenStage("checkpoints", "ray_jobs.finetune.checkpoint_stage", 2e-4),
        GoldenStage("evaluations", "ray_jobs.evaluate.evaluation_key", 2e-4, by_kind="prompts of every task"),
        GoldenStage("rope_comparisons", "ray_jobs.evaluate.compare_rope", 2e-4),
        GoldenStage("rope_searches", "ray_jobs.search_rope.search_key", 2e-4),
        GoldenStage("advices", "ray_jobs.advise.advice_key", 2e-4),
        GoldenStage("releases", "tasks.publish.release_stage", 2e-4),
    )
}


def modules_with_a_code_version() -> set[str]:
    """Every module of the core that defines CODE_VERSION."""
    files = (path for room in ("data_schemas", "tasks", "ray_jobs", "flows") for path in (ROOT / room).rglob("*.py"))
    found = (path for path in files if any(line.startswith("CODE_VERSION =") for line in path.read_text().splitlines()))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found}
