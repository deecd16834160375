"""What all tests of flows share: one real Prefect server."""

from collections.abc import Iterator

import pytest

from tests.flows.prefect_server import PrefectServer


@pytest.fixture(scope="session")
def prefect_server(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A running server; a test that kills it starts it again."""
    server = PrefectServer(tmp_path_factory.mktemp("prefect-server"))
    try:
        server.start()
        yield server
    finally:
        server.stop()
