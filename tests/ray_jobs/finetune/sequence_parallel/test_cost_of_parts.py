"""What decides the parts of a row in a step and in validation, and what the benchmarks of cut rows compare and refuse."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import million_tokens, sequence_parallel
from ray_jobs.finetune.sequence_parallel.exchange import Link
from ray_jobs.finetune.training import steps
from ray_jobs.finetune.training.batches import MicroBatch
from ray_jobs.finetune.training.distributed import Worker
from ray_jobs.finetune.training.loop import set_up
from ray_jobs.finetune.training.objective import set_full_layers
from tests.ray_jobs.finetune.training_example import ALONE, CPU, make_params, write_base

TOKENS = 3000


def test_costs_are_counted_once_and_validation_is_cut_evenly(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, _ = set_up(make_params(write_base(tmp_path / "base", tokenizer, tied=True)), ALONE)
    set_full_layers(objective, (0, 1))
    counted, cost_of = [], steps.cost_of

    def counting(*inputs: Any) -> Any:
        counted.append(inputs)
        return cost_of(*inputs)

    monkeypatch.setattr(steps, "cost_of", counting)
    batch = MicroBatch(torch.zeros(1, TOKENS, dtype=torch.int64), torch.arange(TOKENS)[None])
    links = [Link(index, (0, 1, 2), None) for index in range(3)]  # 3 do not divide 2 key-value heads
    in_step, in_validation = (
        [steps.cut_for(objective, batch, Worker(link.index, 3, CPU, link), 512, sparse).input_ids.shape[1] for link in links]
        for sparse in (True, False)
    )
    assert len(counted) == 1
    assert sum(in_step) == sum(in_validation) == TOKENS
    assert in_step[0] > 1.2 * TOKENS / 3 > 1.2 * in_step[2], "in full, later tokens cost more"
    assert max(in_validation) < 1.05 * TOKENS / 3


def test_gradients_of_equal_norm_that_point_elsewhere_are_told_apart() -> None:
    gradient = torch.randn(8, 4, generator=torch.Generator().manual_seed(7))

    def found(of: torch.Tensor) -> dict[str, Any]:
        norm, along = of.double().norm().item(), sequence_parallel.projection(0, of)
        return {"loss": 1.0, "gradients": [norm], "projections": [along]}

    assert sequence_parallel.is_same(found(gradient), found(gradient * (1 + 1e-6)))
    assert not sequence_parallel.is_same(found(gradient), found(gradient.flip(0)))


def test_a_run_without_a_measured_step_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["million_tokens", "--steps", "1"])
    with pytest.raises(SystemExit) as ended:
        million_tokens.main()
    assert ended.value.code == 2
    assert "--steps 1 has no step after the first" in capsys.readouterr().err
