"""What makes a CPU fast changes the speed and nothing else."""

import platform
import subprocess
import sys

import pytest
import torch

from cbd.models import cpu
from cbd.models.forward import load


@pytest.fixture(autouse=True)
def _restored():
    yield
    cpu.suit(0)


@pytest.mark.parametrize("width", [16, 4096])
def test_products_stay_those_of_fp32(width):
    cpu.suit(width)
    torch.manual_seed(0)
    for m, k, n in ((64, 96, 80), (512, 256, 700), (3, 1024, 300)):
        a, b = torch.randn(m, k), torch.randn(k, n)
        expected = a.double() @ b.double()
        for found in (a @ b, torch.nn.functional.linear(a, b.T.contiguous()), (b.T @ a.T).T):
            assert (found - expected).std() < 1e-5 * expected.std(), "rounded inputs would be off by 3e-3"


def test_the_choice_follows_the_model_that_was_loaded_last(save_gpt2, monkeypatch):
    monkeypatch.setattr(cpu, "_faster_and_exact", lambda: True)
    monkeypatch.setattr(cpu, "WIDE", 32)
    chosen = []
    for width in (32, 16, 48):
        load(save_gpt2(width=width))
        chosen.append(torch.backends.mkldnn.matmul.fp32_precision)
    assert chosen == ["bf16", "none", "bf16"]


def test_a_processor_that_would_round_is_left_alone(monkeypatch):
    """As with Intel's AMX: the trial finds rounded inputs."""
    real = torch.randn
    monkeypatch.setattr(cpu, "_amd", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")

    class Rounding(torch.Tensor):
        def __matmul__(self, other):
            plain = [x.as_subclass(torch.Tensor) for x in (self, other)]
            if self.dtype == torch.float32:
                plain = [x.bfloat16().float() for x in plain]
            return plain[0] @ plain[1]

    monkeypatch.setattr(torch, "randn", lambda *a, **k: real(*a, **k).as_subclass(Rounding))
    assert not cpu._faster_and_exact.__wrapped__()
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_memory_that_was_freed_is_taken_again_without_the_kernel():
    """In a process of its own, which has touched no memory before."""
    code = """
import resource, torch
from cbd.models import cpu
def faults(times=3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(40 << 20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = faults()
assert cpu.keep_memory()
faults(20)
print(given_back, faults())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert kept < 10 and given_back > 100 * (kept + 1)
