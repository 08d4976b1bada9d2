"""The library of fp32 products: the choice changes the speed and nothing else."""

import pytest
import torch

from cbd.models import products
from cbd.models.forward import load


@pytest.fixture(autouse=True)
def _restored():
    yield
    products.choose(0)


@pytest.mark.parametrize("width", [16, 4096])
def test_products_stay_those_of_fp32(width):
    products.choose(width)
    torch.manual_seed(0)
    for m, k, n in ((64, 96, 80), (512, 256, 700), (3, 1024, 300)):
        a, b = torch.randn(m, k), torch.randn(k, n)
        expected = a.double() @ b.double()
        for found in (a @ b, torch.nn.functional.linear(a, b.T.contiguous()), (b.T @ a.T).T):
            assert (found - expected).std() < 1e-5 * expected.std(), "rounded inputs would be off by 3e-3"


def test_the_choice_follows_the_model_that_was_loaded_last(save_gpt2, monkeypatch):
    monkeypatch.setattr(products, "_faster_and_exact", lambda: True)
    monkeypatch.setattr(products, "WIDE", 32)
    chosen = []
    for width in (32, 16, 48):
        load(save_gpt2(width=width))
        chosen.append(torch.backends.mkldnn.matmul.fp32_precision)
    assert chosen == ["bf16", "none", "bf16"]


def test_a_processor_that_would_round_is_left_alone(monkeypatch):
    """As with Intel's AMX: the trial finds rounded inputs."""
    real = torch.randn
    monkeypatch.setattr(products, "_amd", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")

    class Rounding(torch.Tensor):
        def __matmul__(self, other):
            plain = [x.as_subclass(torch.Tensor) for x in (self, other)]
            if self.dtype == torch.float32:
                plain = [x.bfloat16().float() for x in plain]
            return plain[0] @ plain[1]

    monkeypatch.setattr(torch, "randn", lambda *a, **k: real(*a, **k).as_subclass(Rounding))
    assert not products._faster_and_exact.__wrapped__()
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"
