"""The programs that serve a release, each in a Python environment of its own, and how to ask them.

<home>/<consumer>-<digest of what it is made of>/    a virtual environment; `complete` in it is written last
<home>/<consumer>-<digest>.log                       what the installer said
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from data_schemas.errors import UserError

_HERE = Path(__file__).parent
_MARKER = "complete"
_INSTALL_TIMEOUT_S = 1800
_PROBE_TIMEOUT_S = 3600
# Where torch without CUDA lives; asked only where the configured index has none.
_CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Consumer:
    """A program to ask. Without `requirements` it is what the running Python has installed.

    `requirements` names a file of pinned packages beside this module. `on_host` puts the running Python's packages behind
    them: what that has in the very version, torch above all, is shared, the rest is installed and shadows what it names.
    """

    name: str
    version: str
    probe: str
    requirements: str | None = None
    on_host: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def pinned(self) -> list[str]:
        """One `name==version` each; empty without `requirements`."""
        if self.requirements is None:
            return []
        lines = (_HERE / "requirements" / self.requirements).read_text(encoding="utf-8").splitlines()
        return [line for line in map(str.strip, lines) if line and not line.startswith("#")]

    def to_install(self) -> list[str]:
        """What of `pinned` the running Python does not share: with `on_host`, what it has in exactly that version is left out."""
        return [line for line in self.pinned if not (self.on_host and _is_here(line))]


def _is_here(pin: str) -> bool:
    name, _, version = pin.partition("==")
    try:
        return metadata.version(name) == version
    except metadata.PackageNotFoundError:
        return False


_VLLM_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # else every model is served by a process of its own, which imports all again
}

CONSUMERS = {
    consumer.name: consumer
    for consumer in (
        Consumer("transformers-5", "as installed", "probe_transformers.py"),
        Consumer("transformers-4.57", "4.57.6", "probe_transformers.py", "transformers-4.57.txt", on_host=True),
        Consumer("vllm", "0.32.0 on the CPU", "probe_vllm.py", "vllm.txt", on_host=True, environment=_VLLM_ENVIRONMENT),
    )
}


def consumer_named(name: str) -> Consumer:
    """UserError for a name that is not in CONSUMERS."""
    if name not in CONSUMERS:
        raise UserError(f"{name!r} is not a consumer that can be run: choose among {', '.join(CONSUMERS)}.")
    return CONSUMERS[name]


def default_home() -> Path:
    """`consumers` below ROPEWAY_CACHE, else below the user's cache folder."""
    cache = os.environ.get("ROPEWAY_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "ropeway")
    return Path(cache).expanduser().absolute() / "consumers"


def environment_for(consumer: Consumer, home: Path | None = None, progress: Callable[[str], None] = lambda _: None) -> Path:
    """The Python that has `consumer` installed; made below `home` the first time, by one process at a time.

    Raises UserError with the last line of pip's log where it cannot be installed; the next call tries again.
    """
    if consumer.requirements is None:
        return Path(sys.executable)
    home = (home or default_home()).absolute()  # the probe runs in a folder of its own
    shared = [sys.prefix, *consumer.to_install()] if consumer.on_host else []
    made_of = [*consumer.pinned, platform.python_version(), *shared]
    digest = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:12]
    folder = home / f"{consumer.name}-{digest}"
    python = folder / "bin" / "python"
    home.mkdir(parents=True, exist_ok=True)
    with (home / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _MARKER).is_file():
            shutil.rmtree(folder, ignore_errors=True)  # debris of an installation that was cut off
            progress(f"installing {consumer.name} into {folder}")
            _install(consumer, folder, python, home / f"{folder.name}.log")
            (folder / _MARKER).write_text("\n".join(consumer.pinned) + "\n", encoding="utf-8")
    return python


def _install(consumer: Consumer, folder: Path, python: Path, log: Path) -> None:
    with log.open("w", encoding="utf-8") as output:
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], consumer, output, log)
        wanted = consumer.to_install()
        if not _installed_by_uv(python, wanted, output):
            # The running pip installs into the new environment, which needs none of its own.
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-compile", "--no-input"]
            torch = [line for line in wanted if line.startswith("torch==")]
            if torch and _quietly([*pip, *torch], output):
                _run([*pip, "--extra-index-url", _CPU_TORCH_INDEX, *torch], consumer, output, log)
            _run([*pip, "--disable-pip-version-check", *(line for line in wanted if line not in torch)], consumer, output, log)
    if consumer.on_host:
        # A .pth file appends to the path, so that what lies in the environment itself goes first.
        host = f"{sysconfig.get_path('platlib')}\n"
        next(folder.glob("lib/python*/site-packages")).joinpath("host.pth").write_text(host, encoding="utf-8")


def _installed_by_uv(python: Path, wanted: Sequence[str], output: Any) -> bool:
    """Whether uv is here and could do it, in a third of pip's time; pip is asked otherwise, which knows the user's own indexes."""
    found = Path(sys.executable).with_name("uv")
    uv = str(found) if found.is_file() else shutil.which("uv")
    return uv is not None and not _quietly([uv, "pip", "install", "--python", str(python), "--no-deps", *wanted], output)


def _quietly(command: Sequence[str], output: Any) -> int:
    return subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, timeout=_INSTALL_TIMEOUT_S).returncode


def _run(command: Sequence[str], consumer: Consumer, output: Any, log: Path) -> None:
    try:
        code = _quietly(command, output)
        reason = _last_line(log)
    except (OSError, subprocess.TimeoutExpired) as error:
        code, reason = 1, str(error)
    if code:
        raise UserError(
            f"{consumer.name} cannot be installed to be run ({reason}): connect to a package index, or leave it out; the log is {log}."
        )


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:300].rstrip(".") if lines else "it said nothing"


def ask(
    consumer: Consumer, python: Path, models: Sequence[Mapping[str, Any]], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The probe's response to `models` (directory, prompts; see probe_transformers.py), from a process without network.

    Raises UserError with what the process said last where it gives no answer.
    """
    with tempfile.TemporaryDirectory(prefix="ropeway-probe-") as scratch:
        request, response, log = (Path(scratch) / name for name in ("request.json", "response.json", "log"))
        request.write_text(json.dumps({"models": list(models)}), encoding="utf-8")
        command = [str(python), str(_HERE / consumer.probe), str(request), str(response)]
        try:
            with log.open("w") as output:
                subprocess.run(
                    command,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=_PROBE_TIMEOUT_S,
                    cwd=scratch,
                    env=_clean_environment() | dict(consumer.environment) | dict(environment or {}),
                )
            answer: dict[str, Any] = json.loads(response.read_text(encoding="utf-8"))
            failed = [model for model in answer["models"] if isinstance(model, dict) and "error" in model]
            if len(models) == 1 and failed and (cause := _first_error(log)):
                failed[0]["error"] = cause
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            said = _last_line(log) if log.is_file() else str(error)
            raise UserError(
                f"{consumer.name} gave no answer ({said}): run {python} {_HERE / consumer.probe} by hand."
            ) from error
    return answer


def _first_error(log: Path) -> str:
    """The first exception that a server's log names: what its own processes died of, which the caller only hears to be dead."""
    found = re.search(r"\b\w*(?:Error|Exception): \S.*", log.read_text(encoding="utf-8", errors="replace"))
    return found.group()[:300] if found else ""


def _clean_environment() -> dict[str, str]:
    """Ours, offline, and without what would lead the consumer to our modules."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return kept | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
