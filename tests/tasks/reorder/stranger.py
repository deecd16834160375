"""A machine of a stranger: an environment in which nothing of Ropeway is installed, and the wheel of ropeway-reorder."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[3]
NEEDED = ("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection")


def run(*command: object, cwd: Path | None = None, **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def bare_python(folder: Path) -> Path:
    """A new environment with the stated requirement alone, linked from this one, so that nothing is downloaded."""
    venv.create(folder, with_pip=False)
    executable = folder / "bin" / "python"
    there = Path(run(executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    here = Path(sysconfig.get_path("purelib"))
    for name in NEEDED:
        for found in (*here.glob(f"{name}-*.dist-info"), *here.glob(name), *here.glob(f"{name}.py")):
            (there / found.name).symlink_to(found)
    return executable


def built_wheel(folder: Path) -> Path:
    """Built from reorder/ as pip does it."""
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--quiet", "--wheel-dir", folder, ROOT / "reorder")
    (built,) = folder.glob("*.whl")
    return built
