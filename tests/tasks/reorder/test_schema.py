"""The JSON file is enough: its schema is current, and readers that know nothing but the file reproduce its permutations."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import data_schemas.reorder
from data_schemas.params import PipelineParams
from data_schemas.reorder import SCHEMA_FILE_NAME, RecallPoint, schema_json
from tasks.publish.reorder_config import make_config
from tasks.reorder.config import to_json

SCHEMA = Path(data_schemas.reorder.__file__).with_name(SCHEMA_FILE_NAME)
STRATEGIES = ("important_first_last", "reverse_rank", "calibrated", "none")
CURVES = {
    "measured": [(0.0, 0.5), (0.25, 0.6), (0.5, 0.2), (1.0, 0.9)],
    "with ties": [(0.0, 0.9), (0.5, 0.2), (1.0, 0.9)],
    "inside": [(0.2, 0.9), (0.9, 0.1)],
    "flat": [(0.0, 0.5), (1.0, 0.501)],
    "empty": [],
}


def config_text(strategy: str, curve: str = "measured") -> str:
    params = PipelineParams.model_validate(
        {"run_name": "r", "corpus": {"sources": ["books"]}, "model": {"base": "demo", "target_length": 1024}}
        | {"publish": {"reorder_strategy": strategy}}
    )
    points = [(1024, *point) for point in CURVES[curve]] + [(256, 0.0, 0.1), (256, 1.0, 0.9)] * bool(CURVES[curve])
    rows = [RecallPoint(length=n, depth=d, n=9, recall=r, low=r - 0.01, high=r + 0.01) for n, d, r in points]
    return to_json(make_config(params, rows))


def test_the_schema_file_is_what_the_model_says() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_json(), "write schema_json() to it again"
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_json()))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_config_keeps_to_the_schema_and_a_wrong_one_does_not(strategy: str) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    content = json.loads(config_text(strategy))
    jsonschema.validate(content, schema)
    for wrong in ({"strategy": "best"}, {"schema_version": 2}, {"golden": {"1": [0]}}, {"unknown": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(content | wrong, schema)


def test_a_file_written_before_the_newer_fields_still_reads() -> None:
    content = json.loads(config_text("reverse_rank"))
    for newer in ("summarisation", "validated"):
        del content[newer]
    read = data_schemas.reorder.ReorderConfig.model_validate(content)
    assert (read.schema_version, read.validated, read.summarisation) == (1, None, None)


def plain_reader(config: dict[str, Any], n: int) -> list[int]:
    """What the module docstring of the contract says, written from it and without the library."""
    first_last = [r for r in range(1, n + 1) if r % 2] + [r for r in range(n, 0, -1) if r % 2 == 0]
    curve = config["recall_by_position"]
    if config["strategy"] != "calibrated":
        by_name = {"none": sorted(first_last), "reverse_rank": sorted(first_last)[::-1]}
        return by_name.get(config["strategy"], first_last)
    longest = max((p["length"] for p in curve), default=0)
    points = sorted((p["depth"], p["recall"]) for p in curve if p["length"] == longest)
    of_longest = [p for p in curve if p["length"] == longest]
    if len(points) < 2 or max(p["low"] for p in of_longest) <= min(p["high"] for p in of_longest):
        return first_last
    recalls = []
    for place in range(n):
        depth = min(max(place / (n - 1) if n > 1 else 0, points[0][0]), points[-1][0])
        (d0, r0), (d1, r1) = next((a, b) for a, b in itertools.pairwise(points) if a[0] <= depth <= b[0])
        recalls.append(round(r0 + (depth - d0) / (d1 - d0) * (r1 - r0), 9))
    places = sorted(range(n), key=lambda place: (-recalls[place], first_last[place]))
    return [places.index(place) + 1 for place in range(n)]


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_plain_reader_reproduces_the_golden_permutations(strategy: str, curve: str) -> None:
    config = json.loads(config_text(strategy, curve))
    assert {str(n): plain_reader(config, n) for n in range(1, 11)} == config["golden"]
    for name, golden in config["golden_by_strategy"].items():
        assert {str(n): plain_reader(config | {"strategy": name}, n) for n in range(1, 11)} == golden


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("curve", CURVES)
def test_a_reader_in_javascript_reproduces_the_golden_permutations(tmp_path: Path, curve: str) -> None:
    text = config_text("calibrated", curve)
    (tmp_path / "chunk_reorder.json").write_text(text, encoding="utf-8")
    command = ["node", str(Path(__file__).with_name("reorder_reader.mjs")), str(tmp_path / "chunk_reorder.json")]
    read = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert read == {key: json.loads(text)[key] for key in ("golden", "golden_by_strategy")}


def test_the_library_is_light_to_import() -> None:
    heavy = (
        "torch",
        "ray",
        "transformers",
        "prefect",
        "numpy",
        "pyarrow",
        "scipy",
        "langchain_core",
        "llama_index",
        "haystack",
        "httpx",
        "tenacity",
    )
    code = f"import sys; import tasks.reorder; assert not set({heavy}) & set(sys.modules); print(len(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 400, "modules, most of them of the standard library and of pydantic"


def test_map_reduce_needs_no_torch_either() -> None:
    code = "import sys, tasks.reorder.map_reduce; assert not {'torch', 'ray', 'transformers', 'prefect', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_validation_needs_no_torch_either() -> None:
    code = "import sys, tasks.evaluate.statistics.reorder_choice; assert not {'torch', 'ray', 'transformers', 'prefect'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
