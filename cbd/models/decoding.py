"""What makes a small model write fast on a CPU, where transformers' own steps cost more than the model's."""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, LogitsProcessor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from cbd.recipes.models import Sampling

GROUPED = "cbd_grouped"


def decoding(model: nn.Module) -> nn.Module:
    """The model, with attention that is fast for one new token at a time where it stands on a CPU."""
    if model.device.type == "cpu":
        model.set_attn_implementation(GROUPED)
    return model


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options,
) -> tuple[Tensor, None]:
    """Attention of one new token: the heads that share keys and values meet them as one product.

    query: (B, H, 1, D). key, value: (B, G, T, D), G groups of heads. attention_mask: bool, (B, 1, 1, T), or
    None. Returns (B, 1, H, D). torch's own kernel for it reads keys and values anew for every head, which for
    bf16 on a CPU takes up to twenty times as long. More new tokens than one are transformers' business.
    """
    if query.shape[2] != 1:
        passed = (module, query, key, value, attention_mask)
        return sdpa_attention_forward(*passed, scaling=scaling, **options)
    batch, heads, _, size = query.shape
    scale = size**-0.5 if scaling is None else scaling
    scores = query.reshape(batch, key.shape[1], -1, size) @ key.transpose(2, 3) * scale
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return (weights @ value).reshape(batch, 1, heads, -1), None


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, sdpa_mask)


class AmongLikeliest(LogitsProcessor):
    """Draws the next token among the `top_k` likeliest and leaves it alone possible.

    The distribution is transformers' own (temperature, top-k, top-p in this order), but its `multinomial`
    draws a number for every word of the vocabulary, which costs more than a small model's own step.
    """

    def __init__(self, sampling: Sampling):
        self.sampling = sampling

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores: (B, V) logits. Returns zero for one token of each row, minus infinity for all others."""
        values, tokens = scores.topk(min(self.sampling.top_k, scores.shape[-1]))
        likely = (values.float() / self.sampling.temperature).softmax(-1)
        before = likely.cumsum(-1) - likely  # sorted: what all likelier tokens have together
        likely = likely.masked_fill(before >= self.sampling.top_p, 0)
        drawn = tokens.gather(-1, torch.multinomial(likely, 1))
        return torch.full_like(scores, -torch.inf).scatter_(-1, drawn, 0)
