"""A check at the start of a run: all nodes of the cluster must see the folders that the driver sees."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.storage import Storage

_ANSWERS_WITHIN_S = 60.0


def refuse_unshared(params: PipelineParams, storage: Storage, *, parts_only: bool) -> None:
    """UserError if a node does not see the storage, or the base model's folder, that this driver sees.

    Call it connected to Ray. A cluster of one node always passes.

    Args:
        parts_only: the workers need only `Storage.parts`, which remote storage offers to every node. Training also needs the
            local folder that mirrors remote storage.
    """
    nodes = _nodes()
    if len(nodes) < 2:
        return
    base = Path(params.model.base).expanduser()
    if params.model.base != "demo" and base.is_dir():
        _refuse(_not_seen(nodes, str(base.resolve())), f"model.base {params.model.base}", "put it there, or on a shared folder")
    if parts_only and storage.remote is not None:
        return
    with _probe(storage.root) as probe:
        blind = _not_seen(nodes, str(probe))
    if storage.remote is not None:
        what, how = (
            f"{storage.root}, this machine's mirror of {storage.remote.uri},",
            "set ROPEWAY_CACHE to a folder that all nodes share",
        )
    else:
        what, how = f"the storage {storage.root}", "mount that folder on all nodes, or use an s3:// storage for the data stage"
    _refuse(blind, what, how)


def _refuse(nodes: Sequence[str], what: str, how: str) -> None:
    if nodes:
        raise UserError(f"{what[0].upper()}{what[1:]} is not visible on the node(s) {', '.join(nodes)} of the cluster: {how}.")


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


@contextlib.contextmanager
def _probe(root: Path) -> Iterator[Path]:
    """A file below the storage with a unique name."""
    path = root / f".probe-{uuid.uuid4().hex}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise UserError(f"Cannot write below the storage {root}: {error.strerror}. Give another `storage`.") from error
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _not_seen(nodes: Sequence[dict[str, Any]], path: str) -> list[str]:
    """Addresses of the nodes on which there is no `path`. Nodes that do not answer in time are left out."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=1)(_is_there)
    asked = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(path): node
        for node in nodes
    }
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWERS_WITHIN_S)
    blind = []
    for answer in answered:
        with contextlib.suppress(ray.exceptions.RayError):  # the node is gone by now
            if not ray.get(answer):
                blind.append(f"{asked[answer]['NodeManagerAddress']} ({asked[answer]['NodeID'][:8]})")
    return sorted(blind)


def _is_there(path: str) -> bool:
    import os

    with contextlib.suppress(OSError):
        os.listdir(os.path.dirname(path))  # makes a network file system refresh
    return os.path.exists(path)
