"""`cbd chain`: a knowledge chain from a user's own checkpoint on a user's own text."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from cbd.data.documents import folder_corpus
from cbd.errors import CbdError
from cbd.models.checkpoints import TOKENIZER_FILES, sha256
from cbd.models.sources import local
from cbd.realize import store
from cbd.realize.run import realize_all
from cbd.recipes.base import Recipe
from cbd.recipes.data import Corpus
from cbd.recipes.evaluation import Evaluated
from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Anchor, Loss, Training


def own_chain(
    source: str, anchors: str, corpus: str, column: str, training: Training, loss: Loss, out: str
) -> list[dict[str, Any]]:
    """Distil the anchors one after the other, each from its predecessor, and copy them to
    `out`/<layers>x<width>.

    anchors: "6x144,4x96", from large to small. Returns a row a model (also in `out`/chain.json): folder,
    parameters, loss in nats per token. Raises `CbdError` on bad input before any work; what is trained stays
    in the store, so that a killed run goes on.
    """
    folder = Path(out)
    if folder.exists():
        raise CbdError(f"{folder} exists: choose another --out, or remove it first")
    llm = local(source)
    specs = parse_anchors(anchors, llm.spec)
    if training.context > llm.spec.positions:
        raise CbdError(f"--context {training.context} exceeds the model's {llm.spec.positions} positions")
    text = _text(Path(corpus), column, Path(source).absolute())
    models: list[Recipe] = [llm]
    for spec in specs:
        models.append(Anchor.inherited(models[-1], spec, text, training, loss))
    measured = [Evaluated(model, text, training.evaluation_tokens, training.context) for model in models]
    realize_all([*models, *measured])
    rows = []
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for model, evaluated in zip(models, measured, strict=True):
        place = source if model is llm else str(folder / model.spec.name)
        if model is not llm:
            shutil.copytree(store.folder(model), partial / model.spec.name)
        loss_now = store.record(evaluated)["metrics"]["loss"]
        rows.append(
            {"folder": place, "parameters": model.spec.parameters, "loss": loss_now, "recipe": model.key}
        )
    (partial / "chain.json").write_text(json.dumps(rows, indent=2) + "\n")
    partial.rename(folder)
    return rows


def _text(folder: Path, column: str, tokenizer: Path) -> Corpus:
    """The text in the ids of the source's tokenizer, whose content is part of the name, not its place."""
    hashes = {name: sha256(tokenizer / name) for name in TOKENIZER_FILES if (tokenizer / name).exists()}
    if not hashes.keys() & {
        "tokenizer.json",
        "vocab.json",
        "tokenizer.model",
    }:  # transformers would make an empty one
        raise CbdError(
            f"{tokenizer} holds no tokenizer.json: save the model's tokenizer beside it (save_pretrained)"
        )
    digest = hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:12]
    name = f"{folder.resolve().name}, tokenizer {digest}"
    return folder_corpus(folder, name=name, column=column, tokenizer=str(tokenizer))


def parse_anchors(text: str, source: ModelSpec) -> list[ModelSpec]:
    """Specs from "6x144,4x96". Raises `CbdError` unless each is a shape below its predecessor's."""
    specs, above = [], source
    for part in text.split(","):
        try:
            layers, width = (int(number) for number in part.strip().lower().split("x"))
        except ValueError:
            raise CbdError(f"--anchors {part!r} is not LAYERSxWIDTH, such as 6x144,4x96") from None
        spec = source.resized(layers, width)
        if spec.layers > above.layers or spec.width > above.width or spec == above:
            raise CbdError(
                f"anchor {spec.name} is not smaller than {above.name}: list them from large to small"
            )
        specs.append(spec)
        above = spec
    return specs
