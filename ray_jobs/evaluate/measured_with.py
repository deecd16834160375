"""What an evaluation was measured with, as its report names it."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from data_schemas.params import PipelineParams
from data_schemas.report_origin import MeasuredWith

NUMBERS = "float32"  # in which `ArmModel.load` loads every arm
_PACKAGES = ("ropeway", "torch", "transformers")


def measured_with(params: PipelineParams) -> MeasuredWith:
    """Of these parameters, on this machine, today. Folders are reduced to their names."""
    from tasks.model.extended import rope_plan_for

    model = params.model
    return MeasuredWith(
        base=_base_name(model.base),
        base_revision=model.revision,
        method=rope_plan_for(model).method,
        corpus=tuple(dict.fromkeys(source.label for source in params.corpus.sources)),
        date=datetime.now(UTC).date().isoformat(),
        numbers=f"{NUMBERS}, weights from {Path(model.gguf_file).name}" if model.gguf_file else NUMBERS,
        device=_device(params.ray.use_gpu),
        versions=_versions(),
    )


def _base_name(base: str) -> str:
    """A hub id as it is; a folder's name without its place."""
    if base == "demo":
        return "ropeway-demo-base"
    return base if not Path(base).expanduser().exists() and base.count("/") == 1 else Path(base).name


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a copy that is not installed
            continue
    return found


def _device(use_gpu: bool) -> str:
    """The GPU's name where this process sees one; workers may run on other machines."""
    if not use_gpu:
        return "CPU"
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "GPU"
