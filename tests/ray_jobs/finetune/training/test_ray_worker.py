"""What a worker makes of Ray's preemption notices; notices themselves need nodes that are drained."""

import pytest
import ray.train
from ray.train import PreemptionInfo

from data_schemas.errors import UserError
from ray_jobs.finetune.training.ray_worker import RayLink, train_on_worker
from tests.ray_jobs.finetune.training_example import make_params


def test_a_node_that_does_not_see_the_shards_says_so(tmp_path):
    params = make_params(tmp_path).model_dump(mode="json")
    with pytest.raises(UserError, match=r"does not see .*/gone: mount the storage on all nodes"):
        train_on_worker({"params": params, "shards": str(tmp_path / "gone"), "work": str(tmp_path), "unlisted": None})


def test_each_node_that_will_go_causes_one_checkpoint_out_of_turn(tmp_path, monkeypatch):
    one, two = PreemptionInfo(None, {"a": [0]}), PreemptionInfo(1, {"a": [0], "b": [1]})
    notices = iter([None, one, one, two, two])
    reported = []
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: next(notices))
    monkeypatch.setattr(
        ray.train, "report", lambda metrics, checkpoint: reported.append((metrics["step"], checkpoint is not None))
    )
    link = RayLink(make_params(tmp_path, checkpoint_every=100, steps=100), log=None)
    for step in range(1, 6):
        folder = tmp_path / str(step)
        folder.mkdir()
        link.report({"step": step}, folder if link.save_now() else None)
    assert reported == [(2, True), (4, True)]
