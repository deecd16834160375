"""`ropeway doctor`: whether this machine can run Ropeway, and what every `auto` would be here; a line each."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import sys
import tempfile
import textwrap
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from data_schemas.devices import Gpu, cpu_name, gpus, memory_bytes, num_cpus
from data_schemas.errors import UserError
from data_schemas.params import PipelineParams, RayParams
from data_schemas.precision import auto_precision
from data_schemas.quantities import data_size
from data_schemas.storage import Storage

_SPARE_BYTES = 10e9  # less free space than this is worth a warning: one checkpoint of a 1B model
_SPARE_MEMORY = 4e9  # Ray, Prefect and a small model
_HUB = "https://huggingface.co"
_HUB_ANSWERS_WITHIN_S = 5.0
_COLUMNS = 110


class Mark(Enum):
    """What a line means for a run."""

    OK = "✓"
    NOTE = "!"
    BROKEN = "✗"

    def shown(self, encoding: str) -> str:
        """The mark, or a letter where the terminal cannot show it."""
        try:
            self.value.encode(encoding)
        except (UnicodeEncodeError, LookupError):
            return {"OK": "+", "NOTE": "!", "BROKEN": "x"}[self.name]
        return self.value


@dataclass(frozen=True)
class Finding:
    """One line: `what` was looked at, and what was found."""

    mark: Mark
    what: str
    found: str


def show_findings(params: PipelineParams | None) -> bool:
    """Print a line for each thing that a run needs, with those of `params` if they are given. Returns whether nothing is broken."""
    encoding = sys.stdout.encoding or "ascii"
    are_fine = True
    for finding in findings(params):
        beginning = f"{finding.mark.shown(encoding)} {finding.what:<12}"
        text = textwrap.fill(
            beginning + finding.found, _COLUMNS, subsequent_indent=" " * len(beginning), break_on_hyphens=False
        )
        print(text.encode(encoding, "replace").decode(encoding), flush=True)
        are_fine &= finding.mark is not Mark.BROKEN
    return are_fine


def findings(params: PipelineParams | None) -> Iterator[Finding]:
    """The lines, each as soon as it is known."""
    ray = params.ray if params else RayParams(use_gpu=bool(gpus()))
    yield _machine()
    yield _gpus(ray)
    yield _precision(ray, params)
    yield _attention(ray, params)
    yield _loss(ray, params)
    yield _packages()
    yield from _disks(params)
    yield _ports()
    yield _hub(params)
    if params is not None:
        yield from _of_run(params)


def _machine() -> Finding:
    memory = memory_bytes()
    text = (
        f"{cpu_name()}, {num_cpus()} processors, {data_size(memory)} of memory, "
        f"Python {platform.python_version()} on {platform.system()}"
    )
    return Finding(Mark.OK if memory >= _SPARE_MEMORY else Mark.NOTE, "machine", text)


def _gpus(ray: RayParams) -> Finding:
    found = gpus()
    if not found:
        mark = Mark.BROKEN if ray.use_gpu and ray.address == "local" else Mark.OK
        return Finding(
            mark, "GPU", "none that CUDA or ROCm can use here; ray.use_gpu must stay off, or ray.address name a cluster"
        )
    names = ", ".join(f"{gpu.name} with {data_size(gpu.num_bytes)}" for gpu in found)
    if not _torch_sees(found):
        return Finding(
            Mark.BROKEN, "GPU", f"{names}, but the installed torch cannot use it: install a torch built for this driver"
        )
    return Finding(Mark.OK, "GPU", names + ("" if ray.use_gpu else "; set ray.use_gpu to train on it"))


def _torch_sees(found: tuple[Gpu, ...]) -> bool:
    import torch

    return torch.cuda.is_available() and torch.cuda.device_count() == len(found)


def _precision(ray: RayParams, params: PipelineParams | None) -> Finding:
    chosen = auto_precision(ray)
    device = "the GPU" if ray.use_gpu else "the processor"
    if ray.address == "local" and ray.use_gpu and not gpus():
        return Finding(
            Mark.NOTE, "precision", "training.precision auto is not known: ray.use_gpu is set, and no GPU is visible here"
        )
    if ray.address != "local":
        why = "a cluster's GPUs are taken to compute bf16, its processors fp32"
    else:
        why = f"{device} {'has' if chosen == 'bf16' else 'lacks'} instructions for bfloat16"
    if params and params.training.precision == "bf16" and chosen == "fp32":
        return Finding(Mark.NOTE, "precision", f"bf16 is set and slow here ({why}): auto is {chosen}")
    return Finding(Mark.OK, "precision", f"training.precision auto is {chosen}: {why}")


def _attention(ray: RayParams, params: PipelineParams | None) -> Finding:
    import torch

    from ray_jobs.finetune.executors import EXECUTORS, choose_name, obstacle

    half = (params.training.precision if params else auto_precision(ray)) == "bf16"
    tried = (torch.device(_device(ray)), torch.bfloat16 if half else torch.float32, 64)
    name = params.training.s2_executor if params else "auto"
    try:
        chosen = choose_name(name, *tried)
    except UserError as error:
        return Finding(Mark.BROKEN, "attention", str(error))
    passed = [f"not {one}: {why}" for one in EXECUTORS if (why := obstacle(one, *tried)) and one != chosen]
    return Finding(
        Mark.OK, "attention", f"training.s2_executor {name} is {chosen}" + (f" ({'; '.join(passed)})" if passed else "")
    )


def _loss(ray: RayParams, params: PipelineParams | None) -> Finding:
    import torch

    from ray_jobs.finetune.training.loss import choose_kernel

    name = params.training.loss_kernel if params else "auto"
    half = (params.training.precision if params else auto_precision(ray)) == "bf16"
    try:
        chosen = choose_kernel(name, True, torch.device(_device(ray)), torch.bfloat16 if half else torch.float32)
    except UserError as error:
        return Finding(Mark.BROKEN, "loss", str(error))
    eight_bit = "installed" if importlib.util.find_spec("bitsandbytes") else "not installed"
    return Finding(
        Mark.OK,
        "loss",
        f"training.loss_kernel {name} is {chosen}; bitsandbytes for adamw_8bit and base_precision is {eight_bit}",
    )


def _device(ray: RayParams) -> str:
    import torch

    return "cuda" if ray.use_gpu and torch.cuda.is_available() else "cpu"


def _packages() -> Finding:
    installed = ", ".join(f"{name} {_version(name)}" for name in ("torch", "transformers", "ray", "prefect"))
    extras = {"s3": "s3fs", "gcs": "gcsfs", "pdf": "pypdf", "docx": "mammoth", "warc": "warcio", "lm-eval": "lm_eval"}
    missing = [name for name, module in extras.items() if importlib.util.find_spec(module) is None]
    return Finding(Mark.OK, "packages", installed + (f"; extras not installed: {', '.join(missing)}" if missing else ""))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "is missing"


def _disks(params: PipelineParams | None) -> Iterator[Finding]:
    storage = Storage(params.storage if params else "ropeway-storage")
    places = {"storage": storage.root, "temporary": Path(tempfile.gettempdir())}
    free = {name: shutil.disk_usage(_existing(folder)).free for name, folder in places.items()}
    told = "; ".join(f"{data_size(free[name])} free for {name} files in {folder}" for name, folder in places.items())
    if storage.remote:
        told += f"; the storage itself is {storage.remote.uri}"
    if not os.access(_existing(storage.root), os.W_OK):
        yield Finding(Mark.BROKEN, "disk", f"{storage.root} cannot be written: change its permissions, or set another storage")
    else:
        yield Finding(Mark.OK if min(free.values()) >= _SPARE_BYTES else Mark.NOTE, "disk", told)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _ports() -> Finding:
    """Prefect's server and Ray listen on free ports of the loopback interface."""
    if url := os.environ.get("PREFECT_API_URL"):
        problem = _unreachable(f"{url.rstrip('/')}/health")
        if problem:
            return Finding(
                Mark.BROKEN,
                "ports",
                f"the Prefect server at PREFECT_API_URL {url} does not answer ({problem}): start it",
            )
        return Finding(Mark.OK, "ports", f"the Prefect server at {url} answers")
    try:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
    except OSError as error:
        return Finding(Mark.BROKEN, "ports", f"nothing can listen on 127.0.0.1 ({error.strerror}), which Ray and Prefect need")
    return Finding(
        Mark.OK, "ports", "Ray and Prefect's temporary server find free ports on 127.0.0.1; PREFECT_API_URL is not set"
    )


