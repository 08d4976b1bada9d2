"""`cbd recover`: a start trained further on a user's own text, plainly or distilled from a teacher."""

import json
import shutil
from dataclasses import asdict
from typing import Any

from cbd.commands import own
from cbd.realize import realize_all, store
from cbd.recipes.training import Anchor, Loss, Trained, Training


def recover(
    start: str, corpus: str, column: str, training: Training, loss: Loss, teacher: str | None, out: str
) -> dict[str, Any]:
    """Train the checkpoint `start` on a folder's text; the result, its curve and a card go to `out`.

    start, teacher: local folders or hub ids. With a teacher, `loss` is minimised against its logits; without
    one, cross-entropy alone. Returns the content of `cbd.json`. Raises `CbdError` on bad input before any
    work; the state of the training stays in the store, so that a killed run goes on.
    """
    folder = own.check_absent(out)
    model = own.source_of(start)
    guide = None if teacher is None else own.source_of(teacher)
    given = own.opened(start)
    given.check_finite()
    text = own.text_for(given, corpus, column, training.context)
    run = Trained(model, text, training) if guide is None else Anchor(guide, model, text, training, loss)
    realize_all([run])
    curve = json.loads((store.folder(run) / "curve.json").read_text("utf-8"))
    measured = store.record(run)
    content = {
        "basis": own.read_about(given.folder).get("basis"),
        "start": own.origin(model, given),
        "teacher": None if guide is None else own.origin(guide, own.opened(teacher)),
        "corpus": text.name,
        "training": asdict(training),
        "loss": None if guide is None else asdict(loss),
        "before": curve[0]["loss"],
        "after": curve[-1]["loss"],
        "recipe": run.key,
        "seconds": measured["seconds"],
    }
    with own.written_whole(folder) as part:
        shutil.copytree(store.folder(run), part, dirs_exist_ok=True)
        own.write_about(part, content, _card(folder.name, content, curve, run.tokens))
    return content


def _card(name: str, content: dict[str, Any], curve: list[dict[str, float]], tokens: int) -> str:
    teacher = content["teacher"]
    how = f"distilled from `{teacher['name']}`" if teacher else "with next-token cross-entropy"
    points = [(f"{point['trained']:,}", f"{point['loss']:.4f}") for point in curve]
    start, text = content["start"]["name"], content["corpus"]
    return own.card(
        name,
        f"`{start}`, trained further on {tokens:,} tokens of `{text}`, {how}.",
        [("training tokens", "loss on held-out text, nats per token"), *points],
        "`curve.json` has this curve and `steps.json` the loss of every step.",
    )
