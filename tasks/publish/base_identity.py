"""The base of a release: its name, its content and its licence."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from data_schemas.errors import UserError
from data_schemas.params import ModelParams

_NAMED_BY_CARD = ("license_name", "license_link")
_TERMS = re.compile(r"(?i)((licen[cs]e|notice|copying|copyright)([._-].*)?|(acceptable[_-])?use[_-]policy([._-].*)?)")
_TERMS_ON_HUB = ["README.md"] + [
    f"{name}*"
    for word in ("license", "licence", "notice", "copying", "copyright")
    for name in (word, word.upper(), word.title())
]
_TERMS_ON_HUB += ["*USE_POLICY*", "*use_policy*", "*Use_Policy*"]


@dataclass(frozen=True)
class BaseIdentity:
    """`name` is `hub_id`, or the folder's name for a base without one; `revision` is the commit of a base on the hub.

    `folder` holds the base's card and terms on this machine. `licence_card` has the card's `license_name` and `license_link`, for a
    licence without an SPDX name.
    """

    name: str
    revision: str | None
    fingerprint: str
    licence: str | None
    folder: Path
    licence_card: Mapping[str, str] = field(default_factory=dict)
    hub_id: str | None = None


def identify(model: ModelParams) -> BaseIdentity:
    """The base's identity. Its licence is that of `model.licence`, else of its own card, else None.

    For a base on the hub, card and terms are downloaded at the trained commit. UserError if that fails.
    """
    from tasks.model.base_model import base_fingerprint, hub_commit, locate

    where, revision = locate(model), model.revision
    if Path(where).is_dir():
        folder, name, hub_id = Path(where), model.base_id or Path(where).name, model.base_id
    else:
        revision = hub_commit(where, model.revision)
        folder, name, hub_id = _terms_from_hub(where, revision), where, where
    if model.base == "demo" and not hub_id:
        name = "ropeway-demo-base"  # the name of its folder means nothing outside this repository
    card = {key: _text(value) for key, value in card_front_matter(folder / "README.md").items()}
    card = {key: value for key, value in card.items() if value}
    named: dict[str, str] = {key: card[key] for key in _NAMED_BY_CARD if key in card and model.licence is None}
    licence = model.licence or card.get("license")
    return BaseIdentity(name, revision, base_fingerprint(model), licence, folder, named, hub_id)


def _terms_from_hub(repo: str, commit: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        endpoint = os.environ.get("HF_ENDPOINT") or None
        return Path(snapshot_download(repo, revision=commit, allow_patterns=_TERMS_ON_HUB, endpoint=endpoint))
    except Exception as error:
        raise UserError(
            f"The licence of the base {repo} cannot be read from the hub ({type(error).__name__}): a release must contain it, so connect "
            "and publish again, or use a local folder as the base."
        ) from error


def _text(value: Any) -> str:
    """A value of the card; several values, such as two licences to choose from, are joined by commas."""
    values = value if isinstance(value, list) else [value]
    return ", ".join(values) if all(isinstance(one, str) for one in values) else ""


def terms_files(identity: BaseIdentity) -> list[Path]:
    """The base's LICENSE, NOTICE, USE_POLICY and similar files."""
    suffixes = {"", ".txt", ".md"}
    return sorted(
        p for p in identity.folder.iterdir() if p.is_file() and _TERMS.fullmatch(p.name) and p.suffix.lower() in suffixes
    )


def card_front_matter(card: Path) -> dict[str, Any]:
    """The YAML between the first two `---` lines of a model card; empty if it is missing or cannot be read."""
    try:
        text = card.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return {}
    match = re.match(r"---\r?\n(.*?)\r?\n---(?:\r?\n|\Z)", text, re.DOTALL)
    try:
        loaded = yaml.safe_load(match.group(1)) if match else None
    except yaml.YAMLError:
        return {}
    return loaded if isinstance(loaded, dict) else {}
