"""The checks of the machine that a local run computes on: processors, GPUs and kernels. They load neither torch nor Ray."""

from __future__ import annotations

import importlib.util

from data_schemas.devices import gpus, num_cpus, refuse_without_fp8
from data_schemas.errors import UserError
from data_schemas.params import PipelineParams, RayParams, TrainingParams


def refuse_impossible_machine(params: PipelineParams) -> None:
    """UserError if this machine lacks the GPUs, processors or packages that a local run asks for. A cluster is not seen here."""
    if params.ray.address != "local":
        return
    _check_gpus(params.ray)
    _check_processors(params.ray)
    _check_kernels(params.training, params.ray.use_gpu)
    _check_quantisation(params.training, params.ray)


def _check_gpus(ray: RayParams) -> None:
    if not ray.use_gpu:
        return
    found, needed = len(gpus()), ray.min_workers or ray.num_workers
    if not found:
        raise UserError(
            "ray.use_gpu is set, but no GPU is visible on this machine: set ray.use_gpu to false, check the driver and "
            "CUDA_VISIBLE_DEVICES, or set ray.address to a cluster with GPUs."
        )
    if needed > found:
        raise UserError(
            f"{_workers(ray)} needs {needed} GPUs, but this machine has {found}: set it to at most {found}, or ray.address to a cluster."
        )


def _check_processors(ray: RayParams) -> None:
    found = num_cpus()
    needed = (ray.min_workers or ray.num_workers) * ray.cpus_per_worker
    if needed > found:
        raise UserError(
            f"{_workers(ray)} times ray.cpus_per_worker {ray.cpus_per_worker:g} needs {needed:g} processors, but this machine has "
            f"{found}: lower one of them, or set ray.address to a cluster."
        )


def _workers(ray: RayParams) -> str:
    return f"ray.min_workers {ray.min_workers}" if ray.min_workers else f"ray.num_workers {ray.num_workers}"


def _check_quantisation(training: TrainingParams, ray: RayParams) -> None:
    precision = training.base_precision
    if precision == "fp8" and not ray.use_gpu:
        raise UserError(
            "training.base_precision fp8 needs a GPU that multiplies 8-bit floats, but ray.use_gpu is off: set it, or choose full."
        )
    if precision == "fp8":
        unable = [gpu for gpu in gpus() if not gpu.multiplies_fp8]
        if unable and len(gpus()) - len(unable) < (ray.min_workers or ray.num_workers):
            refuse_without_fp8(unable[0])
    if precision in ("int8", "nf4") and importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"training.base_precision {precision} needs the package bitsandbytes, which is not installed: run pip install "
            "'ropeway[quantized]', or choose full."
        )


def _check_kernels(training: TrainingParams, use_gpu: bool) -> None:
    """What a parameter names must be installed and have a GPU; `auto` never needs either."""
    named = {
        ("training.s2_executor", training.s2_executor, "auto or sdpa"): {  # it computes full attention too
            "flash_attn": "flash_attn",
            "flash_attn_3": "flash_attn_interface",
            "torch_varlen": "torch",
        },
        ("training.loss_kernel", training.loss_kernel, "auto or chunked"): {"liger": "liger_kernel"},
        ("training.norm_kernel", training.norm_kernel, "torch"): {"liger": "liger_kernel"},
        ("training.optimizer", training.optimizer, "adamw"): {"adamw_8bit": "bitsandbytes"},
    }
    for (parameter, value, instead), packages in named.items():
        package = packages.get(value)
        if package is None:
            continue
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"{parameter} {value} needs the package {package}, which is not installed: install it, or choose {instead}."
            )
        if not use_gpu:
            raise UserError(f"{parameter} {value} needs a GPU, but ray.use_gpu is off: set it, or choose {instead}.")
