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


def test_everything_it_installs_is_fixed_by_a_hash(image):
    arguments = dict(value.split("=", 1) for value in instructions(image, "ARG") if "=" in value)
    assert f"torch=={arguments['TORCH']}" in PROJECT["project"]["dependencies"]
    commands = [
        command
        for value in instructions(image, "RUN")
        for command in re.findall(r"pip install [^;&]*", value.replace("\\\n", " "))
    ]
    assert len(commands) == 5
    for command in commands:
        assert "--no-deps" in command
        by_hash = "--require-hashes" in command or '"flash-attn @ ${FLASH_ATTN}"' in command
        assert by_hash or command.split()[-1] == ".", command
    everything = " ".join(instructions(image, "RUN"))
    assert "&& pip check" in everything
    assert 'case "${FLASH_ATTN}" in *"#sha256="*) ;; *)' in everything


def test_its_base_has_no_tag_and_must_come_with_a_digest(image):
    outside = [value.split()[0] for value in instructions(image, "FROM")]
    stages = {value.split(" AS ")[1] for value in instructions(image, "FROM") if " AS " in value}
    assert {name for name in outside if name not in stages and name != "runtime-${DEVICE}"} == {"${BASE}"}
    assert instructions(image, "ARG").count("BASE") == 2, "no value of its own, in either place"
    [check] = [value for value in instructions(image, "RUN") if value.startswith("case")]
    for base, status in (("python:3.11-slim", 1), ("python@sha256:" + "0" * 64, 0)):
        shell = subprocess.run(["sh", "-c", check.split("python -c")[0]], env={"BASE": base}, capture_output=True, text=True)
        assert shell.returncode == status
        assert ("is a tag" in shell.stdout) == bool(status)


def test_the_gpu_image_has_the_kernels(image):
    [smoke] = [value for value in instructions(image, "RUN") if "flash_attn" in value]
    assert smoke == 'python -c "import bitsandbytes, flash_attn, liger_kernel"'
    extra = {requirement.split("==")[0] for requirement in PROJECT["project"]["optional-dependencies"]["gpu"]}
    assert extra == {"liger-kernel", "bitsandbytes"}


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
