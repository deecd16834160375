"""Finished releases of a few small files, for tests of where releases go; no model is needed for that."""

from __future__ import annotations

import random
from pathlib import Path

from data_schemas.manifest import MANIFEST_NAME, Manifest, file_entries, stage_digest
from data_schemas.releases import version_kind
from data_schemas.storage import Storage
from tasks.publish.checksums import CHECKSUMS, write_checksums
from tasks.publish.releases import current_digest

NAME = "tiny"


def write_release(root: Path, seed: int, same_digest_as: int | None = None, size: int = 20_000) -> Path:
    """Write a release below `root`, in a folder named by its digest; `same_digest_as` gives it another's digest."""
    params = {
        "name": NAME,
        "base": {"name": "org/base"},
        "target_length": 256,
        "seed": seed if same_digest_as is None else same_digest_as,
    }
    digest = stage_digest("publish", params, 1, {"checkpoint": "c" * 32})
    folder = root / f"{digest}-{seed}" / digest
    generator = random.Random(seed)
    files = {
        "config.json": b'{"seed": %d}' % seed,
        "README.md": b"---\nlicense: apache-2.0\n---\n# Seed %d\n" % seed,
        "model.safetensors": generator.randbytes(size),
        "adapter/adapter_model.safetensors": generator.randbytes(1000),
        "evaluation/samples.parquet": generator.randbytes(500),
        f"only-{seed}.txt": b"of this version alone\n",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_checksums(folder)
    assert (folder / CHECKSUMS).is_file()
    manifest = Manifest(
        stage="publish",
        params=params,
        code_version=1,
        parents={"checkpoint": "c" * 32},
        digest=digest,
        summary={},
        files=file_entries(folder),
    )
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1))
    return folder


def served_folder(storage: Storage, name: str) -> Path | None:
    """The folder of the version that `current` names, downloaded from a remote storage; None if nothing was published."""
    digest = current_digest(storage, name)
    found = storage.find(version_kind(name), digest) if digest else None
    assert found or not digest, f"{name} serves {digest}, which is not there"
    return found.path if found else None
