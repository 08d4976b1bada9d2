"""Sizes of models in closed form: parameters and FLOPs, without torch.

The named sizes are those of Chain-based Distillation (arXiv 2605.07783), section "Sizes" of our notes:
GPT-2's published shapes and the targets that the paper's parameter counts imply.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cbd.errors import CbdError


@dataclass(frozen=True)
class ModelSpec:
    """The shape of a decoder-only transformer.

    `heads * head_dim` equals `width` in the GPT-2 family, and `head_dim` never changes under Trans.
    """

    layers: int
    width: int
    heads: int
    ffn: int
    vocab: int
    positions: int
    family: str = "gpt2"
    tied: bool = True

    def __post_init__(self) -> None:
        if min(self.layers, self.width, self.heads, self.ffn, self.vocab, self.positions) < 1:
            raise CbdError(f"{self.family} {self.layers}x{self.width}: every size must be at least 1")
        if self.width % self.heads:
            raise CbdError(
                f"width {self.width} is not divisible by {self.heads} heads; choose another --heads"
            )

    @property
    def name(self) -> str:
        """Layers x width, the field's short name for a shape."""
        return f"{self.layers}x{self.width}"

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def layer_parameters(self) -> int:
        """Parameters of one block: attention, feed-forward, two LayerNorms, all with biases."""
        d, f = self.width, self.ffn
        return (4 * d * d + 4 * d) + (2 * d * f + f + d) + 4 * d

    @property
    def parameters(self) -> int:
        """All parameters, a tied head counted once (equal to the Hugging Face model's count)."""
        head = 0 if self.tied else self.vocab * self.width
        return (
            (self.vocab + self.positions) * self.width
            + self.layers * self.layer_parameters
            + 2 * self.width
            + head
        )

    def forward_flops(self, context: int) -> int:
        """Floating-point operations of one token's forward pass at `context` tokens (2 per multiply-add).

        Matrices only: projections, the head, and attention over the mean of (context + 1) / 2 visible
            positions.
        """
        d, f = self.width, self.ffn
        matrices = self.layers * (4 * d * d + 2 * d * f) + self.vocab * d
        attention = (
            self.layers * d * (context + 1)
        )  # scores and values: 2 products over (context + 1) / 2 positions
        return 2 * (matrices + attention)

    def training_flops(self, context: int) -> int:
        """Forward plus backward of one token: three times the forward."""
        return 3 * self.forward_flops(context)

    def resized(self, layers: int, width: int) -> ModelSpec:
        """The same family, vocabulary and head dimension at another depth and width.

        The feed-forward width keeps its ratio to the width. Raises `CbdError` when the head dimension does
        not divide the width.
        """
        if width % self.head_dim:
            raise CbdError(
                f"width {width} is not a multiple of the head dimension {self.head_dim}, which Trans keeps; "
                f"the nearest are {width // self.head_dim * self.head_dim} and "
                f"{-(-width // self.head_dim) * self.head_dim}"
            )
        if width * self.ffn % self.width:
            raise CbdError(
                f"feed-forward ratio {self.ffn}/{self.width} gives no whole number at width {width}"
            )
        return replace(
            self, layers=layers, width=width, heads=width // self.head_dim, ffn=width * self.ffn // self.width
        )


def gpt2(
    layers: int, width: int, *, head_dim: int = 64, vocab: int = 50257, positions: int = 1024
) -> ModelSpec:
    """A GPT-2 shape: feed-forward of 4 x width, tied head."""
    if width % head_dim:
        raise CbdError(f"width {width} is not a multiple of the head dimension {head_dim}")
    return ModelSpec(layers, width, width // head_dim, 4 * width, vocab, positions)


GPT2_B = gpt2(12, 768)
GPT2_M = gpt2(24, 1024)
GPT2_L = gpt2(36, 1280)
GPT2_XL = gpt2(48, 1600)
SLM_51M = gpt2(8, 512)
SLM_138M = gpt2(14, 768)
SLM_380M = gpt2(26, 1024)
SLM_537M = gpt2(24, 1280)

NAMED = {
    "GPT2-B": GPT2_B,
    "GPT2-M": GPT2_M,
    "GPT2-L": GPT2_L,
    "GPT2-XL": GPT2_XL,
    "SLM-51M": SLM_51M,
    "SLM-138M": SLM_138M,
    "SLM-380M": SLM_380M,
    "SLM-537M": SLM_537M,
}
