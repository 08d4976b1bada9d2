"""Models in memory: loading a checkpoint, and its final hidden states."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from cbd.models import cpu
from cbd.models.families import Family

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()


def hidden_states(model: nn.Module, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Final hidden states (B, T, D) and the head's weight (V, D)."""
    states = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
    return states, model.get_output_embeddings().weight


class Inside(NamedTuple):
    """What happens inside of a model.

    states: (B, T, D) before each block and, normalised, after the last. head: (V, D), the head's weight.
    attentions: (B, H, T, T) of each block, where they are asked for.
    """

    states: tuple[Tensor, ...]
    head: Tensor
    attentions: tuple[Tensor, ...] | None


def inside(model: nn.Module, input_ids: Tensor, attentions: bool = False) -> Inside:
    """One pass. attentions: of a model that was told to keep them (`keep_attentions`)."""
    asked = {"output_hidden_states": True, "output_attentions": attentions}
    found = model.base_model(input_ids=input_ids, use_cache=False, **asked)
    return Inside(found.hidden_states, model.get_output_embeddings().weight, found.attentions)


@contextmanager
def hooked(
    model: nn.Module, names: Iterable[str], see: Callable[[str, Tensor, Tensor], Tensor | None]
) -> Iterator[None]:
    """`see(name, input, output)` for the modules of these weights; what it gives is the output instead."""
    hooks = []
    for name in names:
        module = model.get_submodule(name.removesuffix(".weight"))
        hooks.append(module.register_forward_hook(lambda _, x, y, name=name: see(name, x[0], y)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def container(model: nn.Module, family: Family) -> str:
    """What the loaded model calls the list of its blocks."""
    role = next(role for role in family.roles if role.per_layer)
    return family.parameter(role.name).split(".{layer}")[0]


@contextmanager
def made_of(
    model: nn.Module, name: str, blocks: Sequence[nn.Module], others: Mapping[str, nn.Module] | None = None
) -> Iterator[None]:
    """The model with other blocks, and other modules in some places."""
    new = {name: nn.ModuleList(blocks), **(others or {})}
    own = {place: model.get_submodule(place) for place in new}
    try:
        for place, module in new.items():
            model.set_submodule(place, module)
        yield
    finally:
        for place, module in own.items():
            model.set_submodule(place, module)


def keep_attentions(model: nn.Module) -> None:
    """Compute attention plainly: the fast kernels give none of it away."""
    model.set_attn_implementation("eager")


def load(folder: Path) -> nn.Module:
    """A checkpoint in fp32, without dropout: a model in evaluation mode, also while it trains."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    cpu.suit(model.config.hidden_size)
    return model


def load_llm(folder: Path, precision: Literal["fp32", "bf16"] = "fp32") -> nn.Module:
    """A checkpoint for reading and writing text: bf16, spread over the cards, or `precision` on a CPU.

    Layers that no card has room for stay on the CPU (accelerate's device map).
    """
    if not torch.cuda.is_available():
        return load(folder) if precision == "fp32" else load(folder).to(torch.bfloat16)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map="auto").eval()
