import os
from pathlib import Path

ROOT = Path(__file__).parents[1]  # of the repository
QUICK_START = ROOT / "tests" / "quick_start"  # first on the path of the processes that tests start
PYTHONPATH = os.pathsep.join((str(QUICK_START), str(ROOT)))  # for those that get no other environment
