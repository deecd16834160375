"""The text files of a release, without what differs from machine to machine: hashes and versions of packages."""

import json
import re
from pathlib import Path
from typing import Any

from tests.golden.inputs import byte_tokenizer
from tests.tasks.release_example import finished_run

TEXTS = (
    "README.md",
    "chunk_reorder.json",
    "provenance.json",
    "config.json",
    "generation_config.json",
    "adapter/adapter_config.json",
)
_HASH = re.compile(r"\b[0-9a-f]{32,64}\b")


def output(folder: Path) -> Any:
    orders = {"none": 0.5, "random": 0.4, "important_first_last": 0.9, "reverse_rank": 0.6}
    release = finished_run(folder, byte_tokenizer(), orders=orders).publish().path
    made = json.loads((release / "provenance.json").read_text())["versions"]
    versions = re.compile("|".join(rf"(?<![\w.]){re.escape(version)}(?![\w]|\.\d)" for version in made.values()))
    files = sorted(str(path.relative_to(release)) for path in release.rglob("*") if path.is_file())
    checksums = (release / "SHA256SUMS").read_text()
    texts = {name: _HASH.sub("<hash>", versions.sub("<version>", (release / name).read_text())) for name in TEXTS}
    return {"files": files, "checksums": _HASH.sub("<hash>", checksums).splitlines()} | {
        name: text.splitlines() for name, text in texts.items()
    }
