"""Addresses: which machine they mean, and that no secret is shown or overlooked."""

from pathlib import Path

import pytest

from data_schemas.addresses import holds_secret, is_remote, local_path, without_secrets
from data_schemas.cache_folder import cache_folder


@pytest.mark.parametrize(
    "address", ["s3://bucket/x", "zip://*.txt::/data/a.zip", "simplecache::s3://bucket/x", "https://host/x"]
)
def test_a_uri_or_a_chain_is_remote(address):
    assert is_remote(address)


@pytest.mark.parametrize("address", ["/data/x", "data", "~/data", "file:///data/x"])
def test_a_path_is_not(address):
    assert not is_remote(address)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("a/b", Path.cwd() / "a/b"),
        ("~/b", Path.home() / "b"),
        ("a%20b", Path.cwd() / "a%20b"),
        ("file:///a%20b", Path("/a b")),
        ("file://localhost/a", Path("/a")),
    ],
)
def test_a_local_address_is_an_absolute_path(address, path):
    assert local_path(address) == path


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:pw@host/x", "https://host/x"),
        ("https://host/x?X-Amz-Signature=abc&v=1", "https://host/x?X-Amz-Signature=...&v=1"),
        ("simplecache::sftp://me:pw@host/x", "simplecache::sftp://host/x"),
    ],
)
def test_secrets_are_found_and_hidden(uri, shown):
    assert without_secrets(uri) == shown
    assert holds_secret(uri)
    assert not holds_secret("https://host/a@b?version=3")


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("ROPEWAY_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ropeway"
    monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
