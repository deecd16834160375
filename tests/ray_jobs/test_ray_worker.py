"""What a worker makes of Ray's preemption notices; notices themselves need nodes that are drained."""

import ray.train
from ray.train import PreemptionInfo

from ray_jobs.finetune.ray_worker import RayLink
from tests.ray_jobs.training_example import make_params


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
