"""What every test shares: small tokenizers and models made on the spot, nothing from a hub."""

from __future__ import annotations

import gc
import os
import runpy
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import QUICK_START
from tests.waiting import PATIENT_PREFECT, PATIENT_RAY, TEST_HANGS_AFTER_S

os.environ.update(
    PATIENT_RAY | PATIENT_PREFECT,
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",  # tensors are tiny here: threads would only wait for each other, and for the other test process
    DO_NOT_TRACK="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AUTH_MODE="disabled",
    TOKENIZERS_PARALLELISM="false",
    PYTHONPATH=os.pathsep.join(filter(None, (str(QUICK_START), os.environ.get("PYTHONPATH")))),
)

import hypothesis
import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast
    from xdist.scheduler import LoadFileScheduling

# No timed assertion: the machine may be busy.
hypothesis.settings.register_profile("no-clock", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("no-clock")
# Shells let what they start in the background ignore Ctrl-C, and so would all processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

NO_SERVERS = Path(__file__).parent / "no_servers"
# Files that one process works through, because they share a Prefect server; in two halves, so that neither ends last.
ONE_SERVER = (
    {f"tests/flows/test_{name}.py" for name in ("chain", "limits", "publish_token")},
    {f"tests/flows/test_{name}.py" for name in ("automations", "browser", "deployments", "resilience")},
)
TEXT = """Rope bridges hang between cliffs. A traveller pays one coin, crosses, and looks back; the valley is deep.

# A heading

The second paragraph is about numbers: 1 2 3 4 5 6 7 8 9 0. It ends here! Does it? Yes.
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-servers", action="store_true", help="leave out what is slow or starts a server, and refuse to start one"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """As --dist loadfile, which it is for, but with the files that share a server in one process."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class WithSharedServers(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((min(files) for files in ONE_SERVER if file in files), file)

    return WithSharedServers(config, log)


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until all tests are imported
    if config.getoption("--no-servers"):
        handle, tried = tempfile.mkstemp(prefix="servers-tried-")
        os.close(handle)
        folders = [str(NO_SERVERS), os.environ.get("PYTHONPATH", "")]
        os.environ.update({"ROPEWAY_SERVERS_TRIED": tried, "PYTHONPATH": os.pathsep.join(filter(None, folders))})
        runpy.run_path(str(NO_SERVERS / "sitecustomize.py"))
        hypothesis.settings.register_profile("fast", parent=hypothesis.settings.get_profile("no-clock"), max_examples=20)
        hypothesis.settings.load_profile("fast")


def pytest_unconfigure(config: pytest.Config) -> None:
    if config.getoption("--no-servers"):
        Path(os.environ["ROPEWAY_SERVERS_TRIED"]).unlink(missing_ok=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    are_fast = config.getoption("--no-servers")
    for item in items:
        item.add_marker(pytest.mark.timeout(TEST_HANGS_AFTER_S / 20 if are_fast else TEST_HANGS_AFTER_S))
    if are_fast:
        is_left_out = [
            bool(item.get_closest_marker("slow")) or "servers" in getattr(item, "fixturenames", ()) for item in items
        ]
        config.hook.pytest_deselected(items=[item for item, left_out in zip(items, is_left_out, strict=True) if left_out])
        items[:] = [item for item, left_out in zip(items, is_left_out, strict=True) if not left_out]


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not look through it again and again (an eighth of the time)."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def servers() -> None:
    """Used by whatever starts a cluster, a server or a browser, so that `make test-fast` knows to leave it out."""


@pytest.fixture(autouse=True)
def _no_servers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Under --no-servers, a test fails that tries to start a server, even in a process of its own."""
    yield
    if request.config.getoption("--no-servers"):
        file = Path(os.environ["ROPEWAY_SERVERS_TRIED"])
        if tried := file.read_text():
            file.write_text("")
            pytest.fail(f"This test starts a server, so let it use the fixture `servers`. It tried to {tried}")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 384 ids with BOS 0 and EOS 1."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator([TEXT] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", model_max_length=64)
