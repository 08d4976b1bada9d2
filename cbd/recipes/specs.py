"""Sizes of models in closed form: parameters and FLOPs, without torch.

The named sizes are published shapes of the families that Chain-based Distillation (arXiv 2605.07783) and its
reviewers name, and the targets that the paper's parameter counts imply.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from cbd.errors import CbdError, require


@dataclass(frozen=True)
class Traits:
    """What tells one architecture's parameter count from another's.

    learned_positions: a table of position embeddings (otherwise rotary). biases: of every projection; norms
    then have a bias, too. gated: the feed-forward has a gate beside its input projection. query_key_norm: a
    norm over the head dimension of queries and of keys. grouped: several query heads may share one key-value
    head. free_heads: heads x head dimension need not be the width; undivided: nor need the heads divide it.
    post_norms: a norm after attention and after feed-forward, too.
    """

    learned_positions: bool = False
    biases: bool = False
    gated: bool = False
    query_key_norm: bool = False
    grouped: bool = False
    free_heads: bool = False
    undivided: bool = False
    post_norms: bool = False


ABOUT = 1.15  # a shape within this ratio has "about" so many parameters
TRAITS = {
    "gpt2": Traits(learned_positions=True, biases=True),
    "gpt_neox": Traits(biases=True),
    "llama": Traits(gated=True, grouped=True, free_heads=True),
    "qwen3": Traits(gated=True, grouped=True, free_heads=True, undivided=True, query_key_norm=True),
}
FOREIGN = {"gemma3_text": replace(TRAITS["qwen3"], post_norms=True)}
"""Families whose models write and are read, and that Trans does not know: Gemma's blocks differ by their
place, and its norms multiply by one plus a gain."""


@dataclass(frozen=True)
class ModelSpec:
    """The shape of a decoder-only transformer.

    kv_heads: key-value heads, each shared by a group of query heads; None: one for each.
    head_size: channels of a head where they are not width / heads. Trans never changes it.
    """

    layers: int
    width: int
    heads: int
    ffn: int
    vocab: int
    positions: int
    family: str = "gpt2"
    tied: bool = True
    kv_heads: int | None = None
    head_size: int | None = None

    def __post_init__(self) -> None:
        sizes = self.layers, self.width, self.heads, self.ffn, self.vocab, self.positions, self.kv
        require(min(sizes) >= 1, f"{self.family} {self.name}: every size must be at least 1")
        known = self.family in TRAITS or self.family in FOREIGN
        require(known, f"no family {self.family!r}; choose one of {', '.join(TRAITS)}")
        width, heads, kv = self.width, self.heads, self.kv
        whole = width % heads == 0 or (self.head_size and self.traits.undivided)
        require(whole, f"width {width} is not divisible by {heads} heads; choose another --heads")
        groups = f"{heads} heads do not divide into groups for {kv} key-value heads"
        require(heads % kv == 0, f"{groups}; choose --heads as a multiple of --kv-heads")
        # one way to write each shape, so that equal shapes have equal keys
        if self.kv_heads == heads:
            object.__setattr__(self, "kv_heads", None)
        if self.head_size == width / heads:
            object.__setattr__(self, "head_size", None)
        single = self.kv_heads is None or self.traits.grouped
        require(single, f"{self.family} has no grouped attention: leave --kv-heads out")
        if self.head_size is not None:
            wrong = f"{heads} heads of {self.head_size} channels do not make width {width}, as {self.family}"
            require(self.traits.free_heads, f"{wrong} needs: choose {width / self.head_size:g} --heads")

    @property
    def traits(self) -> Traits:
        return TRAITS.get(self.family) or FOREIGN[self.family]

    @property
    def name(self) -> str:
        """Layers x width, the field's short name for a shape."""
        return f"{self.layers}x{self.width}"

    @property
    def kv(self) -> int:
        """Key-value heads."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def group(self) -> int:
        """Query heads that share a key-value head."""
        return self.heads // self.kv

    @property
    def head_dim(self) -> int:
        return self.width // self.heads if self.head_size is None else self.head_size

    @property
    def attention_matrix(self) -> int:
        """Weights of the four projections of a block's attention."""
        return 2 * self.width * self.head_dim * (self.heads + self.kv)

    @property
    def mlp_matrix(self) -> int:
        """Weights of the two or three projections of a block's feed-forward."""
        return (3 if self.traits.gated else 2) * self.width * self.ffn

    @property
    def layer_parameters(self) -> int:
        """Parameters of one block: attention, feed-forward and norms, with their biases."""
        d, f, traits = self.width, self.ffn, self.traits
        norms = (4 if traits.post_norms else 2) * d + (2 * self.head_dim if traits.query_key_norm else 0)
        biases = self.head_dim * (self.heads + 2 * self.kv) + d + f + d + 2 * d if traits.biases else 0
        return self.attention_matrix + self.mlp_matrix + norms + biases

    @property
    def parameters(self) -> int:
        """All parameters, a tied head counted once (equal to the Hugging Face model's count)."""
        rows = self.vocab * (1 if self.tied else 2) + (self.positions if self.traits.learned_positions else 0)
        norm = self.width * (2 if self.traits.biases else 1)
        return rows * self.width + self.layers * self.layer_parameters + norm

    def forward_flops(self, context: int) -> int:
        """Floating-point operations of one token's forward pass at `context` tokens (2 per multiply-add).

        Matrices only: projections, head, and attention, which sees (context + 1) / 2 positions on average.
        """
        matrices = self.layers * (self.attention_matrix + self.mlp_matrix) + self.vocab * self.width
        # scores and values: 2 products over (context + 1) / 2 positions
        attention = self.layers * self.heads * self.head_dim * (context + 1)
        return 2 * (matrices + attention)

    def training_flops(self, context: int) -> int:
        """Forward plus backward of one token: three times the forward."""
        return 3 * self.forward_flops(context)

    def resized(
        self,
        layers: int,
        width: int,
        heads: int | None = None,
        kv_heads: int | None = None,
        ffn: int | None = None,
    ) -> "ModelSpec":
        """The same family, vocabulary and head dimension at another depth and width.

        heads and ffn keep their ratio to the width, and kv_heads the size of a group, unless given. Raises
        `CbdError` when that would cut a head or a group, naming the nearest widths.
        """
        least = min(width, 1 if heads is None else heads)
        require(least >= 1, f"{self.family} {layers}x{width}: every size must be at least 1")
        heads = self._heads_at(width) if heads is None else heads
        groups = f"{heads} heads do not make whole groups of {self.group}, which Trans keeps"
        remedy = f"choose a multiple of {self.group} heads, or give --kv-heads"
        require(kv_heads is not None or heads % self.group == 0, f"{groups}: {remedy}")
        kv_heads = heads // self.group if kv_heads is None else kv_heads
        if ffn is None:
            ffn, rest = divmod(width * self.ffn, self.width)
            ratio = f"feed-forward ratio {self.ffn}/{self.width}"
            require(not rest, f"{ratio} gives no whole number at width {width}: give --ffn")
        changed = {"heads": heads, "ffn": ffn, "kv_heads": kv_heads, "head_size": self.head_dim}
        return replace(self, layers=layers, width=width, **changed)

    def nearest(
        self, parameters: int, smallest: "ModelSpec | None" = None, largest: "ModelSpec | None" = None
    ) -> "ModelSpec":
        """The shape of about that many parameters which is nearest to this one's ratio of depth to width.

        Counts within 2 % of what is asked are equally good: the ratio decides among them. smallest,
        largest: shapes that enclose the answer on both axes (this one is the largest unless given). Raises
        `CbdError` when nothing in between comes within 15 %.
        """
        top = largest or self
        low = (smallest.layers, smallest.width) if smallest else (1, 1)
        unit = self.width // math.gcd(self.width, self.kv)
        widths = range(-(-low[1] // unit) * unit, top.width + 1, unit)
        widths = [w for w in widths if not w * self.ffn % self.width]
        shapes = [self.resized(n, w) for w in widths for n in range(low[0], top.layers + 1)]
        off = {shape: abs(math.log(shape.parameters / parameters)) for shape in shapes}
        best = min(off.values(), default=math.inf)
        ends = f"{smallest.name if smallest else 'nothing'} and {top.name}"
        what = f"no shape between {ends} has about {parameters:,} parameters"
        require(best <= math.log(ABOUT), f"{what}; give layers and width")
        ratio = lambda s: abs(math.log(s.layers / s.width * self.width / self.layers))  # noqa: E731
        near = [s for s in shapes if off[s] <= max(best, math.log(1.02))]
        return min(near, key=lambda s: (ratio(s), off[s]))

    def _heads_at(self, width: int) -> int:
        heads, rest = divmod(width * self.heads, self.width)
        if not rest and heads % self.group == 0:
            return heads
        unit = self.width // math.gcd(self.width, self.kv)  # the least width of whole groups
        what = f"the head dimension {self.head_dim}" if unit == self.head_dim else f"{unit} (groups of heads)"
        near = f"the nearest are {width // unit * unit} and {-(-width // unit) * unit}"
        more = ", or give --heads" if self.traits.free_heads else ""
        raise CbdError(f"width {width} is not a multiple of {what}, which Trans keeps; {near}{more}")


def gpt2(
    layers: int, width: int, *, head_dim: int = 64, vocab: int = 50257, positions: int = 1024, **kind: Any
) -> ModelSpec:
    """A GPT-2 shape: feed-forward of 4 x width, tied head. kind: `ModelSpec`'s family and tied."""
    require(width % head_dim == 0, f"width {width} is not a multiple of the head dimension {head_dim}")
    return ModelSpec(layers, width, width // head_dim, 4 * width, vocab, positions, **kind)


def pythia(layers: int, width: int, *, vocab: int = 50304, positions: int = 2048, **sizes: int) -> ModelSpec:
    """A GPT-NeoX shape as Pythia's (arXiv 2304.01373): feed-forward of 4 x width, untied head."""
    return gpt2(layers, width, vocab=vocab, positions=positions, family="gpt_neox", tied=False, **sizes)


def llama(layers: int, width: int, heads: int, kv_heads: int, ffn: int, **sizes: int) -> ModelSpec:
    """A Llama shape; SmolLM2's and Llama 3's are of this family. sizes: vocab, positions, perhaps tied."""
    return ModelSpec(layers, width, heads, ffn, kv_heads=kv_heads, family="llama", **sizes)


def qwen3(
    layers: int, width: int, heads: int, kv_heads: int, ffn: int, *, head_dim: int = 128, **sizes: int
) -> ModelSpec:
    """A Qwen3 shape (arXiv 2505.09388): its head dimension does not follow the width."""
    sizes = {"vocab": 151936, "positions": 40960} | sizes
    kind = {"family": "qwen3", "kv_heads": kv_heads, "head_size": head_dim}
    return ModelSpec(layers, width, heads, ffn, **kind, **sizes)


NAMED = {
    "GPT2-B": gpt2(12, 768),
    "GPT2-M": gpt2(24, 1024),
    "GPT2-L": gpt2(36, 1280),
    "GPT2-XL": gpt2(48, 1600),
    "SLM-51M": gpt2(8, 512),
    "SLM-138M": gpt2(14, 768),
    "SLM-220M": gpt2(18, 896),  # the one shape between GPT2-B and GPT2-M with the paper's 220 M; derived here
    "SLM-380M": gpt2(26, 1024),
    "SLM-537M": gpt2(24, 1280),
    "Pythia-70m": pythia(6, 512),
    "Pythia-160m": pythia(12, 768),
    "Pythia-410m": pythia(24, 1024),
    "Pythia-1b": pythia(16, 2048, head_dim=256),
    "SLM-134M": pythia(8, 768),
    "Qwen3-0.6B": qwen3(28, 1024, 16, 8, 3072),
    "Qwen3-1.7B": qwen3(28, 2048, 16, 8, 6144),
    "Qwen3-4B": qwen3(36, 2560, 32, 8, 9728),
    "Llama3-8B": llama(32, 4096, 32, 8, 14336, vocab=128256, positions=8192, tied=False),
    "SmolLM2-135M": llama(30, 576, 9, 3, 1536, vocab=49152, positions=8192),
    "SmolLM2-360M": llama(32, 960, 15, 5, 2560, vocab=49152, positions=8192),
}
"""Published shapes, and the paper's targets (SLM), by name."""
