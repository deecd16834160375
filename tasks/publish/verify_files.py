"""Checks that only read bytes: hashes, the manifest, required files and forbidden files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from data_schemas.manifest import MANIFEST_NAME, SCHEMA_VERSION, file_differences, hash_file, stage_digest
from data_schemas.releases import is_version_folder
from data_schemas.reorder import REORDER_FILE_NAME
from data_schemas.storage import read_manifest
from tasks.publish.checks import Check, ProblemFound, require, run_check
from tasks.publish.checksums import CHECKSUMS, SIGNATURE, checksum_problems, files_below, listed_files
from tasks.publish.portable import CODE_KEYS
from tasks.publish.summary import release_summary

REQUIRED = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "README.md",
    "provenance.json",
    "rope_plan.json",
    REORDER_FILE_NAME,
    CHECKSUMS,
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "evaluation/report.json",
    "training/training_log.jsonl",
    "verification/probes.json",
    "verification/logits.safetensors",
    "verification/next_tokens.json",
)
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}


def check_staged_files(directory: Path) -> list[Check]:
    """The checks of a release that has no manifest yet."""
    return [
        run_check(
            "checksums", lambda: require(checksum_problems(directory), f"{len(listed_files(directory))} files as recorded")
        ),
        run_check("required files", lambda: _required(directory)),
        run_check("no pickle", lambda: _no_pickle(directory)),
        run_check("no code", lambda: _no_code(directory)),
        run_check("adapter apart", lambda: _adapter_apart(directory)),
    ]


def check_files(directory: Path) -> list[Check]:
    """The checks of a published release."""
    return [*check_staged_files(directory), run_check("manifest", lambda: _manifest(directory))]


def _required(directory: Path) -> str:
    missing = [f"{name} is missing" for name in REQUIRED if not (directory / name).is_file()]
    if not list(directory.glob("model*.safetensors")):
        missing.append("model*.safetensors is missing")
    if not list((directory / "evaluation").glob("*samples*.parquet")):
        missing.append("evaluation/*samples*.parquet is missing")
    return require(missing, "all present")


def _no_pickle(directory: Path) -> str:
    found = [f"{name} is or may hold a pickle" for name, path in listed_files(directory).items() if _may_be_pickle(path)]
    return require(found, "none")


def _may_be_pickle(path: Path) -> bool:
    """By suffix, by the header of pickle protocols 2 to 5, or as a zip archive of torch.save."""
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        return True
    with path.open("rb") as file:
        head = file.read(4)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        # A safetensors file starts with the length of its header, whose low bytes may look the same.
        return path.suffix != ".safetensors"
    if head == b"PK\x03\x04":
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    return False


def _no_code(directory: Path) -> str:
    """No Python file, and no configuration that tells a reader to run one."""
    found = [f"{name} is Python code" for name in listed_files(directory) if name.endswith((".py", ".pyc", ".so"))]
    for name, path in listed_files(directory).items():
        if path.suffix == ".json" and path.name.endswith("config.json"):
            named = CODE_KEYS & json.loads(path.read_text(encoding="utf-8")).keys()
            found += [f"{name} has {key}, which names code to run" for key in sorted(named)]
    return require(found, "none")


def _adapter_apart(directory: Path) -> str:
    if (directory / "adapter_config.json").exists():
        raise ProblemFound("adapter_config.json is beside the merged weights, so loading them would apply the adapter twice")
    return "no adapter_config.json beside the weights"


def _manifest(directory: Path) -> str:
    raw = (directory / MANIFEST_NAME).read_bytes()
    manifest = read_manifest(directory)
    if manifest is None:
        raise ProblemFound(f"{MANIFEST_NAME} cannot be read as a manifest")
    sizes = {name: path.stat().st_size for name, path in files_below(directory).items() if path.is_file()}
    problems = file_differences(
        manifest.files, sizes, lambda name: hash_file(directory / name), besides=(MANIFEST_NAME, SIGNATURE)
    )
    if raw != manifest.model_dump_json(indent=1).encode() or manifest.schema_version != SCHEMA_VERSION:
        problems.append(f"{MANIFEST_NAME} is altered: it is not in the form that is written")
    if stage_digest(manifest.stage, manifest.params, manifest.code_version, manifest.parents) != manifest.digest:
        problems.append(f"{MANIFEST_NAME} is altered: its digest does not follow from its parameters and parents")
    if manifest.summary != release_summary(directory):
        problems.append(f"{MANIFEST_NAME} is altered: its summary does not describe these files")
    released = json.loads((directory / "provenance.json").read_text(encoding="utf-8"))["release"]["digest"]
    if manifest.digest != released or (is_version_folder(directory) and directory.name != released):
        problems.append(
            f"digests differ: {manifest.digest} in the manifest, {released} in provenance.json, folder {directory.name}"
        )
    return require(problems, f"agrees; digest {manifest.digest}")
