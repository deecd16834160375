"""The files that a training run writes while it trains, the events made of them, and their picture."""

import json
import struct

from tensorboardX.proto.event_pb2 import Event

from data_schemas.progress import TrainingStep, decode, describe, encode
from ray_jobs.finetune.training.training_log import (
    LOG_NAME,
    PROGRESS_NAME,
    TENSORBOARD_DIR,
    Follower,
    TrainingLog,
    newest_step,
    read_steps,
)
from tasks.prefect_tasks.pages.training_plots import draw_training
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


def test_lines_hold_speed_memory_and_time_left(tmp_path):
    log = TrainingLog(tmp_path, 0, 10)
    log.append(metrics(1, mfu=0.4123))
    log.append(metrics(2, validation_loss=2.9, s2_validation_loss=2.95))
    log.close()
    first, second = read_steps(tmp_path / PROGRESS_NAME)
    assert (first.tokens_per_s, first.mfu, first.seconds_left) == (2000, 0.4123, 18.0)
    assert first.peak_memory_mb > 10
    assert (second.mfu, second.validation_loss, second.s2_validation_loss) == (None, 2.9, 2.95)
    assert 8 <= second.seconds_left < 9  # 8 steps of the mean of 2 s and next to nothing
    logged = [json.loads(line) for line in (tmp_path / LOG_NAME).read_text().splitlines()]
    assert [line["step"] for line in logged] == [1, 2]
    assert all(not {"seconds", "mfu", "peak_memory_mb"} & line.keys() for line in logged)


def test_a_weighted_loss_stands_beside_the_plain_one_wherever_a_step_is_shown(tmp_path):
    log = TrainingLog(tmp_path, 0, 4)
    log.append(metrics(1, weighted_loss=2.25))
    log.close()
    for name in (LOG_NAME, PROGRESS_NAME):
        (step,) = read_steps(tmp_path / name)
        assert (step.loss, step.weighted_loss) == (2.9, 2.25)
        assert "loss 2.900, weighted 2.250, lr" in describe(decode(encode(TrainingStep(num_steps=4, figures=step))))
    assert (1, "loss/training_weighted", 2.25) in events(tmp_path / TENSORBOARD_DIR)
    (plain,) = [step.model_copy(update={"weighted_loss": None}) for step in read_steps(tmp_path / LOG_NAME)]
    assert "weighted" not in describe(TrainingStep(num_steps=4, figures=plain))
    assert draw_training([step], []) != draw_training([plain], [])


def test_a_torn_last_line_is_left_out(tmp_path):
    log = TrainingLog(tmp_path, 0, 10)
    for step in (1, 2, 3):
        log.append(metrics(step))
    log.close()
    path = tmp_path / PROGRESS_NAME
    whole = path.read_text().splitlines()
    path.write_text(path.read_text()[:-20])
    assert [step.step for step in read_steps(path)] == [1, 2]
    TrainingLog(tmp_path, 2, 10).close()  # resumes from the checkpoint of step 2
    assert path.read_text().splitlines() == whole[:2]
    assert read_steps(tmp_path / "missing.jsonl") == []


def test_steps_that_are_made_again_are_reported_again(tmp_path):
    heard = []
    with Follower(tmp_path, 4, heard.append):
        for first_step, steps in ((0, (1, 2, 3)), (1, (2,))):  # killed after step 3, with a checkpoint at step 1
            log = TrainingLog(tmp_path, first_step, 4)
            for step in steps:
                log.append(metrics(step))
            log.close()
            wait_until(lambda last=steps[-1]: heard and heard[-1].figures.step == last, heard)
    assert all(isinstance(event, TrainingStep) and event.num_steps == 4 for event in heard)


def test_events_hold_every_metric_and_go_on_after_a_kill(tmp_path):
    log = TrainingLog(tmp_path, 0, 4)
    for step in (1, 2, 3):
        log.append(metrics(step, validation_loss=1.5))
    log.close()
    again = TrainingLog(tmp_path, 2, 4)  # killed after the checkpoint of step 2
    again.append(metrics(3, loss=9.0))
    again.close()
    assert [line.step for line in read_steps(tmp_path / LOG_NAME)] == [1, 2, 3]
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
    logged, timed = read_steps(tmp_path / LOG_NAME), read_steps(tmp_path / PROGRESS_NAME)
    with_machine, without = draw_training(logged, timed), draw_training(logged, [])
    heights = [struct.unpack(">II", png[16:24])[1] for png in (with_machine, without)]
    assert with_machine.startswith(b"\x89PNG")
    assert heights[0] > 1.4 * heights[1]


def test_a_run_that_goes_on_from_a_checkpoint_does_not_tell_its_step_again(tmp_path):
    def log_of(first_step, *steps):
        log = TrainingLog(tmp_path, first_step, 10)
        for step in steps:
            log.append(step)
        log.close()
        return read_steps(tmp_path / PROGRESS_NAME)

    whole = log_of(0, metrics(1), metrics(2), metrics(3))
    assert newest_step(whole, whole[:1]) == whole[2]
    assert newest_step(whole, whole) is None
    shortened = log_of(2)
    assert [line.step for line in shortened] == [1, 2]
    assert newest_step(shortened, whole) is None
    again = log_of(2, metrics(3, seconds=2.5))
    assert newest_step(again, shortened) == again[2]
    assert newest_step(again, whole) == again[2], "the same step, computed again"
    assert newest_step([], whole) is None
