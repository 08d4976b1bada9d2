"""Models that exist already, and fresh random ones: where every chain begins."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from cbd.checkpoints import Checkpoint, write
from cbd.data import Tokens
from cbd.errors import CbdError
from cbd.families import family_of
from cbd.recipes import Source
from cbd.specs import ModelSpec


def local(folder: str | Path) -> Source:
    """A checkpoint folder as a source, named by its content. Raises `CbdError` when it cannot be read."""
    checkpoint = Checkpoint(folder)
    where = str(Path(folder).absolute())
    return Source(Path(folder).name, checkpoint.spec, where, fingerprint=checkpoint.fingerprint())


def hub(name: str, revision: str = "main") -> Source:
    """A hub model as a source; only its config is read now, its weights when the recipe is realised.

    Raises `CbdError` when the hub or the model cannot be reached.
    """
    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        raise CbdError(f"{name} cannot be read from the hub ({_first_line(error)}): {_REMEDY}") from None
    return Source(name, family_of(config.model_type).spec(config.to_dict()), revision=revision)


_REMEDY = "check the name, log in (`hf auth login`) and accept its licence if it is gated, or give a folder"


def fetch(source: Source, out: Path) -> dict[str, Any]:
    """Put a source into the store: links to a local folder's files, or the hub's snapshot."""
    if source.location:
        folder = Path(source.location)
        if Checkpoint(folder).fingerprint() != source.fingerprint:
            raise CbdError(f"{folder} has changed since its recipe was written: make the recipe again")
    else:
        from huggingface_hub import snapshot_download

        try:
            patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
            folder = Path(snapshot_download(source.name, revision=source.revision, allow_patterns=patterns))
        except (OSError, ValueError) as error:
            raise CbdError(f"{source.name} cannot be downloaded ({_first_line(error)}): {_REMEDY}") from None
    for path in folder.iterdir():
        if path.suffix in (".json", ".safetensors", ".txt", ".model"):
            os.symlink(path.resolve(), out / path.name)
    Checkpoint(out)
    return {"name": source.name, "revision": source.revision}


def initialise_randomly(spec: ModelSpec, corpus: Path, seed: int, out: Path) -> dict[str, Any]:
    """A model with its Hugging Face class's own random initialisation, and the corpus' tokenizer."""
    tokens = Tokens(corpus)
    family = family_of(spec.family)
    if spec.vocab < tokens.vocab_size:
        raise CbdError(f"the spec's vocabulary {spec.vocab} is smaller than the corpus' {tokens.vocab_size}")
    config = family.config(spec) | {"bos_token_id": tokens.eos, "eos_token_id": tokens.eos}
    (out / "config.json").write_text(json.dumps(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(out))
    state = model.state_dict()
    tensors = {name: state[family.parameter(name)] for _, _, name in family.tensors(spec)}
    write(out, config | {"dtype": "float32"}, tensors, tokenizer=corpus)
    return {}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
