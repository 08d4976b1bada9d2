"""One adapter a family: what each tensor reads and writes, and how a config names the sizes.

Trans knows no architecture. It sees tensors whose axes are counted in *units*: channels of the residual
stream, query heads, key-value heads, feed-forward neurons, tokens, positions, channels inside a head. A new
family is a new `Family` here, with its `Traits` in `cbd.recipes.specs`, and nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cbd.errors import CbdError
from cbd.recipes.specs import ModelSpec

Unit = Literal["stream", "heads", "kv", "ffn", "vocab", "positions", "head_dim"]


@dataclass(frozen=True)
class Axis:
    """One axis of a tensor.

    reads: whether the tensor sums over the axis (its input), so that copied units must share what one unit
        gave.
    repeat: how many blocks of all units stand one after the other (3 for GPT-2's query, key and value).
    inner: how many blocks stand inside each unit (3 for GPT-NeoX, where a head has its query, key and value).
    """

    unit: Unit
    reads: bool = False
    repeat: int = 1
    inner: int = 1

    def block(self, spec: ModelSpec) -> int:
        """Coordinates of one unit in a row."""
        return self.inner * (spec.head_dim if self.unit in ("heads", "kv") else 1)

    def units(self, spec: ModelSpec) -> int:
        """How many units the model has."""
        return spec.width if self.unit == "stream" else getattr(spec, self.unit)

    def size(self, spec: ModelSpec) -> int:
        """Length of the axis."""
        return self.units(spec) * self.block(spec) * self.repeat


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
    """An architecture: its roles, and the names of its sizes in the Hugging Face config.

    sizes: field of `ModelSpec` -> config entry. same: entries that decide what the weights mean and must be
    equal in two anchors, with the value that a config without the entry has. refused: entries that Trans
    cannot keep when they are set, with the reason. defaults: the config of a model that is made here.
    """

    name: str
    model_type: str
    roles: tuple[Role, ...]
    prefix: str  # stripped by checkpoints that were saved from the bare body, such as the hub's gpt2
    head: Role  # absent when tied
    sizes: Mapping[str, str]
    epsilon: tuple[str, float]  # config entry, and transformers' own default for it
    activation_entry: tuple[str, str]
    defaults: Mapping[str, Any]
    norm: Literal["layer", "rms"] = "layer"
    tied: bool = False  # what a config without `tie_word_embeddings` means
    same: Mapping[str, Any] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()  # buffers that old checkpoints hold

    def tensors(self, spec: ModelSpec) -> Iterator[tuple[Role, int | None, str]]:
        """Each tensor of a model: role, block (or None) and name; the head where it is not tied."""
        for role in self.roles if spec.tied else (*self.roles, self.head):
            if role.per_layer:
                yield from ((role, layer, role.name.format(layer=layer)) for layer in range(spec.layers))
            else:
                yield role, None, role.name

    def parameter(self, name: str) -> str:
        """What the loaded model calls a tensor of the file."""
        return "lm_head.weight" if name == self.head.name else name

    def canonical(self, name: str) -> str:
        """The full name of a tensor in a file, which may come from the bare body."""
        if name in (self.head.name, "lm_head.weight"):
            return self.head.name
        return name if name.startswith(self.prefix) else self.prefix + name

    def spec(self, config: Mapping[str, Any]) -> ModelSpec:
        """The shape that a `config.json` describes.

        Raises `CbdError` for what Trans cannot keep, and `KeyError` for a size that is missing.
        """
        for entry, reason in self.refused.items():
            if config.get(entry):
                raise CbdError(f"{entry} is set: {reason}; use a checkpoint without it")
        optional = ("ffn", "kv_heads", "head_size")
        found = {
            size: config.get(entry) if size in optional else config[entry]
            for size, entry in self.sizes.items()
        }
        found["ffn"] = found["ffn"] or 4 * found["width"]
        return ModelSpec(**found, family=self.name, tied=bool(config.get("tie_word_embeddings", self.tied)))

    def config(self, spec: ModelSpec, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A `config.json` for `spec`, all other entries from `base` (or our defaults for training here)."""
        values = {"kv_heads": spec.kv, "head_size": spec.head_dim}
        sizes = {entry: values.get(size, getattr(spec, size)) for size, entry in self.sizes.items()}
        if sizes.get("n_inner") == 4 * spec.width:
            sizes["n_inner"] = None  # as published configs have it
        fixed = {"model_type": self.model_type, "tie_word_embeddings": spec.tied}
        rest = self.defaults | fixed if base is None else dict(base)
        for per_layer in ("layer_types", "max_window_layers"):  # lists of one depth; all alike here
            rest.pop(per_layer, None)
        return rest | sizes

    def differences(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
        """Where two configs of equal shapes mean different functions: "entry (value and value)"."""
        pairs = {
            name: (config_value(one, name, v), config_value(other, name, v)) for name, v in self.same.items()
        }
        pairs["activation function"] = self.activation(one), self.activation(other)
        return [f"{name} ({a} and {b})" for name, (a, b) in pairs.items() if a != b]

    def norm_epsilon(self, config: Mapping[str, Any]) -> float:
        return config.get(*self.epsilon)

    def activation(self, config: Mapping[str, Any]) -> str:
        """The feed-forward's activation; two names of one function count as one."""
        name = config.get(*self.activation_entry)
        return "gelu_new" if name in ("gelu_pytorch_tanh", "gelu_fast") else name

    def with_norm_epsilon(self, config: Mapping[str, Any], epsilon: float) -> dict[str, Any]:
        return dict(config) | {self.epsilon[0]: epsilon}


# what transformers before and after 5.0 call one thing
_OLD_NAMES = {"rope_theta": ("rotary_emb_base",), "partial_rotary_factor": ("rotary_pct",)}


def config_value(config: Mapping[str, Any], name: str, default: Any) -> Any:
    """An entry of a config, also where it stands under `rope_parameters` or has an old name."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    for place in (config, rope):
        for key in (name, *_OLD_NAMES.get(name, ())):
            if place.get(key) is not None:
                return place[key]
    return default


_READ = Axis("stream", reads=True)
_WRITE = Axis("stream")


def _linear(name: str, out: Axis, into: Axis, part: str, bias: bool = False) -> tuple[Role, ...]:
    """A torch linear layer's weight (out, in) and bias; what writes to the stream is its block's output."""
    output = out == _WRITE
    weight = Role(f"{name}.weight", (out, into), part=part, output=output)
    return (weight, Role(f"{name}.bias", (out,), part=part, output=output)) if bias else (weight,)


def _conv1d(name: str, into: Axis, out: Axis, part: str) -> tuple[Role, ...]:
    """GPT-2's transposed linear layer: a weight (in, out) and a bias."""
    output = out == _WRITE
    weight = Role(f"{name}.weight", (into, out), part=part, output=output)
    return weight, Role(f"{name}.bias", (out,), part=part, output=output)


def _layer_norm(name: str, final: bool = False) -> tuple[Role, ...]:
    return (
        Role(f"{name}.weight", (_WRITE,), kind="gain", feeds_head=final),
        Role(f"{name}.bias", (_WRITE,), kind="shift", feeds_head=final),
    )


def _rms_norm(name: str, final: bool = False) -> tuple[Role, ...]:
    return (Role(f"{name}.weight", (_WRITE,), kind="gain", feeds_head=final),)


def _head(name: str) -> Role:
    return Role(name, (Axis("vocab"), _READ))


_FFN, _FFN_READ = Axis("ffn"), Axis("ffn", reads=True)
_HEADS, _HEADS_READ, _KV = Axis("heads"), Axis("heads", reads=True), Axis("kv")
_H = "transformer.h.{layer}."
_X = "gpt_neox.layers.{layer}."
_L = "model.layers.{layer}."

GPT2 = Family(
    name="gpt2",
    model_type="gpt2",
    prefix="transformer.",
    ignored=(".attn.bias", ".attn.masked_bias"),
    tied=True,
    epsilon=("layer_norm_epsilon", 1e-5),
    activation_entry=("activation_function", "gelu_new"),
    same={"scale_attn_weights": True},
    refused={
        "scale_attn_by_inverse_layer_idx": "attention then depends on a block's number, which Trans changes"
    },
    sizes={
        "layers": "n_layer",
        "width": "n_embd",
        "heads": "n_head",
        "ffn": "n_inner",
        "vocab": "vocab_size",
        "positions": "n_positions",
    },
    defaults={
        "architectures": ["GPT2LMHeadModel"],
        # the same function as GPT-2's "gelu_new", but one fused kernel: 20 % more tokens/s on a CPU
        "activation_function": "gelu_pytorch_tanh",
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
    head=_head("lm_head.weight"),
    roles=(
        Role("transformer.wte.weight", (Axis("vocab"), _WRITE)),
        Role("transformer.wpe.weight", (Axis("positions"), _WRITE)),
        *_layer_norm(_H + "ln_1"),
        *_conv1d(_H + "attn.c_attn", _READ, Axis("heads", repeat=3), "attention"),
        *_conv1d(_H + "attn.c_proj", _HEADS_READ, _WRITE, "attention"),
        *_layer_norm(_H + "ln_2"),
        *_conv1d(_H + "mlp.c_fc", _READ, _FFN, "mlp"),
        *_conv1d(_H + "mlp.c_proj", _FFN_READ, _WRITE, "mlp"),
        *_layer_norm("transformer.ln_f", final=True),
    ),
)

_SIZES = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "vocab": "vocab_size",
    "positions": "max_position_embeddings",
}
_ROPE = {"rope_theta": 10000.0, "rope_type": "default"}

GPT_NEOX = Family(
    name="gpt_neox",
    model_type="gpt_neox",
    prefix="gpt_neox.",
    ignored=(".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"),
    epsilon=("layer_norm_eps", 1e-5),
    activation_entry=("hidden_act", "gelu"),
    same=_ROPE | {"partial_rotary_factor": 0.25, "use_parallel_residual": True},
    sizes=_SIZES,
    defaults={
        "architectures": ["GPTNeoXForCausalLM"],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "initializer_range": 0.02,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "use_parallel_residual": True,
        "rope_parameters": _ROPE | {"partial_rotary_factor": 0.25},
    },
    head=_head("embed_out.weight"),
    roles=(
        Role("gpt_neox.embed_in.weight", (Axis("vocab"), _WRITE)),
        *_layer_norm(_X + "input_layernorm"),
        *_linear(_X + "attention.query_key_value", Axis("heads", inner=3), _READ, "attention", bias=True),
        *_linear(_X + "attention.dense", _WRITE, _HEADS_READ, "attention", bias=True),
        *_layer_norm(_X + "post_attention_layernorm"),
        *_linear(_X + "mlp.dense_h_to_4h", _FFN, _READ, "mlp", bias=True),
        *_linear(_X + "mlp.dense_4h_to_h", _WRITE, _FFN_READ, "mlp", bias=True),
        *_layer_norm("gpt_neox.final_layer_norm", final=True),
    ),
)

_GATED_MLP = (
    *_linear(_L + "mlp.gate_proj", _FFN, _READ, "mlp"),
    *_linear(_L + "mlp.up_proj", _FFN, _READ, "mlp"),
    *_linear(_L + "mlp.down_proj", _WRITE, _FFN_READ, "mlp"),
)
_GROUPED_ATTENTION = (
    *_linear(_L + "self_attn.q_proj", _HEADS, _READ, "attention"),
    *_linear(_L + "self_attn.k_proj", _KV, _READ, "attention"),
    *_linear(_L + "self_attn.v_proj", _KV, _READ, "attention"),
    *_linear(_L + "self_attn.o_proj", _WRITE, _HEADS_READ, "attention"),
)

LLAMA = Family(
    name="llama",
    model_type="llama",
    prefix="model.",
    ignored=(".rotary_emb.inv_freq",),
    norm="rms",
    epsilon=("rms_norm_eps", 1e-6),
    activation_entry=("hidden_act", "silu"),
    same=_ROPE,
    refused={
        "attention_bias": "the adapter knows no biases",
        "mlp_bias": "the adapter knows no biases",
    },
    sizes=_SIZES | {"kv_heads": "num_key_value_heads", "head_size": "head_dim"},
    defaults={
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.02,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_parameters": dict(_ROPE),
    },
    head=_head("lm_head.weight"),
    roles=(
        Role("model.embed_tokens.weight", (Axis("vocab"), _WRITE)),
        *_rms_norm(_L + "input_layernorm"),
        *_GROUPED_ATTENTION,
        *_rms_norm(_L + "post_attention_layernorm"),
        *_GATED_MLP,
        *_rms_norm("model.norm", final=True),
    ),
)

QWEN3 = Family(
    name="qwen3",
    model_type="qwen3",
    prefix="model.",
    norm="rms",
    epsilon=("rms_norm_eps", 1e-6),
    activation_entry=("hidden_act", "silu"),
    same=_ROPE,
    refused={
        "attention_bias": "the adapter knows no biases",
        "use_sliding_window": "blocks then differ by their number, which Trans changes",
    },
    sizes=LLAMA.sizes,
    defaults=LLAMA.defaults | {"architectures": ["Qwen3ForCausalLM"], "rms_norm_eps": 1e-6},
    head=_head("lm_head.weight"),
    roles=(
        Role("model.embed_tokens.weight", (Axis("vocab"), _WRITE)),
        *_rms_norm(_L + "input_layernorm"),
        *_GROUPED_ATTENTION,
        # over the channels of one head, whose number never changes: no gain of the stream's norms
        Role(_L + "self_attn.q_norm.weight", (Axis("head_dim"),), part="attention"),
        Role(_L + "self_attn.k_norm.weight", (Axis("head_dim"),), part="attention"),
        *_rms_norm(_L + "post_attention_layernorm"),
        *_GATED_MLP,
        *_rms_norm("model.norm", final=True),
    ),
)

FAMILIES = {family.model_type: family for family in (GPT2, GPT_NEOX, LLAMA, QWEN3)}


def family_of(model_type: str) -> Family:
    """The adapter for a config's `model_type`. Raises `CbdError` for a family that has none."""
    if model_type not in FAMILIES:
        raise CbdError(
            f"model type {model_type!r} has no adapter; families known here: {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]
