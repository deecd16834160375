"""What is written about a run while it trains: lines, events and their picture."""

import struct
import time

from tensorboardX.proto.event_pb2 import Event

from ray_jobs.finetune.training.progress import (
    LOG_NAME,
    PROGRESS_NAME,
    TENSORBOARD_DIR,
    Follower,
    TrainingLog,
    describe,
    read_lines,
)
from tasks.prefect_tasks.pages.training_plots import plot_training
from tests.waiting import wait_until


def metrics(step, **more):
    return {
        "step": step,
        "loss": 3.0 - step / 10,
        "grad_norm": 0.5,
        "learning_rate": 1e-3,
        "tokens": 4000,
        "seconds": 2.0,
    } | more


def events(folder):
    """(step, chart, value) of every scalar in the event files, as the TFRecord format frames them; -1 marks a purge."""
    found = []
    for path in sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            event = Event.FromString(data[12 : 12 + length])
            found += [(event.step, value.tag, round(value.simple_value, 4)) for value in event.summary.value]
            data = data[length + 16 :]
    return found


def test_lines_say_speed_memory_and_time_left(tmp_path):
    log = TrainingLog(tmp_path, 0, 10)
    begun = time.monotonic()
    log.append(metrics(1, mfu=0.4123))
    log.append(metrics(2, validation_loss=2.9, s2_validation_loss=2.95))
    elapsed = time.monotonic() - begun
    log.close()
    first, second = read_lines(tmp_path / PROGRESS_NAME)
    assert (first["tokens_per_s"], first["mfu"], first["seconds_left"]) == (2000, 0.4123, 18.0)
    assert first["peak_memory_mb"] > 10
    assert "mfu" not in second
    assert 8 <= second["seconds_left"] <= 8 + 4 * elapsed + 0.1  # 8 steps of the mean of 2 s and what the second took
    assert all(not {"seconds", "mfu", "peak_memory_mb"} & line.keys() for line in read_lines(tmp_path / LOG_NAME))
    told = describe(first | {"peak_memory_mb": 2340, "validation_loss": 2.9}, 10)
    assert told == "finetune: step 1/10, loss 2.900, held-out 2.900, lr 1.0e-03, 2,000 tokens/s, MFU 41%, 2.3 GB, 18 s left"


def test_steps_that_are_made_again_are_told_again(tmp_path):
    told = []
    with Follower(tmp_path, 4, told.append):
        for first_step, steps in ((0, (1, 2, 3)), (1, (2,))):  # killed after step 3, with a checkpoint at step 1
            log = TrainingLog(tmp_path, first_step, 4)
            for step in steps:
                log.append(metrics(step))
            log.close()
            wait_until(lambda last=steps[-1]: told and f"step {last}/4" in told[-1], told)


def test_events_hold_every_metric_and_go_on_after_a_kill(tmp_path):
    log = TrainingLog(tmp_path, 0, 4)
    for step in (1, 2, 3):
        log.append(metrics(step, validation_loss=1.5))
    log.close()
    again = TrainingLog(tmp_path, 2, 4)  # killed after the checkpoint of step 2
    again.append(metrics(3, loss=9.0))
    again.close()
    assert [line["step"] for line in read_lines(tmp_path / LOG_NAME)] == [1, 2, 3]
    scalars = events(tmp_path / TENSORBOARD_DIR)
    assert [(step, value) for step, tag, value in scalars if tag == "loss/training"] == [(1, 2.9), (2, 2.8), (3, 2.7), (3, 9.0)]
    assert {tag for _, tag, _ in scalars} >= {
        "loss/held_out_full_attention", "optimizer/learning_rate", "speed/tokens_per_second", "memory/peak_megabytes",
    }  # fmt: skip


def test_the_plot_shows_the_machine_where_it_is_known(tmp_path):
    log = TrainingLog(tmp_path, 0, 3)
    for step in (1, 2, 3):
        log.append(metrics(step, validation_loss=1.5, mfu=0.4))
    log.close()
    with_machine = plot_training(tmp_path / LOG_NAME)
    (tmp_path / PROGRESS_NAME).unlink()
    without = plot_training(tmp_path / LOG_NAME)
    heights = [struct.unpack(">II", png[16:24])[1] for png in (with_machine, without)]
    assert with_machine.startswith(b"\x89PNG")
    assert heights[0] > 1.4 * heights[1]
