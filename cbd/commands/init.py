"""`cbd init`: a checkpoint of a new size from a user's own models, written whole or not at all."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from cbd.commands import own
from cbd.commands.chain import CHAIN, TEACHER
from cbd.errors import CbdError, require, si
from cbd.models import basis
from cbd.models.checkpoints import Checkpoint, Selected
from cbd.models.interpolation import check_alike, check_anchors, check_inside, initialize, transfer
from cbd.models.rotation import Basis
from cbd.realize import realize, store
from cbd.recipes.models import encloses
from cbd.recipes.operators import OPERATORS, UNION, Operator, resolve_alpha
from cbd.recipes.specs import ABOUT, ModelSpec
from cbd.recipes.starts import MIXED, STARTS, alone


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
        given = [size is not None for size in (self.layers, self.width, self.parameters)]
        ways = [True, True, False], [False, False, True]
        require(given in ways, "give --layers and --width, or --parameters")

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

    A number of parameters may miss an end of the chain by as much as `ModelSpec.nearest` allows. Raises
    `CbdError` when the folder holds no chain, or no two neighbours enclose the size.
    """
    folder = Path(chain)
    try:
        rows = json.loads((folder / CHAIN).read_text("utf-8"))["models"]
        models = [(folder / row["folder"], ModelSpec(**row["spec"])) for row in rows]
    except (OSError, ValueError, TypeError, KeyError):
        raise CbdError(f"{folder} holds no {CHAIN}: name a folder that `cbd chain` made") from None
    ends = models[0][1], models[-1][1]
    for (above, large), (below, small) in pairwise(models):
        if size.parameters is None:
            inside = encloses(small, large, size.spec(small, large))
        else:
            low = small.parameters / (ABOUT if small is ends[1] else 1)
            high = large.parameters * (ABOUT if large is ends[0] else 1)
            inside = low <= size.parameters <= high
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
    start: str = MIXED,
    unaligned: bool = False,
    blocks: Sequence[int] | None = None,
    choice: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Initialise a model between two checkpoints and write it as a Hugging Face folder.

    small, large: local folders or hub ids; one that the start does without may be None. start: "mixed", or
    one of `starts.alone()`. unaligned: mix models although they share no basis. blocks: places of the large
    model's blocks, as many as the target has, which are read instead of the outermost; of a mixture the ones
    that the small model stands for are among them. choice: how this start was found (`cbd.commands.choose`),
    for the record. Returns what `cbd.json` says.
    Raises `CbdError`, before anything is written, when the models do not fit together or share no basis, the
    target does not lie between them, a file is unreadable, or `out` exists.
    """
    folder = own.check_absent(out)
    places = _needed({"small": small, "large": large}, start)
    used = {role: own.opened(place) for role, place in places.items()}
    first, second = next(iter(used.values())), list(used.values())[-1]
    # a number of parameters is looked for between both models, also where the start reads one of them alone
    counted = size.parameters is not None
    ends = [own.opened(place).spec for place in (small, large) if place] if counted else []
    spec = size.spec(*((ends[0], ends[-1]) if ends else (first.spec, second.spec)))
    note = {"start": start, "target": asdict(spec)} | {role: asdict(m.spec) for role, m in used.items()}
    note |= {} if choice is None else {"choice": choice}
    note |= {} if blocks is None else {"blocks": list(blocks)}
    if start == MIXED:
        swapped = f"--small ({first.spec.name}) is larger than --large ({second.spec.name}): swap them"
        require(first.spec.parameters <= second.spec.parameters, swapped)
        check_anchors(first.spec, second.spec, spec, outside=outside)
        check_alike(first, second)
        share = resolve_alpha(alpha, first.spec, second.spec, spec)
        second, aligned = in_one_basis(first, second, unaligned)
        second = second if blocks is None else Selected(second, blocks)
        note |= aligned
    else:
        check_inside(first.spec, spec, grown="small" in used)
        write = _alone(start, places, None if small is None else own.opened(small), spec, blocks)
    with own.written_whole(folder) as part, ThreadPoolExecutor(2) as pool:
        # hashing releases the interpreter's lock: it costs no time of its own
        hashes = {role: pool.submit(model.hashes) for role, model in used.items()}
        if start == MIXED:
            done = initialize(first, second, spec, part, share, operator, outside)
            rule = alpha if alpha == "distance" else "given"
            note |= done | {"alpha_rule": rule, "large": note["large"]}
        else:
            write(part)
        note["sha256"] = {role: future.result() for role, future in hashes.items()}
        own.write_about(part, note, _card(folder.name, used, spec, note))
    return note


def _needed(given: dict[str, str | Path | None], start: str) -> dict[str, str | Path]:
    """Those of the two models that a start needs. Raises `CbdError` when one is missing."""
    starts = [MIXED, *alone()]
    require(start in starts, f"no start {start!r}; choose one of {', '.join(starts)}")
    asked = given if start == MIXED else signature(STARTS[start].alone).parameters
    needed = {role: place for role, place in given.items() if role in asked}
    named = " and ".join(f"--{role}" for role in needed)
    require(None not in needed.values(), f"--start {start} needs {named}, or --chain")
    return needed


def _alone(
    start: str,
    places: dict[str, str | Path],
    small: Checkpoint | None,
    spec: ModelSpec,
    blocks: Sequence[int] | None,
) -> Callable[[Path], Any]:
    """What writes one model's start into a folder, all that can fail done.

    A model is cut where its leading slices are worth most: as its chain sliced it for `small`, or by
    importance.
    """
    if start == "cut":
        large = own.opened(places["large"])
        recorded = None if small is None else _by_record(small, large)
        view = recorded or basis.Reordered(large, basis.by_importance(large))
        view = view if blocks is None else Selected(view, blocks)
        return partial(transfer, view, spec, trans=UNION.trans)
    sources = {role: own.source_of(place) for role, place in places.items()}
    made = realize(STARTS[start].alone(**sources, spec=spec))
    return partial(shutil.copytree, made, dirs_exist_ok=True, ignore=shutil.ignore_patterns(store.RECORD))


def in_one_basis(small: Checkpoint, large: Checkpoint, unaligned: bool) -> tuple[Checkpoint, dict[str, Any]]:
    """The larger model in the smaller one's basis, and what is to be noted about it.

    Of two models of one chain the record says it, and so it does for the source that a chain was made from.
    Otherwise the weights tell (`basis.compare`). Raises `CbdError` for two models that were trained apart,
    unless `unaligned`.
    """
    recorded = _by_record(small, large)
    if recorded is not None:
        return recorded, {"aligned": "by their chain's record"}
    if unaligned:
        return large, {"aligned": "as they lie (--unaligned)"}
    relation = basis.compare(small, large)
    if relation.kind == "same":
        return large, {"aligned": "by their weights"}
    if relation.kind == "permuted":
        return basis.Reordered(large, relation.order), {"aligned": "by an order of units, found"}
    alike = f"channels correlate by {relation.stream:.2f}, heads and neurons by {relation.blocks:.2f}"
    wrong = f"{small.folder} and {large.folder} share no basis ({alike}; 1 is alike): they were trained apart"
    remedy = "Start from one alone (--start grown or cut), make a chain (`cbd chain`)"
    raise CbdError(
        f"{wrong}, and a mixture may be worse than random weights. {remedy}, or mix them with --unaligned"
    )


def _by_record(small: Checkpoint, large: Checkpoint) -> Checkpoint | None:
    """A model of a chain as an anchor further down sees it, through all the steps between them."""
    record, path = own.read_about(small.folder), small.folder / TEACHER
    if "teacher" not in record or not path.is_file():
        return None
    read = Basis.load(path)
    teacher = small.folder.resolve().parent / record["teacher"]["folder"]
    if record["teacher"]["sha256"] == large.hashes():
        return read.seen(large)
    if not (teacher / "config.json").is_file():
        return None
    above = Checkpoint(teacher)
    if "teacher" not in own.read_about(teacher):  # it is the source, whose files were another's
        return read.seen(large) if record["source"]["fingerprint"] == large.fingerprint() else None
    view = _by_record(above, large)
    if view is None:
        return None
    return read.within(view, basis.aligned_blocks(view, above.spec)).seen(view)


def _card(name: str, used: dict[str, Checkpoint], target: ModelSpec, done: dict[str, Any]) -> str:
    rows = [("", "layers x width", "parameters"), ("this model", target.name, f"{target.parameters:,}")]
    for role, model in used.items():
        named = f"{role} model `{model.folder.resolve().name}`"
        rows.append((named, model.spec.name, f"{model.spec.parameters:,}"))
    how = f"It is Trans({next(iter(used))}): one model alone, at another shape."
    if "alpha" in done:
        alpha, mixing = done["alpha"], done["operator"]["mixing"]
        how = f"theta = {alpha:.4f} * Trans(small) + {1 - alpha:.4f} * Trans(large), mixing: {mixing}."
        if mixing == "patch":
            how = "It is the small model with blocks of the large one put back (arXiv 2510.05064)."
        elif mixing == "stitch":
            how = "It has the lower blocks of the small model and the others of the large (arXiv 2312.05743)."
    gap = " "
    if "choice" in done:
        measured = f"Measured on `{done['choice']['text']}`, the best first:"
        how, gap = f"{how} {measured}\n\n{own.table(tried_rows(done['choice']))}", "\n\n"
    lead = "An initialisation, not trained since."
    return own.card(name, lead, rows, f"{how}{gap}The models' licences apply.")


def named(start: Mapping[str, Any]) -> str:
    """A start in words: of a mixture its operator and its alpha."""
    name = f"{start['operator']}, alpha {start['alpha']}" if start["start"] == MIXED else start["start"]
    return f"{name}, blocks by loss" if start["blocks"] else name


def tried_rows(choice: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What was measured of each start, the best first, below a row that names the columns."""
    yield "start", "loss at step zero, nats per token", f"after {choice['training']['tokens']:,} tokens"
    for row in choice["measured"]:
        yield named(row), f"{row['loss']:.4f}", "" if row["trained"] is None else f"{row['trained']:.4f}"


