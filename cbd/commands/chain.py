"""`cbd chain`: a knowledge chain from a user's own checkpoint on a user's own text.

Every anchor starts from leading slices of its teacher and keeps, beside its weights, how the teacher was
read for that (`TEACHER`): so the two can be mixed.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cbd.commands import own
from cbd.errors import CbdError, count, require, si
from cbd.experiments.starts import inherited
from cbd.models.basis import by_importance
from cbd.models.checkpoints import BASIS, Checkpoint
from cbd.models.interpolation import rewrite
from cbd.models.rotation import Basis
from cbd.realize import realize_all, store
from cbd.recipes.base import Recipe
from cbd.recipes.evaluation import Evaluated
from cbd.recipes.models import Rotated, encloses
from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Anchor, Loss, Training

CHAIN = "chain.json"
TEACHER = "teacher/basis.safetensors"  # in a folder of its own: some tools load every such file as weights


def make_chain(
    source: str,
    anchors: str,
    corpus: str,
    column: str,
    training: Training,
    loss: Loss,
    out: str,
    basis: str = "auto",
    rate: Callable[[ModelSpec], float] | None = None,
) -> list[dict[str, Any]]:
    """Distil the anchors one after the other, each from its predecessor, and write the whole chain to `out`.

    anchors: "6x144,4x96" or "100M,40M" (see `parse_anchors`), from large to small. basis: what an anchor's
    slices are taken from: its teacher "sorted" by the norms of weights, or by "activations", the teacher's
    principal "axes", or ("auto") the axes where the width shrinks, since they lose far less, and else the
    sorted teacher, which computes exactly the same. rate: an anchor's learning rate by its shape; None: the
    training's for all. Every model, the source included, lies in `out`/<layers>x<width>. Returns a row a
    model, from large to small, as in `out`/chain.json. Raises `CbdError` on bad input before any work; what
    is trained stays in the store, so that a killed run goes on.
    """
    folder = own.check_absent(out)
    llm = own.source_of(source)
    specs = parse_anchors(anchors, llm.spec)
    given = own.opened(source)
    given.check_finite()
    text = own.text_for(given, corpus, column, training.context)
    sizes = (f"{spec.name} ({si(spec.parameters)} parameters)" for spec in (llm.spec, *specs))
    print(f"chain: {' > '.join(sizes)}", flush=True)
    models = inherited(llm, specs, text, training, loss, basis, rate).models
    measured = [Evaluated(model, text, training.evaluation_tokens, training.context) for model in models]
    realize_all([*models, *measured])
    rows = [_row(model, measure) for model, measure in zip(models, measured, strict=True)]
    # a learning rate stands in each anchor's row, which may have one of its own
    content = {
        "source": own.origin(llm, given),
        "corpus": text.name,
        "training": {name: value for name, value in asdict(training).items() if name != "lr"},
        "loss": asdict(loss),
        "models": rows,
    }
    with own.written_whole(folder) as part:
        _write_models(models, content, part)
        (part / CHAIN).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return rows


def _row(model: Recipe, measure: Evaluated) -> dict[str, Any]:
    found = {"folder": model.spec.name, "spec": asdict(model.spec), "parameters": model.spec.parameters}
    if isinstance(model, Anchor):
        found["lr"] = model.training.lr
    return found | {"loss": store.record(measure)["metrics"]["loss"], "recipe": model.key}


def _write_models(models: Sequence[Recipe], content: dict[str, Any], out: Path) -> None:
    """Every model, and how its teacher was read; its files' hashes go into its row."""
    for row, model in zip(content["models"], models, strict=True):
        folder = out / row["folder"]
        folder.mkdir()
        rewrite(Checkpoint(store.folder(model)), folder)
        if isinstance(model, Anchor):
            _basis(model).save(folder / TEACHER)
        row["sha256"] = Checkpoint(folder).hashes()
    for place, row in enumerate(content["models"]):
        about = {"source": content["source"], "model": row}
        if place:
            about["teacher"] = content["models"][place - 1]
        own.write_about(out / row["folder"], about, _card(content, place))


def _basis(anchor: Anchor) -> Basis:
    """How an anchor's teacher was read when its slices were taken."""
    basis, teacher = anchor.start.model, Checkpoint(store.folder(anchor.teacher))
    if isinstance(basis, Rotated):
        return Basis.load(store.folder(basis) / BASIS)
    return Basis(by_importance(teacher))


def _card(content: dict[str, Any], place: int) -> str:
    rows, source = content["models"], content["source"]["name"]
    what = (
        f"Anchor {place} of a knowledge chain from `{source}`, distilled from {rows[place - 1]['folder']}."
        if place
        else f"`{source}`, the source of a knowledge chain."
    )
    table = [(row["folder"], f"{row['parameters']:,}", f"{row['loss']:.4f}") for row in rows]
    return own.card(
        f"{source} {rows[place]['folder']}",
        what,
        [("model of the chain", "parameters", "loss, nats per token"), *table],
        f"Loss on held-out text of `{content['corpus']}`. `{TEACHER}` says how the teacher's units lie to an "
        f"anchor's, so that `cbd init --chain` can mix two of them. The source's licence applies.",
    )


def parse_anchors(text: str, source: ModelSpec) -> list[ModelSpec]:
    """Shapes from "6x144,4x96", or from parameters, "100M,40M": then the nearest on the source's own ratio.

    Raises `CbdError` unless each is a shape below its predecessor's.
    """
    specs = [source]
    for part in text.split(","):
        above = specs[-1]
        spec = _shape(part.strip(), source, above)
        wrong = f"anchor {spec.name} is not smaller than {above.name}: list them from large to small"
        require(encloses(spec, above, spec) and spec != above, wrong)
        specs.append(spec)
    return specs[1:]


def _shape(part: str, source: ModelSpec, above: ModelSpec) -> ModelSpec:
    if "x" in part.lower():
        try:
            layers, width = (int(number) for number in part.lower().split("x"))
        except ValueError:
            raise CbdError(f"--anchors {part!r} is not LAYERSxWIDTH, such as 6x144,4x96") from None
        try:
            return source.resized(layers, width)
        except CbdError as error:  # its remedies name options that a chain does not have
            why = re.sub(r"(, or|:) give --.*", "", str(error))
            raise CbdError(f"--anchors {part}: {why}; choose another width") from None
    return source.nearest(count(part, "--anchors", "60M, or a shape such as 6x144"), largest=above)
