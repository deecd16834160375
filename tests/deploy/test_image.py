"""The container file: linted, and in step with what the project is made of. No image is built here."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from tests import ROOT
from tests.deploy.objects import DEPLOY

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HADOLINT = Path(sys.executable).parent / "hadolint"


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> DockerfileParser:
    folder = tmp_path_factory.mktemp("image")
    shutil.copy(DEPLOY / "Dockerfile", folder)
    return DockerfileParser(str(folder))


def instructions(image: DockerfileParser, name: str) -> list[str]:
    return [entry["value"] for entry in image.structure if entry["instruction"] == name]


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HADOLINT, "--no-color", path], capture_output=True, text=True)


def test_hadolint_has_nothing_to_say_and_would_have(tmp_path):
    assert hadolint(DEPLOY / "Dockerfile").stdout == ""
    worse = (
        (DEPLOY / "Dockerfile")
        .read_text()
        .replace("rm -rf /var/lib/apt/lists/*", "true")
        .replace("COPY tasks", "COPPY tasks", 1)
    )
    (tmp_path / "Dockerfile").write_text(worse)
    assert hadolint(tmp_path / "Dockerfile").returncode == 1


def test_everything_it_copies_exists_and_reaches_the_builder(image):
    admitted = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source for value in instructions(image, "COPY") if not value.startswith("--from") for source in value.split()[:-1]
    ]
    assert set(copied) == admitted
    assert all((ROOT / source).exists() for source in copied)


def test_all_packages_of_the_project_are_copied(image):
    packages = {pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= {value.split()[0] for value in instructions(image, "COPY")}


def test_it_installs_what_pyproject_pins(image):
    arguments = dict(value.split("=", 1) for value in instructions(image, "ARG") if "=" in value)
    assert f"torch=={arguments['TORCH']}" in PROJECT["project"]["dependencies"]
    assert set(arguments["EXTRAS"].split(",")) <= PROJECT["project"]["optional-dependencies"].keys()
    assert arguments["PYTHON"] in ("3.11", "3.12", "3.13")
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    installed = [name for value in instructions(image, "RUN") for name in re.findall(r"pip install (\S+)", value)]
    assert installed == ['"torch==${TORCH}"', '".[${EXTRAS}]"']  # nothing beside the project's own pins


def test_both_builds_end_as_an_ordinary_user_with_the_command(image):
    assert instructions(image, "FROM")[-1] == "runtime-${DEVICE}"
    stages = {value.split(" AS ")[1] for value in instructions(image, "FROM") if " AS " in value}
    assert {"runtime-cpu", "runtime-gpu"} <= stages
    assert instructions(image, "USER")[-1] == "1000"
    assert "useradd --uid 1000" in " ".join(instructions(image, "RUN"))
    assert "ropeway" in PROJECT["project"]["scripts"]
    assert instructions(image, "CMD") == ['["ropeway", "--help"]']
    [smoke] = [value for value in instructions(image, "RUN") if value.startswith("ropeway --help")]
    for module in re.findall(r"python -m (\S+)", smoke):
        assert (ROOT / module.replace(".", "/") / "__main__.py").is_file()


def test_no_secret_is_built_in(image):
    names = " ".join(instructions(image, "ENV") + instructions(image, "ARG")).upper()
    assert not re.search(r"TOKEN|SECRET|PASSWORD|API_KEY", names)
