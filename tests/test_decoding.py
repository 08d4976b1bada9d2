"""Fast writing on a CPU against transformers' and torch's own: attention, and what is drawn."""

import copy

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from cbd.models.decoding import AmongLikeliest, decoding, grouped_attention
from cbd.models.families import FAMILIES
from cbd.recipes.models import Sampling
from cbd.recipes.specs import gpt2, llama, pythia, qwen3


@pytest.mark.parametrize(("heads", "groups"), [(6, 2), (4, 4), (9, 3), (3, 1)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_attention_of_one_token_is_torch_own(heads, groups, masked, scaling):
    torch.manual_seed(heads)
    query = torch.randn(5, heads, 1, 8)
    key, value = (torch.randn(5, groups, 11, 8) for _ in range(2))
    mask = torch.rand(5, 1, 1, 11) > 0.4 if masked else None
    found, _ = grouped_attention(torch.nn.Module(), query, key, value, mask, scaling=scaling)
    asked = {"attn_mask": mask, "scale": scaling, "enable_gqa": True}
    expected = scaled_dot_product_attention(query, key, value, **asked).transpose(1, 2)
    assert torch.allclose(found, expected, atol=1e-6)


SHAPES = [
    gpt2(2, 32, vocab=90, positions=64, head_dim=16),
    pythia(2, 32, vocab=90, positions=64, head_dim=16),
    llama(2, 64, 4, 2, 96, vocab=90, positions=64),
    qwen3(2, 64, 4, 2, 96, vocab=90, positions=64, head_dim=24),
]


@pytest.mark.parametrize("spec", SHAPES, ids=lambda spec: spec.family)
def test_every_family_writes_what_it_wrote_before(spec):
    """Prompts of several lengths, padded on the left: a wrong mask would change the shorter ones."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(**FAMILIES[spec.family].config(spec))
    plain = AutoModelForCausalLM.from_config(config).eval()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.randint(1, 90, (3, 6))
    mask = torch.ones_like(ids)
    mask[1, :4] = mask[2, :1] = 0
    asked = {"attention_mask": mask, "max_new_tokens": 12, "pad_token_id": 0}
    asked |= {"do_sample": True, "output_logits": True, "return_dict_in_generate": True}
    found = []
    for model in (plain, decoding(copy.deepcopy(plain))):
        torch.manual_seed(1)
        written = model.generate(ids, **asked)
        found.append((written.sequences, torch.stack(written.logits)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.allclose(found[0][1], found[1][1], atol=1e-4)


KINDS = ({"top_k": 5}, {"top_k": 20, "top_p": 0.7}, {"top_k": 99, "temperature": 2.0})


@pytest.mark.parametrize("kind", KINDS)
def test_the_distribution_is_that_of_transformers(kind):
    torch.manual_seed(1)
    sampling, scores = Sampling(1, **kind), 2 * torch.randn(1, 30)
    warped = TemperatureLogitsWarper(sampling.temperature)(None, scores)
    warped = TopKLogitsWarper(sampling.top_k)(None, warped)
    if sampling.top_p < 1:
        warped = TopPLogitsWarper(sampling.top_p)(None, warped)
    expected, draws = warped.softmax(-1)[0], 40_000
    found = AmongLikeliest(sampling)(None, scores.expand(draws, -1))
    assert torch.equal(found.isfinite().sum(1), torch.ones(draws, dtype=torch.long))
    share = torch.bincount(found.argmax(1), minlength=30) / draws
    assert not share[expected == 0].any()
    assert ((share - expected).abs() < 5 * (expected * (1 - expected) / draws).sqrt() + 1e-9).all()
