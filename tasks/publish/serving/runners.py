"""Running a consumer: the program in a Python environment of its own, and a probe script that asks it.

<home>/<consumer>-<digest of its packages>/    a virtual environment; `complete` in it is written last
<home>/<consumer>-<digest>.log                 the installer's output
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from data_schemas.cache_folder import cache_folder
from data_schemas.consumers import current_id
from data_schemas.errors import UserError
from data_schemas.progress import ProgressCallback, message

_HERE = Path(__file__).parent
_MARKER = "complete"
_INSTALL_TIMEOUT_S = 1800
_PROBE_TIMEOUT_S = 3600
# Index of torch without CUDA; used only if the configured index has none.
_CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Runner:
    """How to run the consumer `name`. Without `requirements` it is the package of the running Python.

    `probe` is a script beside this module, `requirements` a file of pinned packages. With `on_host` the environment falls back to
    the running Python's packages: a pin that is installed there in the same version, such as torch, is not installed again.
    """

    name: str
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
        """The pins to install: all, or with `on_host` those that the running Python does not have in that version."""
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
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # otherwise each model gets a new process, which imports everything again
}

RUNNERS = {
    runner.name: runner
    for runner in (
        Runner("transformers-5", "probe_transformers.py"),
        Runner("transformers-4.57", "probe_transformers.py", "transformers-4.57.txt", on_host=True),
        Runner("vllm", "probe_vllm.py", "vllm.txt", on_host=True, environment=_VLLM_ENVIRONMENT),
        Runner("llama.cpp", "probe_llama_cpp.py", "llama.cpp.txt", on_host=True),
    )
}
"""By consumer id. The pins are of the versions that `data_schemas.consumers.CONSUMERS` states as `run`."""


def runner_named(name: str) -> Runner:
    """The runner of a consumer id, today's or an old one; UserError for a name that cannot be run."""
    name = current_id(name)
    if name not in RUNNERS:
        raise UserError(f"{name!r} is not a consumer that can be run: choose among {', '.join(RUNNERS)}.")
    return RUNNERS[name]


def default_home() -> Path:
    """`consumers` below the cache folder."""
    return cache_folder() / "consumers"


def environment_for(runner: Runner, home: Path | None = None, progress: ProgressCallback = lambda _: None) -> Path:
    """The Python with the consumer's packages; installed below `home` the first time, by one process at a time.

    Raises UserError with the last line of the installer's log if the installation fails; the next call tries again.
    """
    if runner.requirements is None:
        return Path(sys.executable)
    home = (home or default_home()).absolute()  # the probe runs in a folder of its own
    shared = [sys.prefix, *runner.to_install()] if runner.on_host else []
    made_of = [*runner.pinned, platform.python_version(), *shared]
    digest = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:12]
    folder = home / f"{runner.name}-{digest}"
    python = folder / "bin" / "python"
    home.mkdir(parents=True, exist_ok=True)
    with (home / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _MARKER).is_file():
            shutil.rmtree(folder, ignore_errors=True)  # left by an interrupted installation
            progress(message(f"installing {runner.name} into {folder}"))
            _install(runner, folder, python, home / f"{folder.name}.log")
            (folder / _MARKER).write_text("\n".join(runner.pinned) + "\n", encoding="utf-8")
    return python


def _install(runner: Runner, folder: Path, python: Path, log: Path) -> None:
    with log.open("w", encoding="utf-8") as output:
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], runner, output, log)
        wanted = runner.to_install()
        if not _installed_by_uv(python, wanted, output):
            # The running pip installs into the new environment, which needs none of its own.
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-compile", "--no-input"]
            torch = [line for line in wanted if line.startswith("torch==")]
            if torch and _quietly([*pip, *torch], output):
                _run([*pip, "--extra-index-url", _CPU_TORCH_INDEX, *torch], runner, output, log)
            _run([*pip, "--disable-pip-version-check", *(line for line in wanted if line not in torch)], runner, output, log)
    if runner.on_host:
        # A .pth file appends to the path, so the packages of the environment itself come first.
        host = f"{sysconfig.get_path('platlib')}\n"
        next(folder.glob("lib/python*/site-packages")).joinpath("host.pth").write_text(host, encoding="utf-8")


def _installed_by_uv(python: Path, wanted: Sequence[str], output: Any) -> bool:
    """Whether uv is here and installed it, in a third of pip's time. Otherwise pip tries, which knows the user's own indexes."""
    found = Path(sys.executable).with_name("uv")
    uv = str(found) if found.is_file() else shutil.which("uv")
    return uv is not None and not _quietly([uv, "pip", "install", "--python", str(python), "--no-deps", *wanted], output)


def _quietly(command: Sequence[str], output: Any) -> int:
    return subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, timeout=_INSTALL_TIMEOUT_S).returncode


def _run(command: Sequence[str], runner: Runner, output: Any, log: Path) -> None:
    try:
        code = _quietly(command, output)
        reason = _last_line(log)
    except (OSError, subprocess.TimeoutExpired) as error:
        code, reason = 1, str(error)
    if code:
        raise UserError(
            f"{runner.name} cannot be installed ({reason}): connect to a package index, or leave it out; the log is {log}."
        )


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:300].rstrip(".") if lines else "no output"


def ask(
    runner: Runner, python: Path, models: Sequence[Mapping[str, Any]], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The probe's response to `models` (directory, prompts; see probe_transformers.py), from a process without network.

    Raises UserError with the last line of the process's output if it does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="ropeway-probe-") as scratch:
        request, response, log = (Path(scratch) / name for name in ("request.json", "response.json", "log"))
        request.write_text(json.dumps({"models": list(models)}), encoding="utf-8")
        # -P: the modules beside the script must not stand in for packages of the same name, such as gguf.
        command = [str(python), "-P", str(_HERE / runner.probe), str(request), str(response)]
        try:
            with log.open("w") as output:
                subprocess.run(
                    command,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=_PROBE_TIMEOUT_S,
                    cwd=scratch,
                    env=_clean_environment() | dict(runner.environment) | dict(environment or {}),
                )
            answer: dict[str, Any] = json.loads(response.read_text(encoding="utf-8"))
            failed = [model for model in answer["models"] if isinstance(model, dict) and "error" in model]
            if len(models) == 1 and failed and (cause := _first_error(log)):
                failed[0]["error"] = cause
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            said = _last_line(log) if log.is_file() else str(error)
            raise UserError(
                f"{runner.name} did not answer ({said}): run {python} -P {_HERE / runner.probe} by hand to see why."
            ) from error
    return answer


def _first_error(log: Path) -> str:
    """The first exception in a server's log: the error that ended its processes, which the probe itself does not see."""
    found = re.search(r"\b\w*(?:Error|Exception): \S.*", log.read_text(encoding="utf-8", errors="replace"))
    return found.group()[:300] if found else ""


def _clean_environment() -> dict[str, str]:
    """This process's environment variables, offline, without those that would make the consumer import this Python's modules."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return kept | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
