"""What the tests share: their own store, tiny random GPT-2 checkpoints, a text with corpus and tokenizer.

Everything is made here, in temporary folders, from fixed seeds: no network, no user's cache. Torch is
imported only where a fixture needs it, so that the tests of what must work without torch stay quick.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn
    from transformers import GPT2LMHeadModel

    from cbd.recipes.data import Corpus
    from cbd.recipes.specs import ModelSpec

# Before anything imports torch or huggingface_hub, which read these once; child processes inherit them.
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def tidy(rows: list[dict]) -> pd.DataFrame:
    """A validated table of results from rows that leave out what they do not know."""
    import pandas as pd

    from cbd.report import results

    frame = pd.DataFrame.from_records(rows)
    return results.validate(frame.reindex(columns=list(dict.fromkeys([*results.COLUMNS, *frame.columns]))))


@pytest.fixture(scope="session", autouse=True)
def store_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty store for the whole session, for child processes too: no test meets a user's finished work."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CBD_STORE", str(folder))
        yield folder


@contextlib.contextmanager
def dying_at(call: int, feed: type) -> Iterator[None]:
    """Kill a training at this call for a step's batch of the feed."""
    parts, calls = feed.parts, []

    def dying(self, training, step):
        calls.append(step)
        if len(calls) == call:
            raise KeyboardInterrupt
        return parts(self, training, step)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setenv("CBD_CHECKPOINT_SECONDS", "0")
        patch.setattr(feed, "parts", dying)
        yield


@pytest.fixture(scope="session")
def make_gpt2() -> Callable[..., GPT2LMHeadModel]:
    """`make_gpt2(layers=2, ...)`: a random GPT-2 in evaluation mode. See `random_gpt2`."""
    return random_gpt2


@pytest.fixture(scope="session")
def save_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`save_gpt2(layers=2, ..., folder=None, dtype="float32", tokenizer=None)`: the folder of a random GPT-2.

    Written by transformers itself. `tokenizer` is a folder whose tokenizer is saved beside it; other
    arguments as for `make_gpt2`.
    """

    def save(
        folder: Path | None = None, dtype: str = "float32", tokenizer: Path | None = None, **shape
    ) -> Path:
        import torch

        if folder is None:
            folder = tmp_path_factory.mktemp("gpt2")
        random_gpt2(**shape).to(getattr(torch, dtype)).save_pretrained(folder)
        if tokenizer is not None:
            from transformers import AutoTokenizer

            AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
        return folder

    return save


def random_gpt2(
    *,
    layers: int = 2,
    width: int = 32,
    heads: int = 2,
    ffn: int | None = None,
    vocab: int = 61,
    positions: int = 16,
    tied: bool = True,
    epsilon: float = 1e-5,
    mean: float = 0.0,
    seed: int = 0,
) -> GPT2LMHeadModel:
    """A GPT-2 without a trivial tensor: every bias and every norm's gain and shift is random too.

    mean: added to the position embeddings, so that what the norms subtract is far from zero.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # a test counts the lines of standard error

    config = GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        n_inner=ffn,
        vocab_size=vocab,
        n_positions=positions,
        tie_word_embeddings=tied,
        layer_norm_epsilon=epsilon,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    generator = torch.Generator().manual_seed(seed)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            gain = name.endswith("weight") and parameter.ndim == 1
            parameter.copy_(1 + 0.3 * noise if gain else 0.15 * noise)
        model.transformer.wpe.weight.add_(mean)
    return model


def random_model(spec: ModelSpec, epsilon: float = 1e-5, seed: int = 0, mean: float = 0.5) -> nn.Module:
    """A model without a trivial tensor; `mean` shifts the embeddings, so that a norm's centring shows."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from cbd.models.families import family_of

    family = family_of(spec.family)
    config = family.with_norm_epsilon(family.config(spec), epsilon)
    config |= {"bos_token_id": 0, "eos_token_id": 0}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            gain = name.endswith("weight") and parameter.ndim == 1
            parameter.copy_(1 + 0.3 * noise if gain else 0.15 * noise)
        model.get_input_embeddings().weight.add_(mean)
    return model


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 documents (.txt) of sentences from a small grammar, of which a tiny model can learn something."""
    draw = random.Random(0)
    folder = tmp_path_factory.mktemp("text") / "stories"
    folder.mkdir()
    names, verbs = (
        ["anna", "the old king", "a small dog", "my brother"],
        ["sees", "follows", "likes", "wakes"],
    )
    places = ["in the garden", "by the river", "at night", "before the rain", "under the red roof"]
    for i in range(120):
        lines = [
            f"{draw.choice(names)} {draw.choice(verbs)} {draw.choice(names)} {draw.choice(places)}."
            for _ in range(draw.randint(6, 18))
        ]
        (folder / f"{i:03}.txt").write_text("\n".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_corpus(text_folder: Path) -> Corpus:
    """The recipe of `text_folder` as a corpus, with a tokenizer of 300 tokens."""
    from cbd.data.documents import folder_corpus

    return folder_corpus(text_folder, vocab_size=300, held_out=0.1)


@pytest.fixture(scope="session")
def tiny_corpus_folder(tiny_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_corpus`, built: packed ids and tokenizer files."""
    from cbd.data.corpus import build

    folder = tmp_path_factory.mktemp("corpus")
    build(tiny_corpus, folder)
    return folder
