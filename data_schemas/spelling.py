"""Addresses that are almost URIs, such as `s3:bucket/x` or `HUB:org/name`, which would otherwise become local folders."""

from __future__ import annotations

import re
from collections.abc import Callable

from data_schemas.errors import UserError

_SCHEMES = {
    "abfs", "abfss", "adl", "az", "dropbox", "file", "ftp", "gcs", "gdrive", "gs", "hdfs", "http", "https", "local", "memory", "oss",
    "s3", "s3a", "sftp", "smb", "ssh", "tar", "wasb", "wasbs", "webdav", "webhdfs", "zip",
}  # fmt: skip
_HUB = {"hf", "hub", "huggingface"}
_NEVER_FOLDERS = {"abfs", "abfss", "ftp", "gs", "http", "https", "s3", "s3a", "sftp"}  # `s3//bucket` too lacks a colon
_PARTS = re.compile(r"\s*(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)(?P<mark>\s*:/{0,3}|//)\s*(?P<rest>.*?)\s*", re.DOTALL)
_HUB_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repo>[^/?#]+/[^/?#]+).*", re.IGNORECASE)


def spelling_fault(address: str, own: tuple[str, ...] = ()) -> str:
    """What to write instead of `address`, as the end of a sentence; empty if it is well written.

    `own`: the field's own prefixes without colon, such as `hub` for destinations. The empty prefix means that a hub id stands alone.
    """
    right = "::".join(_right(part, own) for part in address.split("::"))
    if right == address:
        return ""
    if right.startswith(_NOWHERE):
        return "the Hugging Face hub cannot be used here: give a path, or a URI such as s3://bucket/folder"
    local = "" if "://" in address else f", or {'./' + address.strip()!r} for a local path of that name"
    return f"write {right!r}{local}"


def refuse_misspelt(address: str, what: str, own: tuple[str, ...] = ()) -> None:
    """UserError for an address that is almost a URI. `what` names it: "The destination"."""
    if fault := spelling_fault(address, own):
        raise UserError(f"{what} {address!r} is not an address: {fault}.")


def well_spelt(*own: str) -> Callable[[str], str]:
    """A validator for fields that hold addresses."""

    def check(address: str) -> str:
        if fault := spelling_fault(address, own):
            raise ValueError(f"{address!r} is not an address: {fault}")
        return address

    return check


_NOWHERE = "\0"


def _right(part: str, own: tuple[str, ...]) -> str:
    """The part of a chain as it must be written."""
    if "" in own and (page := _HUB_PAGE.fullmatch(part.strip())):
        return page["repo"]
    parts = _PARTS.fullmatch(part)
    if parts is None:
        return part
    scheme, mark, rest = parts["scheme"].lower(), parts["mark"].strip(), parts["rest"]
    if mark == "//":
        return f"{scheme}://{rest}" if scheme in _NEVER_FOLDERS else part
    slashes = mark[1:]
    if scheme == "hf" and "hf" in own:
        return f"hf:{slashes}{rest}"  # a data set's folder, or fsspec's hf://
    if scheme in _HUB:
        return _on_hub(scheme, slashes, rest, part, own)
    if scheme in own:
        return f"{scheme}:{rest}"
    if scheme not in _SCHEMES:
        return part
    if slashes.startswith("//"):
        return f"{scheme}:{slashes}{rest}"
    if scheme in ("file", "local"):
        return f"file:///{rest}" if slashes else rest
    return f"zip://::{rest}" if scheme == "zip" else f"{scheme}://{rest}"


def _on_hub(scheme: str, slashes: str, rest: str, part: str, own: tuple[str, ...]) -> str:
    prefix = next((name for name in own if name in (*_HUB, "")), None)
    if prefix is None:
        return part if scheme == "hf" and slashes == "//" and part.startswith("hf://") else _NOWHERE
    if scheme == "hf" and slashes == "//":
        rest = re.sub(r"^(models|datasets)/", "", rest)
    return f"{prefix}:{rest}" if prefix else rest
