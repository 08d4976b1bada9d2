"""One adapter a family: what each tensor reads and writes, and how a config names the sizes.

Trans knows no architecture. It sees tensors whose axes are counted in *units*: channels of the residual
stream, attention heads, feed-forward neurons, tokens, positions. A new family is a new `Family` here and
nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from cbd.errors import CbdError
from cbd.specs import ModelSpec

Unit = Literal["stream", "heads", "ffn", "vocab", "positions"]


@dataclass(frozen=True)
class Axis:
    """One axis of a tensor.

    reads: whether the tensor sums over the axis (its input), so that copied units must share what one unit
        gave.
    repeat: how many blocks of all units stand one after the other (3 for GPT-2's query, key and value).
    """

    unit: Unit
    reads: bool = False
    repeat: int = 1


@dataclass(frozen=True)
class Role:
    """What a tensor does.

    kind: "weight" (a matrix, an embedding or a bias), or a norm's "gain" or "shift".
    part: the half of a block whose output it belongs to, for measures of importance and for zeroed blocks.
    output: whether it adds to the residual stream from inside a block (zeroed, the block is the identity).
    feeds_head: a final norm, which a tied head makes responsible for the head's division under duplication.
    """

    name: str
    axes: tuple[Axis, ...]
    kind: Literal["weight", "gain", "shift"] = "weight"
    part: Literal["attention", "mlp", ""] = ""
    output: bool = False
    feeds_head: bool = False

    @property
    def per_layer(self) -> bool:
        return "{layer}" in self.name


@dataclass(frozen=True)
class Family:
    """An architecture: its roles, and the names of its sizes in the Hugging Face config."""

    name: str
    model_type: str
    roles: tuple[Role, ...]
    prefix: str  # stripped by checkpoints that were saved from the bare body, such as the hub's gpt2
    ignored: tuple[str, ...]  # buffers that old checkpoints hold
    head: Role  # absent when tied

    def tensors(self, spec: ModelSpec) -> Iterator[tuple[Role, int | None, str]]:
        """Each tensor of a model: role, block (or None) and name; the head where it is not tied."""
        for role in self.roles if spec.tied else (*self.roles, self.head):
            if role.per_layer:
                yield from ((role, layer, role.name.format(layer=layer)) for layer in range(spec.layers))
            else:
                yield role, None, role.name

    def spec(self, config: dict[str, Any]) -> ModelSpec:
        """The shape that a `config.json` describes. Raises `CbdError` for what Trans cannot keep."""
        if config.get("scale_attn_by_inverse_layer_idx"):
            raise CbdError(
                "scale_attn_by_inverse_layer_idx is set: attention then depends on a block's number, which "
                "Trans "
                "changes; use a checkpoint without it"
            )
        width = config["n_embd"]
        return ModelSpec(
            layers=config["n_layer"],
            width=width,
            heads=config["n_head"],
            ffn=config.get("n_inner") or 4 * width,
            vocab=config["vocab_size"],
            positions=config["n_positions"],
            family=self.name,
            tied=config.get("tie_word_embeddings", True),
        )

    def config(self, spec: ModelSpec, base: dict[str, Any] | None = None) -> dict[str, Any]:
        """A `config.json` for `spec`, all other entries from `base` (or our defaults for training here)."""
        defaults = {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": self.model_type,
            # the same function as GPT-2's "gelu_new", but one fused kernel: 20 % more tokens/s on a CPU
            "activation_function": "gelu_pytorch_tanh",
            "layer_norm_epsilon": 1e-5,
            "initializer_range": 0.02,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "tie_word_embeddings": spec.tied,
        }
        sizes = {
            "n_layer": spec.layers,
            "n_embd": spec.width,
            "n_head": spec.heads,
            "n_inner": None if spec.ffn == 4 * spec.width else spec.ffn,
            "vocab_size": spec.vocab,
            "n_positions": spec.positions,
        }
        return (defaults if base is None else base) | sizes

    def norm_epsilon(self, config: dict[str, Any]) -> float:
        return config.get("layer_norm_epsilon", 1e-5)  # transformers' own default

    def activation(self, config: dict[str, Any]) -> str:
        """The feed-forward's activation; two names of one function count as one."""
        name = config.get("activation_function", "gelu_new")
        return "gelu_new" if name in ("gelu_pytorch_tanh", "gelu_fast") else name

    def with_norm_epsilon(self, config: dict[str, Any], epsilon: float) -> dict[str, Any]:
        return config | {"layer_norm_epsilon": epsilon}


_READ = Axis("stream", reads=True)
_WRITE = Axis("stream")
_H = "transformer.h.{layer}."

GPT2 = Family(
    name="gpt2",
    model_type="gpt2",
    prefix="transformer.",
    ignored=(".attn.bias", ".attn.masked_bias"),
    head=Role("lm_head.weight", (Axis("vocab"), Axis("stream", reads=True))),
    roles=(
        Role("transformer.wte.weight", (Axis("vocab"), _WRITE)),
        Role("transformer.wpe.weight", (Axis("positions"), _WRITE)),
        Role(_H + "ln_1.weight", (_WRITE,), kind="gain"),
        Role(_H + "ln_1.bias", (_WRITE,), kind="shift"),
        Role(_H + "attn.c_attn.weight", (_READ, Axis("heads", repeat=3)), part="attention"),
        Role(_H + "attn.c_attn.bias", (Axis("heads", repeat=3),), part="attention"),
        Role(_H + "attn.c_proj.weight", (Axis("heads", reads=True), _WRITE), part="attention", output=True),
        Role(_H + "attn.c_proj.bias", (_WRITE,), part="attention", output=True),
        Role(_H + "ln_2.weight", (_WRITE,), kind="gain"),
        Role(_H + "ln_2.bias", (_WRITE,), kind="shift"),
        Role(_H + "mlp.c_fc.weight", (_READ, Axis("ffn")), part="mlp"),
        Role(_H + "mlp.c_fc.bias", (Axis("ffn"),), part="mlp"),
        Role(_H + "mlp.c_proj.weight", (Axis("ffn", reads=True), _WRITE), part="mlp", output=True),
        Role(_H + "mlp.c_proj.bias", (_WRITE,), part="mlp", output=True),
        Role("transformer.ln_f.weight", (_WRITE,), kind="gain", feeds_head=True),
        Role("transformer.ln_f.bias", (_WRITE,), kind="shift", feeds_head=True),
    ),
)

FAMILIES = {family.model_type: family for family in (GPT2,)}


def family_of(model_type: str) -> Family:
    """The adapter for a config's `model_type`. Raises `CbdError` for a family that has none."""
    if model_type not in FAMILIES:
        raise CbdError(
            f"model type {model_type!r} has no adapter; families known here: {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]
