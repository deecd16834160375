"""ropeway-reorder: the same code as `tasks.reorder`, installed where there is no torch, Ray, Prefect nor Ropeway."""

import json
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tasks.reorder import ChunkReorder, permutation
from tasks.reorder.config import to_json
from tests.tasks.reorder.stranger import ROOT, bare_python, built_wheel, run
from tests.tasks.reorder.test_options import REORDER

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STRATEGIES = ("important_first_last", "reverse_rank", "none")
USE = """
import json, sys, warnings
from importlib.metadata import version
import ropeway_reorder
from ropeway_reorder import ChunkReorder, permutation
import ropeway_reorder.summaries
warnings.simplefilter("ignore")
reorder = ChunkReorder.load(sys.argv[1])
given = [{"text": f"passage {i}", "distance": i / 10, "num_tokens": 3, "doc_id": "d", "char_start": 9 * i} for i in range(9)]
options = {"ranking": "distance", "near_duplicates": 0.9, "join_overlaps": True, "keep_adjacent": True, "max_gap_chars": 0}
print(json.dumps({
    "where": ropeway_reorder.__file__,
    "version": version("ropeway-reorder"),
    "orders": {name: [permutation(name, n) for n in range(9)] for name in json.loads(sys.argv[2])},
    "applied": reorder.apply(given, 20, **options),
    "loaded": sorted({"torch", "ray", "prefect", "transformers", "numpy", "httpx", "tasks", "data_schemas"} & set(sys.modules)),
}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_python(tmp_path_factory.mktemp("stranger") / "env")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(tmp_path_factory.mktemp("wheel"))


def test_a_stranger_installs_it_alone_and_gets_the_same_orders(python: Path, wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "chunk_reorder.json").write_text(to_json(REORDER.config))
    # with dependencies: pip fails if one that the wheel states is not there
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--quiet", wheel)
    absent = "import importlib.util as u; print([n for n in ('torch', 'ray', 'prefect', 'numpy', 'tasks') if u.find_spec(n)])"
    assert run(python, "-c", absent, cwd=tmp_path) == "[]\n"
    said = json.loads(run(python, "-W", "error::DeprecationWarning", "-c", USE, tmp_path, json.dumps(STRATEGIES), cwd=tmp_path))
    assert said["where"].startswith(str(python.parent.parent))
    assert said["version"] == PROJECT["version"]
    assert said["loaded"] == []
    assert said["orders"] == {name: [permutation(name, n) for n in range(9)] for name in STRATEGIES}
    passages = [
        {"text": f"passage {i}", "distance": i / 10, "num_tokens": 3, "doc_id": "d", "char_start": 9 * i} for i in range(9)
    ]
    options = {"near_duplicates": 0.9, "join_overlaps": True, "keep_adjacent": True, "max_gap_chars": 0}
    assert said["applied"] == ChunkReorder.load(tmp_path).apply(passages, 20, ranking="distance", **options)
    assert len(said["applied"]) == 6


def test_the_adapters_are_in_it_under_its_own_name(wheel: Path, tmp_path: Path) -> None:
    """Against the real packages, in a process that has Ropeway too: both can be installed side by side."""
    (tmp_path / "chunk_reorder.json").write_text(to_json(REORDER.config))
    code = """
import sys; sys.path.insert(0, sys.argv[1])
import ropeway_reorder.haystack, ropeway_reorder.langchain, ropeway_reorder.llama_index
from haystack import Document as Hay
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
config = sys.argv[2]
given = [Document(page_content=str(i)) for i in range(1, 6)]
print([d.page_content for d in ropeway_reorder.langchain.RopewayReorder(config).transform_documents(given)])
given = [NodeWithScore(node=TextNode(text=str(i)), score=1 / i) for i in range(1, 6)]
print([n.text for n in ropeway_reorder.llama_index.RopewayReorder(config=config).postprocess_nodes(given)])
given = [Hay(content=str(i), score=1 / i) for i in range(1, 6)]
component = ropeway_reorder.haystack.RopewayReorder(config)
print([d.content for d in component.run(documents=given)["documents"]])
print(component.to_dict()["type"], [name for name in ("tasks", "data_schemas") if name in sys.modules])
"""
    printed = run(sys.executable, "-c", code, wheel, tmp_path, cwd=tmp_path, HAYSTACK_TELEMETRY_ENABLED="False").splitlines()
    assert printed[-4:] == [str(["1", "3", "5", "4", "2"])] * 3 + ["ropeway_reorder.haystack.RopewayReorder []"]


def test_it_holds_every_file_of_the_package_and_states_what_ropeway_states(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    modules = {path.name for path in (ROOT / "tasks" / "reorder").glob("*.py")} - {"candidates.py"}
    assert {f"ropeway_reorder/{name}" for name in modules} <= set(archive.namelist())
    contracts = {name for name in archive.namelist() if "/contracts/" in name}
    assert {name.rsplit("/", 1)[1] for name in contracts} == {
        *(
            "__init__.py",
            "errors.py",
            "record.py",
            "releases.py",
            "reorder.py",
            "reorder_strategy.py",
            "serving_advice.py",
            "value_path.py",
        )
    }
    (about,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    stated = [line.removeprefix("Requires-Dist: ") for line in about.splitlines() if line.startswith("Requires-Dist: ")]
    assert [needed for needed in stated if "extra ==" not in needed] == [
        n for n in PROJECT["dependencies"] if n.startswith("pydantic")
    ]
    for extra in ("langchain", "llama-index", "haystack", "served"):
        for needed in PROJECT["optional-dependencies"][extra]:
            assert f'{needed}; extra == "{extra}"' in stated


def test_equal_sources_give_equal_bytes_also_from_the_source_archive(wheel: Path, tmp_path: Path) -> None:
    made = run(
        sys.executable, "-c", f"import backend; print(backend.build_sdist({str(tmp_path)!r}))", cwd=ROOT / "reorder"
    ).strip()
    assert made == f"ropeway_reorder-{PROJECT['version']}.tar.gz"
    built = tmp_path / "built"
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--quiet", "--wheel-dir", built, tmp_path / made)
    assert next(built.glob("*.whl")).read_bytes() == wheel.read_bytes()
