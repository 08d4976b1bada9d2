"""What the commands share that work on a user's own folders: models, text, results whole or absent."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

import cbd
from cbd.data.documents import folder_corpus
from cbd.errors import CbdError, require
from cbd.files import replacing, sha256
from cbd.models.checkpoints import TOKENIZER_FILES, Checkpoint
from cbd.models.sources import hub, local
from cbd.realize import realize
from cbd.recipes.data import Corpus
from cbd.recipes.models import Source
from cbd.recipes.specs import ModelSpec

ABOUT = "cbd.json"  # beside a model: how it was made, and the basis that it shares with others
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


def source_of(place: str | Path) -> Source:
    """A checkpoint folder, a .gguf file, or a model of the hub by its id, as a recipe; nothing is loaded.

    A hub id is looked up in the hub's cache first; its commit is recorded. Raises `CbdError` when there is no
    such folder and no such model.
    """
    if Path(place).exists():
        return local(place)
    if not HUB_ID.fullmatch(str(place)) or Path(place).suffix == ".gguf":
        raise CbdError(f"{place} is not a folder: name a checkpoint in Hugging Face's format, or a hub id")
    return hub(str(place))


def opened(place: str | Path) -> Checkpoint:
    """The checkpoint in a local folder, where it lies; any other source is fetched into the store."""
    return Checkpoint(place if Path(place).is_dir() else realize(source_of(place)))


def origin(source: Source, model: Checkpoint) -> dict[str, Any]:
    """Where a model came from, for the record; its hash is that of the files as they were given."""
    return {"name": source.name, "revision": source.revision, "fingerprint": model.fingerprint()}


def text_for(model: Checkpoint, folder: str | Path, column: str, context: int) -> Corpus:
    """A folder's text in the ids of a model's tokenizer; its content decides the recipe's key, not its place.

    Raises `CbdError` when either is missing, or the context does not fit the model.
    """
    place, positions = model.folder.absolute(), model.spec.positions
    require(context <= positions, f"--context {context} exceeds the model's {positions} positions")
    hashes = {name: sha256(place / name) for name in TOKENIZER_FILES if (place / name).exists()}
    # without one of these transformers would make an empty tokenizer
    known = hashes.keys() & {"tokenizer.json", "vocab.json", "tokenizer.model"}
    remedy = "save the model's tokenizer beside it (save_pretrained)"
    require(known, f"{place} holds no tokenizer.json: {remedy}")
    digest = hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:12]
    named = {"tokenizer": f"sha256 {digest}", "tokenizer_location": str(place)}
    return folder_corpus(folder, column=column, **named)


def default_rate(spec: ModelSpec) -> float:
    """A peak learning rate for training a model further: ours, 3e-4 at 100 M parameters, at most 1e-3.

    It falls with the square root of the parameters.
    """
    return float(f"{min(1e-3, 3e-4 * (1e8 / spec.parameters) ** 0.5):.2g}")


def anchor_rate(spec: ModelSpec) -> float:
    """A peak learning rate for distilling an anchor: ours, 6e-4 at 100 M parameters.

    It falls with their fourth root, which meets what was found best for anchors that begin as slices of their
    teachers: 4 to 8e-3 at 0.1 M, 2e-3 at 0.66 M (notebook 15), 6e-4 at 99 M (of SmolLM2-135M).
    """
    return float(f"{6e-4 * (1e8 / spec.parameters) ** 0.25:.2g}")


def default_precision(spec: ModelSpec) -> Literal["fp32", "bf16"]:
    """What trains fastest here: bf16 where the processor multiplies in it, from a width of 256 on.

    On a CPU with AVX-512 bf16 a step then took 1.4 to 1.6 times less; at a width of 192 nothing was gained.
    """
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = any(there for name, there in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    return "bf16" if native and spec.width >= 256 else "fp32"


def check_absent(out: str | Path) -> Path:
    """`out` as a path. Raises `CbdError` when something is there already."""
    require(not Path(out).exists(), f"{out} exists: choose another --out, or remove it first")
    return Path(out)


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` by one rename; when anything fails, nothing is left.

    Raises `CbdError` when it cannot be written there.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "Not a directory" if isinstance(error, FileExistsError) else error.strerror
        raise CbdError(f"{out} cannot be written ({reason}): choose another --out") from None
    with replacing(out) as part:
        part.mkdir()
        yield part


def write_about(folder: Path, content: Mapping[str, Any], card: str) -> None:
    """`cbd.json` and a model card beside the weights."""
    about = {"version": cbd.__version__, "paper": "arXiv 2605.07783"} | content
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    (folder / "README.md").write_text(card, "utf-8")


def card(name: str, lead: str, rows: Iterable[Sequence[object]], end: str) -> str:
    """A model card: what the model is, a table whose first row names the columns, and what else to know."""
    tags = "---\nlibrary_name: transformers\ntags: [chain-based-distillation]\n---"
    made = f"Made by cbd {cbd.__version__} (Chain-based Distillation, arXiv 2605.07783)."
    return f"{tags}\n# {name}\n\n{lead} {made}\n\n{table(rows)}\n\n{end} `cbd.json` has every choice.\n"


def table(rows: Iterable[Sequence[object]]) -> str:
    """Rows in Markdown, below one that names the columns."""
    head, *body = (f"| {' | '.join(map(str, row))} |" for row in rows)
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *body])


def read_about(folder: Path) -> dict[str, Any]:
    """What `cbd.json` beside a model says; nothing where there is none that can be read."""
    try:
        content = json.loads((folder / ABOUT).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
