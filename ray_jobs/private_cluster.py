"""A local Ray cluster that nobody else can use: a token of its own, loopback addresses, a folder that only this user can enter.

Ray by itself listens on all interfaces, with six ports also where `ray.init` is given 127.0.0.1, because it replaces that by the
machine's address. It keeps loopback where RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER is off, as it is by default on macOS and Windows.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_schemas.errors import UserError

# Metrics have no authentication. A port that does not exist makes Ray log an error and go on without that server.
_NO_METRICS = {"RAY_enable_metrics_collection": "0", "AUTOSCALER_METRIC_PORT": "-1", "DASHBOARD_METRIC_PORT": "-1"}
_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_NO_NOTICES = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}  # nobody announces that this one machine goes away
_LOOPBACK_NAMES = ("lo", "lo0")
_TOKEN, _TOKEN_FILE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


_running = False  # whether this process is inside `private_to_this_run`


def is_private() -> bool:
    """Whether the cluster that this process is connected to is private to its run."""
    return _running


@contextlib.contextmanager
def private_to_this_run() -> Iterator[Path]:
    """Inside the block, `ray.init(address="local", _temp_dir=...)` starts a private cluster. Yields the folder to give it.

    The token is only in the environment of the run's processes. The cluster must be shut down before the block ends.
    """
    folder = private_folder()
    token = {"RAY_AUTH_MODE": "token", _TOKEN: secrets.token_hex(32)}
    settings = token | _NO_METRICS | _NO_NOTICES | _ON_LOOPBACK | _loopback_interface()
    global _running
    with _environment(settings, without=_TOKEN_FILE), _started_on_loopback():
        _running = True
        try:
            yield folder
        finally:
            _running = False


def private_folder() -> Path:
    """A folder for Ray's sessions, made if it is missing, below one of mode 0700 (Ray opens its sessions to every user).

    UserError if another user owns the folder or can enter it.
    """
    from ray._common.utils import get_default_system_temp_dir

    outer = Path(get_default_system_temp_dir()) / f"ray-{os.getuid()}"
    outer.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        outer.mkdir(mode=0o700)
    found = outer.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UserError(f"Other users can enter or own {outer}, where local Ray keeps its files: remove it, or set RAY_TMPDIR.")
    return outer / "ray"


def _loopback_interface() -> dict[str, str]:
    """Settings that keep the workers' own connections on loopback, unless they are set already."""
    names = {name for _, name in socket.if_nameindex()}
    name = next((name for name in _LOOPBACK_NAMES if name in names), None)
    if name is None:
        return {}
    return {key: name for key in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if key not in os.environ}


@contextlib.contextmanager
def _environment(settings: Mapping[str, str], without: str) -> Iterator[None]:
    """Set these variables and remove one, for this process, those it starts, and Ray's copies of them; put all back afterwards."""
    before = {name: os.environ.get(name) for name in (*settings, without)}
    os.environ.update(settings)
    os.environ.pop(without, None)
    _read_again()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_again()


def _read_again() -> None:
    """Let Ray in this process read its settings and the token again: it keeps the first ones that it has read."""
    import ray

    compiled: Any = ray._raylet  # its stub leaves these two out
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _started_on_loopback() -> Iterator[None]:
    """Ray may be imported already, and then it has read the variable."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
