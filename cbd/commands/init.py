"""`cbd init`: a checkpoint of a new size from a user's own models, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from cbd.commands.chain import CHAIN
from cbd.commands.own import card, check_absent, opened, read_about, write_about, written_whole
from cbd.errors import CbdError, si
from cbd.models import basis
from cbd.models.checkpoints import Checkpoint
from cbd.models.interpolation import check_alike, check_anchors, check_inside, initialize, transfer
from cbd.recipes.models import encloses
from cbd.recipes.operators import OPERATORS, UNION, Operator, resolve_alpha
from cbd.recipes.specs import ModelSpec

Start = Literal["mixed", "grown", "cut"]
STARTS: dict[str, str] = {
    "mixed": "both models, mixed",
    "grown": "the smaller model alone, grown",
    "cut": "the larger model alone, cut",
}


@dataclass(frozen=True)
class Size:
    """What a user asks for: layers and width, or a number of parameters.

    What is left out keeps its ratio to the width (see `ModelSpec.resized`).
    """

    layers: int | None = None
    width: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    ffn: int | None = None
    parameters: int | None = None

    def __post_init__(self) -> None:
        shape = self.layers is not None and self.width is not None
        if shape == (self.parameters is not None) or (self.layers is None) != (self.width is None):
            raise CbdError("give --layers and --width, or --parameters")

    def spec(self, small: ModelSpec, large: ModelSpec) -> ModelSpec:
        """The models' family at this size. Raises `CbdError` when the heads do not fit the head dimension.

        Where heads do not make up the width (Qwen3) and both models have as many, the target has them, too.
        """
        if self.parameters is not None:
            return large.nearest(self.parameters, small, large)
        heads, kv_heads = self.heads, self.kv_heads
        if heads is None and small.head_size is not None and small.heads == large.heads:
            heads = small.heads
            kv_heads = kv_heads or (small.kv if small.kv == large.kv else None)
        return small.resized(self.layers, self.width, heads, kv_heads, self.ffn)


def models_around(chain: str | Path, size: Size) -> tuple[Path, Path]:
    """The two neighbours (small, large) of a chain made by `cbd chain` between which a size lies.

    Raises `CbdError` when the folder holds no chain, or no two neighbours enclose the size.
    """
    folder = Path(chain)
    try:
        rows = json.loads((folder / CHAIN).read_text("utf-8"))["models"]
        models = [(folder / row["folder"], ModelSpec(**row["spec"])) for row in rows]
    except (OSError, ValueError, TypeError, KeyError):
        raise CbdError(f"{folder} holds no {CHAIN}: name a folder that `cbd chain` made") from None
    for (above, large), (below, small) in pairwise(models):
        if size.parameters is None:
            inside = encloses(small, large, size.spec(small, large))
        else:
            inside = small.parameters <= size.parameters <= large.parameters
        if inside:
            return below, above
    sizes = " > ".join(f"{spec.name} ({spec.parameters:,})" for _, spec in models)
    raise CbdError(f"the size lies between no two neighbours of the chain {sizes}: choose one inside it")


def init_checkpoint(
    small: str | Path | None,
    large: str | Path | None,
    out: str | Path,
    size: Size,
    *,
    alpha: float | Literal["distance"] = "distance",
    operator: Operator = UNION,
    outside: bool = False,
    start: Start = "mixed",
    unaligned: bool = False,
) -> dict[str, Any]:
    """Initialise a model between two checkpoints and write it as a Hugging Face folder.

    small, large: local folders or hub ids; the one that the start does without may be None. start: see
    `STARTS`. unaligned: mix two models although they share no basis. Returns the content of its `cbd.json`.
    Raises `CbdError`, before anything is written, when the models do not fit together or share no basis, the
    target does not lie between them, a file is unreadable, or `out` exists.
    """
    folder = check_absent(out)
    first, second = _both(small, large, start)
    spec = size.spec(first.spec, second.spec)
    _check(first, second, spec, outside, start)
    if start == "mixed":
        resolve_alpha(alpha, first.spec, second.spec, spec)
        second, note = in_one_basis(first, second, unaligned)
        used = {"small": first, "large": second}
    else:
        note = {}
        used = {"small": first} if start == "grown" else {"large": second}
    with written_whole(folder) as part, ThreadPoolExecutor(2) as pool:
        # hashing releases the interpreter's lock: it costs no time of its own
        hashes = {name: pool.submit(model.hashes) for name, model in used.items()}
        if start == "mixed":
            done = initialize(first, second, spec, part, alpha, operator, outside)
        else:
            (only,) = used.values()
            transfer(only, spec, part, operator.trans)
            done = {"target": asdict(spec)} | {name: asdict(model.spec) for name, model in used.items()}
        found = {"sha256": {name: future.result() for name, future in hashes.items()}}
        content = {"start": start} | done | note | found
        write_about(part, content, _card(folder.name, used, spec, done))
    return content


def _both(small: str | Path | None, large: str | Path | None, start: Start) -> tuple[Checkpoint, Checkpoint]:
    """Both models, or the one that the start needs twice."""
    needed = {"mixed": (small, large), "grown": (small, small), "cut": (large, large)}[start]
    if None in needed:
        names = {"mixed": "--small and --large, or --chain", "grown": "--small", "cut": "--large"}
        raise CbdError(f"--start {start} needs {names[start]}")
    first = opened(needed[0])
    return (first, first) if start != "mixed" else (first, opened(needed[1]))


def _check(first: Checkpoint, second: Checkpoint, spec: ModelSpec, outside: bool, start: Start) -> None:
    if start != "mixed":
        check_inside(first.spec, spec, grown=start == "grown")
        return
    if first.spec.parameters > second.spec.parameters:
        raise CbdError(f"--small ({first.spec.name}) is larger than --large ({second.spec.name}): swap them")
    check_anchors(first.spec, second.spec, spec, outside=outside)
    check_alike(first, second)


def in_one_basis(small: Checkpoint, large: Checkpoint, unaligned: bool) -> tuple[Checkpoint, dict[str, Any]]:
    """The larger model in the smaller one's basis, and what is to be noted about it.

    Two models of one chain share a basis by record, and so does the source that a chain was made from: its
    copy inside the chain is taken. Otherwise the weights tell (`basis.compare`). Raises `CbdError` for two
    models that were trained apart, unless `unaligned`.
    """
    records = [read_about(model.folder) for model in (small, large)]
    names = [record.get("basis") for record in records]
    if names[0] is not None and names[0] == names[1]:
        return large, {"basis": names[0], "aligned": "one chain"}
    for model, record, other in ((small, records[0], large), (large, records[1], small)):
        copy = _copy_of_source(model, record, other)
        if copy is not None:
            pair = copy if other is large else large
            return pair, {"basis": record["basis"], "aligned": f"the chain's copy of {other.folder.name}"}
    relation = basis.compare(small, large)
    if relation.kind == "same":
        return large, {"aligned": "by their weights"}
    if relation.kind == "permuted":
        return basis.Reordered(large, relation.basis), {"aligned": "by an order of units, found"}
    said = (
        f"their channels correlate by {relation.stream:.2f}, heads and neurons by {relation.blocks:.2f}; "
        f"1 is alike"
    )
    if not unaligned:
        raise CbdError(
            f"{small.folder} and {large.folder} do not share a basis ({said}): they were trained "
            f"apart, and their mixture may be worse than random weights. Start from one of them alone "
            f"(--start grown or cut), make a chain (`cbd chain`), or mix them all the same with --unaligned"
        )
    return large, {"aligned": f"not at all: {said}"}


def _copy_of_source(model: Checkpoint, record: dict[str, Any], other: Checkpoint) -> Checkpoint | None:
    """Where `model` lies in a chain that was made from `other`: the chain's own copy of that source."""
    folder = model.folder.resolve().parent
    if not (folder / CHAIN).is_file() or record.get("source", {}).get("fingerprint") != other.fingerprint():
        return None
    first = json.loads((folder / CHAIN).read_text("utf-8"))["models"][0]
    return Checkpoint(folder / first["folder"])


