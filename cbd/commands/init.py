"""`cbd init`: a checkpoint of a new size from a user's own two, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cbd
from cbd.errors import CbdError
from cbd.models.checkpoints import Checkpoint
from cbd.models.interpolation import check_alike, check_anchors, initialize
from cbd.recipes.operators import LITERAL, Operator, resolve_alpha
from cbd.recipes.specs import ModelSpec

CARD = """---
library_name: transformers
tags: [chain-based-distillation, initialization]
---
# {name}

An initialisation, made by cbd {version} (Chain-based Distillation, arXiv 2605.07783): not trained since.

| | layers x width | parameters |
|---|---|---|
| this model | {target.name} | {target.parameters:,} |
| small anchor `{small_name}` | {small.name} | {small.parameters:,} |
| large anchor `{large_name}` | {large.name} | {large.parameters:,} |

theta = {alpha:.4f} * Trans(small) + {rest:.4f} * Trans(large), mixing: {mixing}. `cbd.json` has every choice
and the hashes of the anchors' files. The anchors' licences apply.
"""


@dataclass(frozen=True)
class Size:
    """What a user asks for; what is left out keeps its ratio to the width (see `ModelSpec.resized`)."""

    layers: int
    width: int
    heads: int | None = None
    kv_heads: int | None = None
    ffn: int | None = None

    def spec(self, small: ModelSpec, large: ModelSpec) -> ModelSpec:
        """The anchors' family at this size. Raises `CbdError` when the heads do not fit the head dimension.

        Where heads do not make up the width (Qwen3) and both anchors have as many, the target has them, too.
        """
        heads, kv_heads = self.heads, self.kv_heads
        if heads is None and small.head_size is not None and small.heads == large.heads:
            heads = small.heads
            kv_heads = kv_heads or (small.kv if small.kv == large.kv else None)
        return small.resized(self.layers, self.width, heads, kv_heads, self.ffn)


def init_checkpoint(
    small: str | Path,
    large: str | Path,
    out: str | Path,
    size: Size,
    *,
    alpha: float | Literal["distance"] = "distance",
    operator: Operator = LITERAL,
    outside: bool = False,
) -> dict[str, Any]:
    """Initialise a model between two checkpoints and write it as a Hugging Face folder.

    Returns the content of its `cbd.json`. Raises `CbdError`, before anything is written, when the anchors do
    not fit together, the target does not lie between them, a file is unreadable, or `out` exists.
    """
    out = Path(out)
    if out.exists():
        raise CbdError(f"{out} exists: choose another --out, or remove it first")
    first, second = Checkpoint(small), Checkpoint(large)
    if first.spec.parameters > second.spec.parameters:
        raise CbdError(f"--small ({first.spec.name}) is larger than --large ({second.spec.name}): swap them")
    spec = size.spec(first.spec, second.spec)
    check_anchors(first.spec, second.spec, spec, outside=outside)
    check_alike(first, second)
    resolve_alpha(alpha, first.spec, second.spec, spec)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise CbdError(f"{out} cannot be written ({error.strerror}): choose another --out") from None
    try:
        # hashing releases the interpreter's lock: it costs no time of its own
        with ThreadPoolExecutor(2) as pool:
            hashes = [pool.submit(anchor.hashes) for anchor in (first, second)]
            done = initialize(small, large, spec, part, alpha, operator, outside)
            found = {"small": hashes[0].result(), "large": hashes[1].result()}
        content = {"version": cbd.__version__, "paper": "arXiv 2605.07783"} | done | {"sha256": found}
        (part / "cbd.json").write_text(json.dumps(content, indent=2) + "\n")
        (part / "README.md").write_text(_card(out.name, first, second, spec, done))
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return content


def _card(name: str, small: Checkpoint, large: Checkpoint, target: ModelSpec, done: dict[str, Any]) -> str:
    return CARD.format(
        name=name,
        version=cbd.__version__,
        target=target,
        small=small.spec,
        large=large.spec,
        small_name=small.folder.resolve().name,
        large_name=large.folder.resolve().name,
        alpha=done["alpha"],
        rest=1 - done["alpha"],
        mixing=done["operator"]["mixing"],
    )
