"""This machine's processors, memory and GPUs, found in milliseconds and without torch."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from data_schemas.errors import UserError

_CGROUPS = Path("/sys/fs/cgroup")
_MEMORY_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # version 2 and 1
_NAME_BYTES = 128
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_BF16_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # the last is Arm's
_BF16_CAPABILITY = (8, 0)
FP8_CAPABILITY = (8, 9)  # of the first GPUs with 8-bit floats


@dataclass(frozen=True)
class Gpu:
    """`capability`: CUDA's compute capability, None for an AMD GPU, which ROCm does not number so."""

    name: str
    num_bytes: int
    capability: tuple[int, int] | None

    @property
    def computes_bf16(self) -> bool:
        """Whether it has units for bfloat16."""
        return self.capability is None or self.capability >= _BF16_CAPABILITY

    @property
    def multiplies_fp8(self) -> bool:
        """Whether it has units for 8-bit floats."""
        return self.capability is None or self.capability >= FP8_CAPABILITY


def refuse_without_fp8(gpu: Gpu) -> None:
    """UserError if `gpu` has no units for 8-bit floats."""
    if gpu.capability is not None and not gpu.multiplies_fp8:
        found, needed = (".".join(map(str, capability)) for capability in (gpu.capability, FP8_CAPABILITY))
        raise UserError(
            f"training.base_precision fp8 needs a GPU with 8-bit units (compute capability {needed}), but {gpu.name} has {found}: choose "
            "int8, nf4 or full."
        )


def num_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory that this process may use: this machine's, or its container's where that has less."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_container_limits()])


def _container_limits() -> Iterator[int]:
    """Bytes by cgroup version 2 or 1; none where there is no limit, which version 2 writes as "max" and 1 as a huge number."""
    for file in _MEMORY_LIMITS:
        with suppress(OSError, ValueError):
            yield int((_CGROUPS / file).read_text())


@lru_cache(maxsize=1)
def cpu_computes_bf16() -> bool:
    """Whether the processor has instructions for bfloat16. Without them it was 19 times slower than float32 (measured on x86)."""
    return bool(_BF16_CPU_FLAGS & _cpu_flags())


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.partition(":")[2].split()}


def cpu_name() -> str:
    """The processor's model, or its architecture where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(named), "") or platform.machine()


@lru_cache(maxsize=1)
def gpus() -> tuple[Gpu, ...]:
    """The GPUs that CUDA or ROCm shows this process, in its order; CUDA_VISIBLE_DEVICES and HIP_VISIBLE_DEVICES apply."""
    return _cuda_gpus() or _rocm_gpus()


def _cuda_gpus() -> tuple[Gpu, ...]:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_cuda_gpu(driver, number) for number in range(count.value))


def _cuda_gpu(driver: ctypes.CDLL, number: int) -> Gpu:
    device, size = ctypes.c_int(0), ctypes.c_size_t(0)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return Gpu(name.value.decode(errors="replace"), size.value, (major.value, minor.value))


def _rocm_gpus() -> tuple[Gpu, ...]:
    try:
        runtime = ctypes.CDLL("libamdhip64.so")
    except OSError:
        return ()
    count = ctypes.c_int(0)
    if runtime.hipGetDeviceCount(ctypes.byref(count)) != 0:
        return ()
    found = []
    for number in range(count.value):
        name, size = ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t(0)
        runtime.hipDeviceGetName(name, _NAME_BYTES, number)
        runtime.hipDeviceTotalMem(ctypes.byref(size), number)
        found.append(Gpu(name.value.decode(errors="replace"), size.value, None))
    return tuple(found)
