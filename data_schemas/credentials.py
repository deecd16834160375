"""Credentials among the parameters of a run. Prefect stores parameters in its database, so none may hold a password, key or token."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from data_schemas.value_path import value_path

WHERE_THEY_BELONG = (
    "parameters are stored in Prefect's database, so leave it out and set it in the environment of the machines that read "
    "(AWS_ACCESS_KEY_ID, HF_TOKEN, FSSPEC_SFTP_PASSWORD, ...) or in a Prefect block that fills that environment"
)


def _any_case(words: str) -> str:
    """A pattern without flags, as JSON Schema needs it."""
    return re.sub("[a-z]", lambda letter: f"[{letter[0].upper()}{letter[0]}]", words)


# Written so that Python, JavaScript and JSON Schema read them alike.
_BEFORE = _any_case("aws|access|account|api|auth|client|google|private|sas|secret|security|session|shared")
_NAME = _any_case("sig|signature|token|key|keyid|accessid|secret|password|passwd|pwd|credential|credentials")
_KINDS = {
    "a password before its `@`": r"://[^/?#\s@:]*:[^/?#\s]*@",
    "a token before its `@`": rf"{_any_case('https?')}://[^/?#\s]*@|^{_any_case('hub')}:[^/]*@",
    "a key, token or signature after its `?`": rf"[?&]([^=&#\s]*[-_.])?({_BEFORE})*({_NAME})=[^&#\s]",
    "a token of the Hugging Face hub": r"hf_[A-Za-z0-9]{30,}",
    "an AWS access key": r"(^|[^A-Za-z0-9])(AKIA|ASIA)[A-Z0-9]{16}($|[^A-Za-z0-9])",
    "a GitHub token": r"(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{36})",
}
_NAMES = re.compile(
    "key|secret|token|password|passwd|username|hf_token|api_key|access_key|secret_key|account_key|sas_token|session_token|"
    "connection_string|aws_[a-z_]+|client_secret|credentials?|bearer_token|authorization",
    re.IGNORECASE,
)

SCHEMA_WITHOUT_CREDENTIALS: dict[str, Any] = {"pattern": rf"^(?![\s\S]*({'|'.join(f'({kind})' for kind in _KINDS.values())}))"}
"""For the JSON schema of an address: Prefect then refuses a run from its form or API before it stores the parameters."""


def credential_in(text: str) -> str:
    """The kind of credential that `text` contains, in words; empty if none is recognised."""
    return next((kind for kind, pattern in _KINDS.items() if re.search(pattern, text)), "")


def refuse_credentials(value: Any) -> None:
    """ValueError if a text in `value`, or a name in it such as `secret`, is a credential. The error names the place, not the text."""
    for path, kind in _credentials(value, ()):
        raise ValueError(f"{value_path(path)} contains {kind}: {WHERE_THEY_BELONG}")


def _credentials(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if path == ("ray", "address"):  # has a sentence of its own
        return
    if isinstance(value, str):
        if kind := credential_in(value):
            yield path, kind
        return
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(inner, str) and inner and _NAMES.fullmatch(str(name)):
                yield (*path, str(name)), "a credential by its name"
            yield from _credentials(inner, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _credentials(inner, (*path, i))
