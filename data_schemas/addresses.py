"""Addresses as users write them, local paths and URIs: which machine they mean, and which part is a secret."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

_FILE = re.compile(r"file://(localhost(?=/))?")
_USER = re.compile(r"(://)[^/?#\s]*@")
_SECRET_QUERY = re.compile(
    r"([?&][^=&#\s]*(?:sig|token|key|secret|passw|credential|auth|expires|policy)[^=&#\s]*=)[^&#\s:]*", re.IGNORECASE
)


def is_remote(address: str) -> bool:
    """Whether `address` is for fsspec: a URI of another scheme than file, or a chain (`zip://…::…`)."""
    return "::" in address or ("://" in address and not address.startswith("file://"))


def local_path(address: str) -> Path:
    """The absolute path that a local address means: a `file://` URI, or a path that may begin with `~`."""
    path = unquote(_FILE.sub("", address)) if _FILE.match(address) else address
    return Path(path).expanduser().absolute()


def without_user(uri: str) -> str:
    """`uri` without the user name and password."""
    return _USER.sub(r"\1", uri)


def without_secrets(uri: str) -> str:
    """`uri` without the user name and password and without the values of signatures and keys in its query."""
    return _SECRET_QUERY.sub(r"\1...", without_user(uri))


def holds_secret(uri: str) -> bool:
    """Whether `uri` has a user name or password, or a signature or key in its query."""
    return without_secrets(uri) != uri
