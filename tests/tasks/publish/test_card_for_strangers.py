"""What a release's card tells a stranger about passages works as it is written, where nothing of Ropeway is installed."""

import json
import re
import sys
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from tasks.reorder import ChunkReorder
from tests import ROOT
from tests.tasks.release_example import finished_run
from tests.tasks.reorder.stranger import bare_python, run

SAY = "\nimport json\nprint(json.dumps(prompt_order))"


def test_the_lines_of_the_card_work(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    release = finished_run(tmp_path / "run", tokenizer).publish().path
    section = (release / "README.md").read_text().split("### Retrieved passages")[1].split("## Limits")[0]
    blocks = re.findall(r"```(\w+)\n(.*?)```", section, flags=re.DOTALL)
    assert [language for language, _ in blocks] == ["python", "console", "python"]
    (install,) = re.findall(r"^\$ pip (.*)$", blocks[1][1], flags=re.MULTILINE)
    python = bare_python(tmp_path / "env")
    run(sys.executable, "-m", "pip", "--python", python, *install.split(), cwd=ROOT, PIP_NO_INDEX="1")
    passages = [f"passage {i}" for i in range(7)]
    expected = ChunkReorder.load(release).apply(passages)
    for code in (blocks[0][1], blocks[2][1]):
        code = f"passages_best_first = {passages!r}\n" + code.replace("path/to/this/folder", str(release))
        assert json.loads(run(python, "-c", code + SAY, cwd=tmp_path)) == expected
