"""Families: what each tensor reads and writes, and how a config names the sizes, as data.

Trans knows no architecture. It sees tensors whose axes are counted in *units*: channels of the residual
stream, query heads, key-value heads, feed-forward neurons, tokens, positions, channels inside a head. A new
family is a file in adapters/, with its `Traits` in `cbd.recipes.specs`, and nothing elsewhere.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cbd.errors import require
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

    @property
    def norm(self) -> bool:
        """Whether it is the gain of a norm of the stream."""
        return self.kind == "gain" and self.axes[0].unit == "stream"


@dataclass(frozen=True)
class Family:
    """An architecture: its roles, and the names of its sizes in the Hugging Face config.

    sizes: field of `ModelSpec` -> config entry. same: entries that decide what the weights mean and must be
    equal in two anchors, with the value that a config without the entry has. refused: entries that Trans
    cannot keep when they are set, with the reason. defaults: the config of a model that is made here (GPT-2's
    activation is "gelu_pytorch_tanh" there: the same function, but one fused kernel, 20 % faster on a CPU).
    """

    name: str
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
            require(not config.get(entry), f"{entry} is set: {reason}; use a checkpoint without it")
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
        fixed = {"model_type": self.name, "tie_word_embeddings": spec.tied}
        rest = self.defaults | fixed if base is None else dict(base)
        for per_layer in ("layer_types", "max_window_layers"):  # lists of one depth; all alike here
            rest.pop(per_layer, None)
        return rest | sizes

    def differences(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
        """Where two configs of equal shapes mean different functions: "entry (value and value)"."""
        found = [(name, *(config_value(c, name, v) for c in (one, other))) for name, v in self.same.items()]
        found.append(("activation function", self.activation(one), self.activation(other)))
        return [f"{name} ({a} and {b})" for name, a, b in found if a != b]

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


def _axis(text: str) -> Axis:
    """An axis as an adapter writes it: "stream", "<ffn" (reads), "heads*3" (repeat) or "heads/3" (inner)."""
    reads, unit, how, number = re.fullmatch(r"(<?)(\w+)(?:([*/])(\d))?", text).groups()
    more = {"repeat" if how == "*" else "inner": int(number)} if how else {}
    return Axis(unit, bool(reads), **more)


def _role(name: str, text: str) -> Role:
    """A tensor as an adapter writes it: its axes, then the part of a block or the kind of a norm's vector."""
    axes, _, what = text.partition(", ")
    axes = tuple(map(_axis, axes.split()))
    kind, part = (what, "") if what in ("gain", "shift") else ("weight", what)
    output = bool(part) and Axis("stream") in axes
    return Role(name, axes, kind, part, output, feeds_head=kind != "weight" and "{layer}" not in name)


def _read(adapter: Path) -> Family:
    content = json.loads(adapter.read_text("utf-8"))
    roles = tuple(_role(*item) for item in content.pop("tensors").items())
    head = _role(content.pop("head"), "vocab <stream")
    ignored = tuple(content.pop("ignored", ()))
    return Family(roles=roles, head=head, ignored=ignored, **content)


_ADAPTERS = Path(__file__).parent / "adapters"
FAMILIES = {family.name: family for family in map(_read, sorted(_ADAPTERS.glob("*.json")))}


def family_of(model_type: str) -> Family:
    """The adapter for a config's `model_type`. Raises `CbdError` for a family that has none."""
    known = f"families known here: {', '.join(FAMILIES)}"
    require(model_type in FAMILIES, f"model type {model_type!r} has no adapter; {known}")
    return FAMILIES[model_type]


def spec_of(config: Mapping[str, Any]) -> ModelSpec:
    """The shape that a `config.json` describes. Raises as `family_of` and `Family.spec` do."""
    return family_of(config.get("model_type", "none")).spec(config)