def said(out: str, done: dict[str, Any]) -> Iterator[str]:
    """What `cbd init` prints: what was made and where, by which choices, and why these are the defaults."""
    target = ModelSpec(**done["target"])
    used = [f"{role} {ModelSpec(**done[role]).name}" for role in ("small", "large") if role in done]
    yield f"{out}: {target.name}, {si(target.parameters)} parameters, from {' and '.join(used)}"
    if "choice" in done:
        yield from _said_of(done["choice"])
    if "blocks" in done:
        yield f"blocks of the large model: {', '.join(map(str, done['blocks']))}"
    if done["start"] != MIXED:
        yield f"start {done['start']}: {STARTS[done['start']].label}, and nothing of another model"
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
    given = "as given" if "choice" not in done else "as measured"
    yield f"alpha {done['alpha']:.4f}: {rule if done['alpha_rule'] == 'distance' else given}"
    if "choice" not in done:
        yield "not measured: whether another alpha, or one model alone, is better here; --text DIR does that"


def _said_of(choice: Mapping[str, Any]) -> Iterator[str]:
    if choice["left_out"]:
        yield f"no mixtures: {choice['left_out']}"
    rows = list(tried_rows(choice))
    width = max(len(name) for name, *_ in rows)
    yield from (f"{name:<{width}}  {zero:>34}  {after}".rstrip() for name, zero, after in rows)
    yield f"the first is written, untrained; its loss on a split that chose nothing: {choice['test']:.4f}"
