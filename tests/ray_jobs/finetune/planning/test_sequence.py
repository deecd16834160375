"""What cutting rows sends and how long rows may be, by the plan's formulas."""

import pytest

from data_schemas.params import PipelineParams
from ray_jobs.finetune.planning.sequence import longest_row, sent_bytes
from ray_jobs.finetune.planning.shape import training_shape


def params_of(sequence_workers: int, **training: object) -> PipelineParams:
    return PipelineParams.model_validate(
        {
            "run_name": "long",
            "corpus": {"sources": ["x"]},
            "model": {"base": "demo", "target_length": 65_536, "rope_method": "yarn"},
            "training": {"rows_per_step": 4, "s2_group_size": 2048, "precision": "fp32", **training},
            "ray": {"num_workers": sequence_workers, "sequence_workers": sequence_workers},
        }
    )


def test_bytes_are_those_of_half_a_group_of_half_of_the_heads() -> None:
    params = params_of(2)
    found = sent_bytes(params, training_shape(params), 1, 2048)
    assert found.layer_in_groups == 1024 * 2 * 64 * 4, "keys and values of the shifted head alone"
    assert found.ring_layer / found.layer_in_groups > 50
    assert found.layer_in_full == pytest.approx(65_536 / 2 * (8 + 4) * 64 * 4 / 2, rel=0.05)
    assert found.step == 3 * (3 * found.layer_in_groups + found.layer_in_full)


def test_more_workers_take_longer_rows() -> None:
    params = params_of(2)
    shape = training_shape(params)
    rows = [longest_row(params, shape, 8e9, workers, cuda=False) for workers in (1, 2, 8)]
    assert rows[0] > 10_000
    assert rows[1] == pytest.approx(2 * rows[0], rel=0.1)
    uneven = [longest_row(params, shape, 8e9, 8, cuda=False, num_full_layers=full) for full in (0, 2)]
    assert uneven[1] < 0.9 * uneven[0], "8 workers do not divide 2 key-value heads: the first part of a row is the longest"
    assert rows[2] == pytest.approx(8 * rows[0], rel=0.1)
    assert longest_row(params, shape, 1e6, 8, cuda=False) == 0
