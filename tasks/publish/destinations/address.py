"""Addresses of destinations: a folder, an fsspec URI, or `hub:org/name`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from pydantic import SecretStr

from data_schemas.addresses import is_remote, local_path, without_user
from data_schemas.errors import UserError
from data_schemas.remote import Remote
from data_schemas.spelling import refuse_misspelt
from tasks.publish.destinations.folder import FolderPlace
from tasks.publish.destinations.hub import HubPlace
from tasks.publish.destinations.objects import ObjectPlace

_HUB = "hub:"
_REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_TOKEN = re.compile(r"(?i)hf_[a-z0-9]{30,}")
_NAMED = re.compile(r"(?i)(access.?key|secret|token|password|passwd|signature|(?<=[?&])sig|credential)[^/]*=")


def place_at(where: str, token: SecretStr | None = None) -> FolderPlace | ObjectPlace | HubPlace:
    """The place that `where` names; `token` is for the hub, else the environment's.

    UserError where it cannot be one, or has a secret in it; nothing is looked up there.
    """
    _refuse_secrets(where)
    if not where.startswith("hf://"):  # refused below, with the reason
        refuse_misspelt(where, "The destination", (_HUB.rstrip(":"),))
    if where.startswith(_HUB):
        repo = where.removeprefix(_HUB)
        if not _REPO_ID.fullmatch(repo):
            raise UserError(f"The destination {where!r} is not a hub repository: write hub:organisation/name.")
        return HubPlace(repo, token)
    scheme = where.partition("://")[0] if "://" in where else ""
    if scheme == "hf":
        raise UserError(
            f"The destination {where!r} would be written file by file: use hub:organisation/name, which is one commit."
        )
    if scheme in ("http", "https"):
        raise UserError(f"The destination {where!r} cannot be written to: use a folder, s3://bucket/folder or hub:org/name.")
    if is_remote(where):
        return ObjectPlace(Remote(where))
    return FolderPlace(Path(os.path.normpath(local_path(where))))


def _refuse_secrets(where: str) -> None:
    if kind := _secret_in(where):
        raise UserError(
            f"A destination contains credentials or a query, {kind}: write it without, and give them in the environment (HF_TOKEN, "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ...)."
        )


def _secret_in(where: str) -> str:
    """What kind of text looks like a secret, without that text; empty where nothing does."""
    parts = [part for part in (urlsplit(part) for part in where.split("::")) if part.scheme]
    if (where.startswith(_HUB) and "@" in where) or without_user(where) != where:
        return "by its `@`"
    if _TOKEN.search(where):
        return "by what looks like a token of the hub"
    if _NAMED.search(where):
        return "by a name such as token= or secret="
    return "by what stands behind its `?`" if any(parse_qsl(part.query) for part in parts) else ""
