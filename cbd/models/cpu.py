"""What a CPU needs to be fast with wide models: the faster library for products, and memory that is kept."""

import ctypes
import platform
from functools import cache
from pathlib import Path

import torch

WIDE = 256  # from this width on oneDNN is the faster one in every family; GPT-2's narrow layers are MKL's
EXACT = 1e-5  # an error beside the result's size; fp32 has 4e-7, products of bf16 numbers 3e-3

# of malloc.h
_TRIM_THRESHOLD, _MMAP_MAX, _NEVER = -1, -4, 2**31 - 1


def suit(width: int) -> bool:
    """Make this process fast for models of that width; numbers change by fp32's rounding at most.

    Returns whether oneDNN multiplies. torch multiplies in fp32 by MKL, which leaves an AMD processor's
    AVX-512 unused: half of its speed. There is no switch for the other library but the leave to round inputs
    to bf16, of which oneDNN makes use only with a matrix unit (Intel's AMX).
    """
    wide = width >= WIDE
    if wide:
        keep_memory()
    chosen = wide and _faster_and_exact()
    torch.backends.mkldnn.matmul.fp32_precision = "bf16" if chosen else "none"
    return chosen


@cache
def keep_memory() -> bool:
    """Keep freed memory in the process, where glibc would give large blocks back. Returns whether it does.

    Every step asks for the same blocks again, and the kernel clears each page before it hands it out: a fifth
    of a step's time.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))


@cache
def _faster_and_exact() -> bool:
    """Whether the processor is such, and the leave is not used."""
    if not _amd() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    numbers = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=numbers) for _ in range(2))
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    error = a @ b - a.double() @ b.double()
    torch.backends.mkldnn.matmul.fp32_precision = "none"
    return float(error.std() / 256**0.5) < EXACT


def _amd() -> bool:
    place = Path("/proc/cpuinfo")
    return place.exists() and "AuthenticAMD" in place.read_text()
