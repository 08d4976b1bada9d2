"""Hugging Face checkpoints on disk: read tensor by tensor, written with all that a tool needs to load them.

Only safetensors and JSON are read; nothing is ever unpickled.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cbd.errors import CbdError, require
from cbd.files import sha256
from cbd.models.families import Family, family_of
from cbd.recipes.specs import ModelSpec

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# beside a model that was turned: how (`cbd.models.rotation.Basis`); not where tools look for weights
BASIS = "basis/basis.safetensors"
ENERGY = "energy/"  # in there, before a norm's name: what each channel holds of the stream
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "added_tokens.json",
    "generation_config.json",
)


class Checkpoint:
    """A folder with `config.json` and safetensors, one file or sharded, opened lazily.

    Raises `CbdError` when the folder, the config or the weights are missing, unreadable or truncated.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        form = "give one in Hugging Face's format (config.json, *.safetensors)"
        require(self.folder.is_dir(), f"{folder} is not a folder: {form}")
        self.config = _read_json(self.folder / "config.json", "save the model with save_pretrained")
        self.family: Family = family_of(self.config.get("model_type", "none"))
        try:
            self.spec: ModelSpec = self.family.spec(self.config)
        except KeyError as missing:
            wrong = f"it is not a complete {self.family.name} config"
            raise CbdError(f"{folder}/config.json lacks {missing}: {wrong}") from None
        except TypeError:
            wrong = f"{folder}/config.json has a size that is no number"
            raise CbdError(f"{wrong}: save the model with save_pretrained") from None
        self._files = self._open()
        self._check_complete()

    def _open(self) -> dict[str, Any]:
        """Each tensor's canonical name -> (open file, its name there)."""
        if (self.folder / INDEX).exists():
            index = _read_json(self.folder / INDEX, "download the checkpoint again")
            paths = [self.folder / name for name in sorted(set(index.get("weight_map", {}).values()))]
        else:
            paths = [self.folder / WEIGHTS]
        found: dict[str, Any] = {}
        for path in paths:
            remedy = "convert with save_pretrained(safe_serialization=True)"
            require(path.exists(), f"{path} is missing: only safetensors are read; {remedy}")
            try:
                file = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                wrong = f"{path} is unreadable or truncated ({error})"
                raise CbdError(f"{wrong}: copy or download it again") from None
            found |= {self.family.canonical(name): (file, name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return {name: place for name, place in found.items() if not name.endswith(self.family.ignored)}

    def _check_complete(self) -> None:
        apart = "config.json and weights do not belong together"
        missing = [name for _, _, name in self.family.tensors(self.spec) if name not in self._files]
        kind = f"{len(missing)} tensors of a {self.spec.name} {self.family.name}"
        require(not missing, f"{self.folder}: {kind} are missing ({', '.join(missing[:1])}, ...): {apart}")
        for role, _, name in self.family.tensors(self.spec):
            expected = [axis.size(self.spec) for axis in role.axes]
            file, stored = self._files[name]
            found = file.get_slice(stored).get_shape()
            require(found == expected, f"{self.folder}: {name} is {found}, not {expected}: {apart}")

    def tensor(self, name: str) -> Tensor:
        """A tensor by its full name, in its stored dtype, mapped from disk where possible.

        Raises `CbdError` when it holds NaN or infinity, which would spread into whatever is made from it.
        """
        file, stored = self._files[name]
        tensor = file.get_tensor(stored)
        finite = tensor.sum(dtype=torch.float32).isfinite()  # one pass, and no copy: both survive a sum
        wrong = "holds NaN or infinite weights: the training that wrote it diverged"
        require(finite, f"{self.folder}: {name} {wrong}; take an earlier checkpoint")
        return tensor

    def check_finite(self) -> None:
        """Read every tensor once. Raises `CbdError` as `tensor` does."""
        for _, _, name in self.family.tensors(self.spec):
            self.tensor(name)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype in which the embeddings are stored."""
        return self.tensor(self.family.roles[0].name).dtype

    @cached_property
    def vocabulary(self) -> dict[str, int] | None:
        """Token -> id of a `tokenizer.json` beside the weights, or None where there is none that tells."""
        path = self.folder / "tokenizer.json"
        if not path.exists():
            return None
        vocab = _read_json(path, "save the tokenizer again").get("model", {}).get("vocab")
        return vocab if isinstance(vocab, dict) else None

    @cached_property
    def energies(self) -> dict[str, Tensor]:
        """A norm's gain -> (width,), see `cbd.models.rotation`; empty for a model in another basis."""
        path = self.folder / BASIS
        found = load_file(path) if path.exists() else {}
        return {name.removeprefix(ENERGY): e for name, e in found.items() if name.startswith(ENERGY)}

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the config and of every weights file, by file name."""
        paths = sorted([self.folder / "config.json", *self.folder.glob("*.safetensors")])
        return {path.name: sha256(path) for path in paths}

    def fingerprint(self) -> str:
        """One hash of the config and the weights: a folder's name in a recipe, wherever it lies."""
        return hashlib.sha256(json.dumps(self.hashes(), sort_keys=True).encode()).hexdigest()


class Selected(Checkpoint):
    """A checkpoint of which some blocks alone are read, as those of a shallower model.

    blocks: their places, in order. Raises `CbdError` for a place where there is none.
    """

    def __init__(self, model: Checkpoint, blocks: Sequence[int]):
        there = set(blocks) <= set(range(model.spec.layers))
        require(there, f"{model.folder} has blocks 0 to {model.spec.layers - 1}, not all of {list(blocks)}")
        self.__dict__ |= vars(model)
        self._whole, self.spec = model, replace(model.spec, layers=len(blocks))
        self.config = model.family.config(self.spec, model.config)
        whole = lambda layer: layer if layer is None else blocks[layer]  # noqa: E731
        tensors = model.family.tensors(self.spec)
        self._places = {name: role.name.format(layer=whole(layer)) for role, layer, name in tensors}
        energies = model.energies
        self.energies = {name: energies[old] for name, old in self._places.items() if old in energies}

    def tensor(self, name: str) -> Tensor:
        """A tensor by its full name, in the stored dtype."""
        return self._whole.tensor(self._places[name])


class Replaced(Checkpoint):
    """A checkpoint some of whose tensors are others, given by their full names."""

    def __init__(self, model: Checkpoint, tensors: Mapping[str, Tensor]):
        self.__dict__ |= vars(model)
        self._model, self._tensors = model, tensors

    def tensor(self, name: str) -> Tensor:
        """A tensor by its full name, in the stored dtype."""
        return self._tensors[name].to(self.dtype) if name in self._tensors else self._model.tensor(name)


def write(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    tokenizer: Path | None = None,
) -> None:
    """Write a checkpoint into an existing folder: weights, config and a tokenizer's files."""
    save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n")
    if tokenizer is not None:
        for name in TOKENIZER_FILES:
            if (tokenizer / name).exists():
                shutil.copyfile(tokenizer / name, folder / name)


def _read_json(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError("not an object but " + type(content).__name__)
        return content
    except FileNotFoundError:
        raise CbdError(f"{path} is missing: {remedy}") from None
    except ValueError as error:  # bad JSON or bad UTF-8
        raise CbdError(f"{path} is not JSON ({error}): {remedy}") from None
