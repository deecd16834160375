"""Several real processes with gloo: what they compute together is what one computes alone, whatever cuts the work."""

import json
import os
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from ray_jobs.finetune.training.distributed import Worker
from ray_jobs.finetune.training.row_parts import sequence_link
from tests.ray_jobs.finetune.training_example import CPU, make_params, run, write_base

pytestmark = pytest.mark.slow

# name -> (base, training parameters); rows have 60 to 96 tokens, so ranks never have equally many
SCENARIOS = {
    "ddp": ("tied", {"micro_batch_rows": 2}),
    "fsdp": ("tied", {"micro_batch_rows": 2, "parallelism": "fsdp"}),
    "ddp-untied": ("untied", {"gradient_checkpointing": False}),
    "fsdp-untied": ("untied", {"gradient_checkpointing": False, "parallelism": "fsdp"}),
    "ddp-uneven": ("tied", {"rows_per_step": 3, "validation_rows": 3}),
    "fsdp-uneven": (
        "tied",
        {"rows_per_step": 3, "validation_rows": 3, "parallelism": "fsdp", "activation_offload": True, "mlp_tile_tokens": 16},
    ),
    "ddp-auto": ("tied", {"full_attention_layers": "auto"}),
    "fsdp-auto": ("tied", {"full_attention_layers": "auto", "parallelism": "fsdp"}),
    "fsdp-full": ("tied", {"attention": "full", "parallelism": "fsdp"}),
    "fsdp-nf4": (
        "tied",
        {
            "base_precision": "nf4",
            "dora": True,
            "average_last_steps": 3,
            "full_attention_layers": "none",
            "parallelism": "fsdp",
        },
    ),
    "ddp-exact": ("tied", {"micro_batch_rows": 2, "loss_weighting": "exact", "position_skipping": 2}),
    "ddp-long-ce": ("tied", {"loss_weighting": "long_ce", "loss_long_from": 16}),
    "ddp-sequence": ("tied", {"micro_batch_rows": 2, "sequence_workers": 2}),
    "fsdp-sequence": ("untied", {"parallelism": "fsdp", "sequence_workers": 2, "full_attention_layers": "auto"}),
    "ddp-sequence-exact": ("tied", {"sequence_workers": 2, "loss_weighting": "exact", "position_skipping": 2}),
    "ddp-short": ("tied", {"micro_batch_rows": 2, "short_window_share": 0.5}),
    "fsdp-sequence-short": (
        "tied",
        {"sequence_workers": 2, "parallelism": "fsdp", "short_window_share": 0.5, "two_lists": True, "mlp_tile_tokens": 16},
    ),
    "fsdp-uneven-long-ce": (
        "untied",
        {"rows_per_step": 3, "loss_weighting": "long_ce", "loss_long_from": 48, "parallelism": "fsdp"},
    ),
}


def one_of_two(rank, folder):
    """Run every scenario as rank `rank`, and let runs of one parallelism go on from the other's checkpoint."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    worker = Worker(rank, 2, CPU)

    def scenario(name, training, base, resume_from=None):
        home = folder / name
        if rank == 0:
            home.mkdir()
        dist.barrier()
        settings = dict(training)
        of_row = replace(worker, link=sequence_link(rank, 2, settings.pop("sequence_workers", 1)))
        weights, reports, kept = run(make_params(folder / base, **settings), home, of_row, resume_from)
        if rank == 0:
            save_file({key: value.contiguous() for key, value in weights.items()}, home / "weights.safetensors")
            (home / "reports.json").write_text(json.dumps(reports))
            for step, path in kept.items():
                path.rename(home / f"step-{step}")
        dist.barrier()

    for name, (base, training) in SCENARIOS.items():
        scenario(name, training, base)
    scenario("fsdp-after-ddp", SCENARIOS["fsdp"][1], "tied", folder / "ddp" / "step-2")
    scenario("sequence-after-ddp", SCENARIOS["ddp-sequence"][1], "tied", folder / "ddp" / "step-2")
    scenario("fsdp-after-fsdp", SCENARIOS["fsdp"][1], "tied", folder / "fsdp" / "step-2")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("together")
    for name in ("tied", "untied"):
        write_base(folder / name, tokenizer, tied=name == "tied")
    os.environ["OMP_NUM_THREADS"] = "1"
    mp.spawn(one_of_two, (folder,), nprocs=2)
    return folder


def losses(folder, column="loss"):
    return [line[column] for line in json.loads((folder / "reports.json").read_text()) if column in line]


def assert_same_training(folder, weights, reports, tolerance=1e-5):
    assert losses(folder) == pytest.approx([report["loss"] for report in reports], rel=tolerance)
    weighted = [report["weighted_loss"] for report in reports if "weighted_loss" in report]
    assert losses(folder, "weighted_loss") == pytest.approx(weighted, rel=tolerance)
    assert losses(folder, "grad_norm") == pytest.approx([report["grad_norm"] for report in reports], rel=1e-3)
    assert losses(folder, "validation_loss")[-1] == pytest.approx(reports[-1]["validation_loss"], rel=tolerance)
    got = load_file(folder / "weights.safetensors")
    assert got.keys() == weights.keys()
    for name in weights:
        torch.testing.assert_close(got[name], weights[name], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_workers_train_what_one_does(together, tmp_path, name):
    base, training = SCENARIOS[name]
    alone = training | {"parallelism": "ddp", "activation_offload": False}
    for only_how in ("sequence_workers", "mlp_tile_tokens"):
        alone.pop(only_how, None)
    for micro_batch_rows in {1, alone.get("rows_per_step", 4)}:  # accumulation of single rows, and all rows at once
        folder = tmp_path / str(micro_batch_rows)
        folder.mkdir()
        weights, reports, _ = run(make_params(together / base, **alone | {"micro_batch_rows": micro_batch_rows}), folder)
        assert_same_training(together / name, weights, reports)


def test_ddp_and_fsdp_have_one_loss_curve(together):
    for name in ("", "-untied", "-uneven"):
        assert losses(together / f"fsdp{name}") == pytest.approx(losses(together / f"ddp{name}"), rel=1e-5)
    assert losses(together / "fsdp-full") != pytest.approx(losses(together / "fsdp"), rel=1e-5)  # so S2 was not full attention


def test_a_checkpoint_fits_any_parallelism_and_number_of_workers(together, tmp_path):
    assert losses(together / "fsdp-after-fsdp") == losses(together / "fsdp")[2:]
    assert losses(together / "fsdp-after-ddp") == pytest.approx(losses(together / "ddp")[2:], rel=1e-5)
    assert losses(together / "sequence-after-ddp") == pytest.approx(losses(together / "ddp")[2:], rel=1e-5)
    for name in ("ddp", "fsdp", "ddp-sequence"):
        (tmp_path / name).mkdir()
        alone = make_params(together / "tied", micro_batch_rows=1)
        _, reports, _ = run(alone, tmp_path / name, resume_from=together / name / "step-2")
        assert [report["loss"] for report in reports] == pytest.approx(losses(together / name)[2:], rel=1e-5)


def test_fsdp_saves_the_same_adapter_as_ddp(together):
    for suffix in ("", "-untied"):
        ddp, fsdp = (
            load_file(together / f"{kind}{suffix}" / "step-4" / "adapter" / "adapter_model.safetensors")
            for kind in ("ddp", "fsdp")
        )
        assert ddp.keys() == fsdp.keys()
        for name, weight in ddp.items():
            torch.testing.assert_close(weight, fsdp[name], atol=2e-4, rtol=1e-3)
