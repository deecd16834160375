"""What every test shares: small tokenizers and models made on the spot, nothing from a hub."""

import os
import signal

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
)

import hypothesis
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

hypothesis.settings.register_profile("no-clock", deadline=None)  # no timed assertion: the machine may be busy
hypothesis.settings.load_profile("no-clock")
# Shells let what they start in the background ignore Ctrl-C, and so would all processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

TEXT = """Rope bridges hang between cliffs. A traveller pays one coin, crosses, and looks back; the valley is deep.

# A heading

The second paragraph is about numbers: 1 2 3 4 5 6 7 8 9 0. It ends here! Does it? Yes.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(TEST_HANGS_AFTER_S))


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 384 ids with BOS 0 and EOS 1."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator([TEXT] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", model_max_length=64)
