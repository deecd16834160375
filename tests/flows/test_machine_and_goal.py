"""Preparing data asks nothing of the machine's GPUs; what may train does."""

import pytest

from data_schemas import devices
from data_schemas.errors import UserError
from flows.check_inputs import check_inputs
from flows.config import load_config
from ray_jobs import machine_checks


def test_data_for_gpus_can_be_prepared_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "gpus", lambda: ())
    monkeypatch.setattr(devices, "gpus", lambda: ())
    params = load_config("demo", ["ray.use_gpu=true"])
    check_inputs(params, trains=False)
    with pytest.raises(UserError, match="no GPU is visible on this machine"):
        check_inputs(params)
