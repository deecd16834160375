"""What `training.precision: auto` means: bf16 where the training's device has instructions for it, else fp32."""

from __future__ import annotations

from typing import Literal

from data_schemas.devices import cpu_computes_bf16, gpus
from data_schemas.ray_params import RayParams

Precision = Literal["bf16", "fp32"]


def auto_precision(ray: RayParams) -> Precision:
    """By the device that `ray` trains on. A cluster's devices are not seen here: its GPUs compute bf16, its CPUs fp32."""
    if ray.use_gpu:
        here = gpus() if ray.address == "local" else ()
        return "bf16" if all(gpu.computes_bf16 for gpu in here) else "fp32"
    return "bf16" if ray.address == "local" and cpu_computes_bf16() else "fp32"
