"""What a model's norms give, restored after some of its blocks went.

Activation Statistics Correction ("Logits-Based Block Pruning with Affine Transformations", Findings of EACL
2026): without a block, the stream has another mean and variance in each channel, and all blocks behind read
it. An affine map undoes that. Where it is applied is left open; here it is folded into the norms, which
everything reads the stream through, so that the model stays a plain checkpoint: every norm behind the first
gap gets the mean and the variance of its output in the whole model, one after the other, since what one gives
changes what the next one reads. RMSNorm has no shift: there the mean square is restored.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from cbd.models.checkpoints import Checkpoint
from cbd.models.families import Family
from cbd.models.forward import container, hidden_states, hooked, made_of

LEAST = 1e-6  # a channel that varies by less is a constant, which no factor can spread


def corrected(model: nn.Module, whole: Checkpoint, blocks: Sequence[int], ids: Tensor) -> dict[str, Tensor]:
    """The gains and shifts, by their names in a cut model, that give its norms the whole one's statistics.

    model: the whole one, whose norms are changed. whole: it in a file. blocks: the places of those that stay.
    ids: (rows, T) tokens, which both are run over, all at once.
    """
    family, device = whole.family, next(model.parameters()).device
    first = next((i for i, place in enumerate(blocks) if i != place), len(blocks))
    behind = {}  # a norm's name there -> here
    for role, layer, name in family.tensors(replace(whole.spec, layers=len(blocks))):
        if role.norm and (layer is None or layer >= first):
            behind[role.name.format(layer=layer if layer is None else blocks[layer])] = name
    norms = {name: model.get_submodule(name.removesuffix(".weight")) for name in behind}
    wanted = {}

    def note(name: str, _: Tensor, out: Tensor) -> None:
        wanted[name] = statistics(out, family)

    def restore(name: str, _: Tensor, out: Tensor) -> Tensor:
        (mean, spread), (due, width) = statistics(out, family), wanted[name]
        factor = torch.where(spread > LEAST, width / spread.clamp_min(LEAST), 1.0)
        norms[name].weight.data.mul_(factor)
        if family.norm == "layer":
            norms[name].bias.data.sub_(mean).mul_(factor).add_(due)
        return ((out.float() - mean) * factor + due).to(out.dtype)

    place = container(model, family)
    left = [model.get_submodule(place)[i] for i in blocks]
    with torch.no_grad():
        with hooked(model, norms, note):
            hidden_states(model, ids.to(device))
        with hooked(model, norms, restore), made_of(model, place, left):
            hidden_states(model, ids.to(device))
    return {
        f"{behind[name].removesuffix('weight')}{part}": value.data.cpu()
        for name, norm in norms.items()
        for part, value in norm.named_parameters()
    }


def statistics(out: Tensor, family: Family) -> tuple[Tensor, Tensor]:
    """Of what a norm gives, (..., D), by channel: the mean, zero under RMSNorm, and the deviation from it."""
    rows = out.float().flatten(0, -2)
    mean = rows.mean(0) if family.norm == "layer" else torch.zeros_like(rows[0])
    return mean, (rows - mean).square().mean(0).sqrt()
