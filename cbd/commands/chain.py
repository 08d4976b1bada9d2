"""`cbd chain`: a knowledge chain from a user's own checkpoint on a user's own text, in one shared basis."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cbd.commands import own
from cbd.errors import CbdError, require, si
from cbd.experiments.starts import inherited
from cbd.models import basis
from cbd.models.checkpoints import Checkpoint
from cbd.models.interpolation import rewrite
from cbd.realize import realize_all, store
from cbd.recipes.base import Recipe
from cbd.recipes.evaluation import Evaluated
from cbd.recipes.models import encloses
from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Loss, Training

CHAIN = "chain.json"


def make_chain(
    source: str, anchors: str, corpus: str, column: str, training: Training, loss: Loss, out: str
) -> list[dict[str, Any]]:
    """Distil the anchors one after the other, each from its predecessor, and write the whole chain to `out`.

    anchors: "6x144,4x96" or "100M,40M" (see `parse_anchors`), from large to small. Every model, the source
    included, lies in `out`/<layers>x<width>, in one shared basis (`cbd.models.basis`): the same function,
    other places. Returns a row a model, from large to small, as in `out`/chain.json. Raises `CbdError` on bad
    input before any work; what is trained stays in the store, so that a killed run goes on.
    """
    folder = own.check_absent(out)
    llm = own.source_of(source)
    specs = parse_anchors(anchors, llm.spec)
    given = own.opened(source)
    given.check_finite()
    text = own.text_for(given, corpus, column, training.context)
    sizes = (f"{spec.name} ({si(spec.parameters)} parameters)" for spec in (llm.spec, *specs))
    print(f"chain: {' > '.join(sizes)}", flush=True)
    models = inherited(llm, specs, text, training, loss).models
    measured = [Evaluated(model, text, training.evaluation_tokens, training.context) for model in models]
    realize_all([*models, *measured])
    rows = [_row(model, measure) for model, measure in zip(models, measured, strict=True)]
    content = {
        "basis": hashlib.sha256("".join(model.key for model in models).encode()).hexdigest()[:20],
        "source": own.origin(llm, given),
        "corpus": text.name,
        "training": asdict(training),
        "loss": asdict(loss),
        "models": rows,
    }
    with own.written_whole(folder) as part:
        _write_models(models, content, part)
        (part / CHAIN).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return rows


def _row(model: Recipe, measure: Evaluated) -> dict[str, Any]:
    found = {"folder": model.spec.name, "spec": asdict(model.spec), "parameters": model.spec.parameters}
    return found | {"loss": store.record(measure)["metrics"]["loss"], "recipe": model.key}


def _write_models(models: Sequence[Recipe], content: dict[str, Any], out: Path) -> None:
    """Every model in the chain's basis; its files' hashes go into its row."""
    found = [Checkpoint(store.folder(model)) for model in models]
    for place, (checkpoint, order) in enumerate(zip(found, basis.shared(found), strict=True)):
        row = content["models"][place]
        folder = out / row["folder"]
        folder.mkdir()
        rewrite(basis.Reordered(checkpoint, order), folder)
        row["sha256"] = Checkpoint(folder).hashes()
        about = {key: content[key] for key in ("basis", "source")}
        own.write_about(folder, about | {"model": row}, _card(content, place))


def _card(content: dict[str, Any], place: int) -> str:
    rows, source = content["models"], content["source"]["name"]
    what = (
        f"Anchor {place} of a knowledge chain from `{source}`, distilled from {rows[place - 1]['folder']}."
        if place
        else f"`{source}`, the source of a knowledge chain: the same function, its units in another order."
    )
    table = [(row["folder"], f"{row['parameters']:,}", f"{row['loss']:.4f}") for row in rows]
    return own.card(
        f"{source} {rows[place]['folder']}",
        what,
        [("model of the chain", "parameters", "loss, nats per token"), *table],
        f"Loss on held-out text of `{content['corpus']}`. All models of the chain share one basis, so that "
        f"`cbd init --chain` can mix two of them. The source's licence applies.",
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
        return source.resized(layers, width)
    return source.nearest(own.count(part, "--anchors"), largest=above)