def _card(name: str, used: dict[str, Checkpoint], target: ModelSpec, done: dict[str, Any]) -> str:
    rows = [("", "layers x width", "parameters"), ("this model", target.name, f"{target.parameters:,}")]
    for role, model in used.items():
        named = f"{role} model `{model.folder.resolve().name}`"
        rows.append((named, model.spec.name, f"{model.spec.parameters:,}"))
    how = f"It is Trans({next(iter(used))}): one model alone, at another shape."
    if "alpha" in done:
        alpha, mixing = done["alpha"], done["operator"]["mixing"]
        how = f"theta = {alpha:.4f} * Trans(small) + {1 - alpha:.4f} * Trans(large), mixing: {mixing}."
    return card(name, "An initialisation, not trained since.", rows, f"{how} The models' licences apply.")


def said(out: str, done: dict[str, Any]) -> Iterator[str]:
    """What `cbd init` prints: what was made and where, by which choices, and why these are the defaults."""
    target = ModelSpec(**done["target"])
    used = [f"{role} {ModelSpec(**done[role]).name}" for role in ("small", "large") if role in done]
    yield f"{out}: {target.name}, {si(target.parameters)} parameters, from {' and '.join(used)}"
    if done["start"] != "mixed":
        yield f"start {done['start']}: {STARTS[done['start']]}"
        return
    yield f"in one basis: {done['aligned']}"
    operator = next(name for name, one in OPERATORS.items() if asdict(one) == done["operator"])
    reasons = {
        "union": "the larger model's weight stays whole where the smaller has no unit; the default, as it "
        "starts lower than other readings at most sizes that we measured (SCORECARD.md, Q3)",
        "literal": "the paper's formula, on every coordinate",
    }
    yield f"operator {operator}: {reasons.get(operator, 'another reading of the paper')}"
    rule = "by distance in parameters; SCORECARD.md says what that loses against the best (Q6)"
    yield f"alpha {done['alpha']:.4f}: {rule if done['alpha_rule'] == 'distance' else 'as given'}"
