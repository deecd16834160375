"""`python -m tests.golden.record NAME ...`: record what stages make now, where their CODE_VERSION says that it is something new."""

import json
import sys

import tests.conftest  # noqa: F401  # the environment of tests
from tests.golden.stages import STAGES, GoldenStage


def main(names: list[str]) -> int:
    """Exit status: 0 when all are recorded; 1 when one was refused; 2 for wrong names."""
    if not names or set(names) - STAGES.keys():
        print(f"Give names of stages: {', '.join(STAGES)}.")
        return 2
    refused = [told for name in names if (told := record(STAGES[name]))]
    print(*refused, sep="\n", file=sys.stderr)
    return 1 if refused else 0


def record(stage: GoldenStage) -> str | None:
    """Write the stage's output, or return the sentence that says why not."""
    recorded, output = stage.recorded(), stage.output()
    changed = stage.differences(output)
    if recorded is not None and recorded["code_version"] == stage.code_version:
        if told := [one for one in changed if not stage.is_new_kind(one)]:
            return f"{stage.name} is not recorded: its output has changed ({told[0]}), so raise CODE_VERSION in {stage.code} first."
        if not changed:
            print(f"{stage.name}: nothing to record")
            return None
    content = {"code_version": stage.code_version, "output": output}
    stage.file.write_text(json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{stage.name}: recorded, CODE_VERSION {stage.code_version}")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
