"""What all tests of flows share: one real Prefect server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.prefect_server import PrefectServer


@pytest.fixture(scope="session")
def prefect_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty database of Prefect, which the first server makes for all processes of the test run."""
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "prefect-tables.db"


@pytest.fixture(scope="session")
def prefect_server(servers: None, prefect_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A running server; a test that kills it starts it again."""
    server = PrefectServer(tmp_path_factory.mktemp("prefect-server"), prefect_tables)
    try:
        server.start()
        yield server
    finally:
        server.stop()
