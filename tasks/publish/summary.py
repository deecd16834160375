"""The summary in a release's manifest: a pure function of its files, so that a changed summary is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_schemas.manifest import hash_file
from tasks.publish.checksums import CHECKSUMS, listed_files


def release_summary(directory: Path) -> dict[str, Any]:
    """Number and size of the files in SHA256SUMS, size of the weights, and the hash of SHA256SUMS."""
    sizes = {name: path.stat().st_size for name, path in listed_files(directory).items()}
    weights = [size for name, size in sizes.items() if "/" not in name and name.endswith(".safetensors")]
    return {
        "num_files": len(sizes),
        "num_bytes": sum(sizes.values()),
        "weights_bytes": sum(weights),
        "checksums_sha256": hash_file(directory / CHECKSUMS),
    }
