"""How the training workers of a private cluster find each other: by a file, because torch's TCP store listens on all interfaces.

The TCP store has no authentication. The file lies in the folder of `ray_jobs.private_cluster`, which no other user can enter. All
workers of a private cluster are on one machine; on any other cluster Ray's own way stays.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.backend import BackendConfig
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend

from ray_jobs.private_cluster import is_private, private_folder


class _MeetInFile(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Connect all workers. Ray calls it again whenever it starts the group again, each time with another file."""
        assert isinstance(backend_config, TorchConfig)
        folder = private_folder()
        folder.mkdir(exist_ok=True)
        backend = backend_config.backend or ("nccl" if worker_group.get_resources_per_worker().get("GPU", 0) else "gloo")
        worker_group.execute(_set_torch_distributed_env_vars)
        meeting = f"file://{folder}/workers-{uuid.uuid4().hex}"
        connecting = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend=backend,
                world_rank=rank,
                world_size=len(worker_group),
                init_method=meeting,
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(len(worker_group))
        ]
        ray.get(connecting)


@dataclass
class PrivateTorchConfig(TorchConfig):
    """A `TorchConfig` whose workers meet in a file, as they can on one machine."""

    @property
    def backend_cls(self) -> type[_MeetInFile]:
        return _MeetInFile


def torch_config() -> TorchConfig:
    """The `TorchConfig` for training on the cluster that this process is connected to."""
    return PrivateTorchConfig() if is_private() else TorchConfig()
