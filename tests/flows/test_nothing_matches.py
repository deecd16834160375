"""A corpus in which nothing matches is refused by the command before anything heavy is loaded, and before a server is started."""

import os
import subprocess
import sys
from pathlib import Path

from tests import PYTHONPATH

CODE = """
import sys
from flows.cli import main
try:
    main()
finally:
    print([name for name in ("torch", "transformers", "ray", "prefect") if name in sys.modules])
"""


def test_a_folder_in_which_nothing_matches_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    for name in ("a.csv", "b.csv", "c.xlsx"):
        (tmp_path / "papers" / name).write_text("x")
    (tmp_path / "my.yaml").write_text(
        "run_name: a\nstorage: storage\nmodel: {base: demo, target_length: 2048}\ncorpus: {sources: [papers]}\n"
    )
    for command in ("run", "prepare"):
        ran = subprocess.run(
            [sys.executable, "-c", CODE, command, "my.yaml"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": PYTHONPATH},
        )
        assert ran.returncode == 2, ran.stderr
        assert ran.stderr.splitlines()[-1] == (
            "ropeway: corpus.sources[0] 'papers': no file matches the default `include`; there are 2 .csv, 1 .xlsx: "
            "set `include`, such as ['**/*.csv'], or correct the path."
        )
        assert ran.stdout.splitlines()[-1] == "[]"
    assert not (tmp_path / "storage").exists()
