"""What a release says about the base it came from: its name, its content, and the terms it is under."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_schemas.params import ModelParams

_TERMS = re.compile(r"(?i)(licen[cs]e|notice|copying|copyright)([._-].*)?")


@dataclass(frozen=True)
class BaseIdentity:
    """`name` is a hub id, or the folder's name; `folder` is where a local base lies, else None."""

    name: str
    revision: str | None
    fingerprint: str
    licence: str | None
    folder: Path | None


def identify(model: ModelParams) -> BaseIdentity:
    """Who the base is. Its licence is the parameter's, else the one its own card declares, else None."""
    from ray_jobs.finetune.base_model import base_fingerprint, locate

    where = locate(model)
    folder = Path(where) if Path(where).is_dir() else None
    name = Path(where).name if folder else where
    if model.base == "demo":
        name = "ropeway-demo-base"  # its folder's name means nothing outside this repository
    declared = card_front_matter(folder / "README.md").get("license") if folder else None
    licence = model.licence or (declared if isinstance(declared, str) else None)
    return BaseIdentity(name, model.revision, base_fingerprint(model), licence, folder)


def terms_files(identity: BaseIdentity) -> list[Path]:
    """The LICENSE, NOTICE and like files of a local base."""
    if identity.folder is None:
        return []
    suffixes = {"", ".txt", ".md"}
    return sorted(
        p for p in identity.folder.iterdir() if p.is_file() and _TERMS.fullmatch(p.name) and p.suffix.lower() in suffixes
    )


def card_front_matter(card: Path) -> dict[str, Any]:
    """The YAML between the first two `---` lines of a model card; empty if there is none that can be read."""
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    match = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", text, re.DOTALL)
    try:
        loaded = yaml.safe_load(match.group(1)) if match else None
    except yaml.YAMLError:
        return {}
    return loaded if isinstance(loaded, dict) else {}
