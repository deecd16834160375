"""The demo base that comes with Ropeway: its identity, its card, and the works that its training left out."""

import re

from data_schemas.params import ModelParams
from tasks.ingest.split import split_of
from tasks.model.base_model import DEMO_BASE, base_fingerprint
from tests import ROOT
from tools.demo_base.corpus import HELDOUT_FRACTION, SPLIT_SEED


def test_its_fingerprint_is_the_one_that_artifacts_were_made_with() -> None:
    """Digests of checkpoints, evaluations and releases depend on it; card and licence do not count."""
    assert base_fingerprint(ModelParams(base="demo", target_length=2048)) == "2dabf85e8318989b1b5fbfc4ee2b6be9"


def test_its_training_left_out_the_works_that_the_demo_holds_out() -> None:
    works = [
        "argparse",
        "ast",
        "asyncio",
        "bisect",
        "collections",
        "csv",
        "dataclasses",
        "datetime",
        "decimal",
        "difflib",
        "email",
    ]
    works += [
        "enum",
        "fractions",
        "functools",
        "heapq",
        "html",
        "http",
        "inspect",
        "json",
        "logging",
        "pathlib",
        "random",
        "typing",
    ]
    heldout = [work for work in works if split_of(work, HELDOUT_FRACTION, SPLIT_SEED) == "heldout"]
    assert heldout == ["ast", "csv", "datetime", "decimal", "email", "enum", "logging", "typing"]


def test_its_card_names_the_command_and_files_that_are_there() -> None:
    card = (DEMO_BASE / "README.md").read_text(encoding="utf-8")
    modules = re.findall(r"python -m (\S+)", card)
    files = re.findall(r"`(tools/\S+?)`", card)
    assert modules == ["tools.demo_base.train"]
    assert files
    for path in (*files, *(f"{module.replace('.', '/')}.py" for module in modules)):
        assert (ROOT / path).is_file(), path