def _hub(params: PipelineParams | None) -> Finding:
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return Finding(Mark.NOTE, "hub", "HF_HUB_OFFLINE is set: only folders and what was downloaded before")
    endpoint = os.environ.get("HF_ENDPOINT") or _HUB
    if problem := _unreachable(endpoint):
        return Finding(Mark.NOTE, "hub", f"{endpoint} does not answer ({problem}): only folders and what was downloaded before")
    from huggingface_hub import get_token

    token = "with a token" if get_token() else "without a token: set HF_TOKEN for private and gated models"
    return Finding(Mark.OK, "hub", f"{endpoint} answers, {token}")


def _unreachable(url: str) -> str:
    """Why the address does not answer; "" if it does, whatever it answers."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="GET"), timeout=_HUB_ANSWERS_WITHIN_S).close()
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))[:80]
    return ""


def _of_run(params: PipelineParams) -> Iterator[Finding]:
    from flows.check_inputs import check_inputs

    yield _model(params)
    problem = _refusal(lambda: check_inputs(params))
    yield Finding(
        Mark.BROKEN if problem else Mark.OK, "run", problem or f"{params.run_name} can start: every check before a run passes"
    )


def _model(params: PipelineParams) -> Finding:
    from ray_jobs.finetune.full_layers import auto_count, num_kv_heads_of
    from ray_jobs.finetune.grouped_layers import base_layers_in_groups
    from tasks.model.base_model import load_config
    from tasks.model.extended import rope_plan_for
    from tasks.rope_search.plans import with_stand_in

    try:
        plan, config = rope_plan_for(with_stand_in(params).model), load_config(params.model).get_text_config()
    except UserError as error:
        return Finding(Mark.BROKEN, "model", str(error))
    text = f"{params.model.base}, {plan.base_window} -> {plan.target_length} tokens; "
    is_what = "longrope, whose factors are searched first" if params.searches_rope else plan.method
    text += f"model.rope_method {params.model.rope_method} is {is_what}"
    if params.training.probes_layers or params.training.probes_heads:
        layers = len(base_layers_in_groups(params))
        which = "" if layers == config.num_hidden_layers else " that can be in groups"
        if params.training.probes_layers:
            text += f"; training.full_attention_layers auto is {auto_count(layers)} of {layers} layers{which}"
        else:
            heads = layers * num_kv_heads_of(config)
            text += f"; training.full_attention_heads auto is {auto_count(heads)} of {heads} key-value heads{which}"
    return Finding(Mark.OK, "model", text)


def _refusal(check: Callable[[], Any]) -> str:
    try:
        check()
    except UserError as error:
        return str(error)
    return ""
