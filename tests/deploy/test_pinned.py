"""What the images are made of is locked by hashes, and the manifests can be held to digests."""

import re
import shutil
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import ROOT
from tests.deploy.objects import DEPLOY

sys.path.insert(0, str(DEPLOY / "images"))
import lock
import pin

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {name: (DEPLOY / "images" / name).read_text() for name in ("requirements.lock", "requirements-gpu.lock")}
DIGEST = "sha256:" + "0123456789abcdef" * 4


def locked(text: str) -> dict[str, str]:
    """Package to version; every entry must have a hash."""
    blocks = re.findall(r"^\S.*\n(?:[ \t].*\n)*", re.sub(r"^#.*\n", "", text), re.MULTILINE)
    entries = [
        re.fullmatch(r"([a-z0-9-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", block) for block in blocks
    ]
    assert all(entries), [block for block, entry in zip(blocks, entries, strict=True) if not entry][:3]
    return {entry[1]: entry[2] for entry in entries if entry}


def test_the_lock_files_fit_pyproject():
    versions = locked(LOCKS["requirements.lock"]) | locked(LOCKS["requirements-gpu.lock"])
    assert not locked(LOCKS["requirements.lock"]).keys() & locked(LOCKS["requirements-gpu.lock"]).keys()
    extras = PROJECT["optional-dependencies"]
    for line in [*PROJECT["dependencies"], *(line for name in (*lock.EXTRAS, "gpu") for line in extras[name])]:
        asked = Requirement(line)
        found = versions.get(canonicalize_name(asked.name))
        assert found, f"{line} is not locked: run deploy/images/lock.py"
        assert asked.specifier.contains(found), f"{line} is locked as {found}: run deploy/images/lock.py"


def test_torch_and_cuda_are_for_the_gpu_image_alone():
    of_gpu = locked(LOCKS["requirements-gpu.lock"])
    assert {"torch", "triton", "nvidia-nccl-cu13", "liger-kernel", "bitsandbytes"} <= of_gpu.keys()
    assert not [name for name in locked(LOCKS["requirements.lock"]) if name.startswith(("nvidia-", "cuda-")) or name == "torch"]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_names_no_machine_and_no_index(name):
    assert not re.search(r"://|index|find-links|/\w+/\w+/", LOCKS[name].split("\n", 1)[1])


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(DEPLOY, tmp_path / "deploy")


def test_images_are_pinned_everywhere_and_a_tag_that_is_left_is_found(copy):
    assert len(pin.unpinned(copy)) > 10
    images = {device: f"registry.example:5000/team/ropeway-{device}@{DIGEST}" for device in ("cpu", "gpu")}
    assert pin.pin(copy, images) >= len(pin.unpinned(DEPLOY))
    assert pin.unpinned(copy) == []
    assert pin.pin(copy, images) == 0
    newer = {"gpu": f"registry.example:5000/team/ropeway-gpu@sha256:{'f' * 64}"}
    assert pin.pin(copy, newer) > 0
    assert pin.unpinned(copy) == []
    server = copy / "kubernetes" / "prefect-server.yaml"
    server.write_text(server.read_text().replace(f"team/ropeway-cpu@{DIGEST}", "team/ropeway-cpu:latest"))
    assert pin.unpinned(copy) == ["kubernetes/prefect-server.yaml:24: registry.example:5000/team/ropeway-cpu:latest"]
    redis = copy / "kubernetes" / "redis.yaml"
    redis.write_text("containers:\n  - image: redis:7\n")
    assert "kubernetes/redis.yaml:2: redis:7" in pin.unpinned(copy)


@pytest.mark.parametrize("image", ["registry/ropeway-cpu:0.1.0", "registry/ropeway-cpu@sha256:12", ""])
def test_only_a_digest_is_taken(image, capsys):
    assert pin.main([f"cpu={image}"]) == 2
    assert "--check" in capsys.readouterr().err


def test_the_workflow_audits_every_lock_file():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "audit.yml").read_text())
    job = workflow["jobs"]["audit"]
    assert set(job["strategy"]["matrix"]["lock"]) == LOCKS.keys()
    [command] = [step["run"] for step in job["steps"] if step.get("run", "").startswith("pip-audit ")]
    assert {"--strict", "--disable-pip", "--require-hashes"} <= set(command.split())
    assert command.endswith("--requirement deploy/images/${{ matrix.lock }}")
    assert {"push", "pull_request", "schedule"} <= workflow[True].keys()  # YAML reads `on` as true
    assert workflow["permissions"] == {"contents": "read"}
