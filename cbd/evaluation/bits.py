"""Bits per byte of any model, with its own tokenizer, on the same bytes of held-out text.

Losses a token do not compare across vocabularies. Here every model reads the same windows of text; the first
half of each is context, and the tokens that begin in the second half are scored. What a tokenizer puts before
a text (BOS) comes before each window: some models are lost without it.
"""

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoTokenizer

from cbd.data.alignment import Segmenter
from cbd.data.tokens import Tokens
from cbd.errors import require
from cbd.models.forward import hidden_states, load_llm
from cbd.recipes.evaluation import BitsPerByte

BATCH = 16


def bits_per_byte(model: Path, tokens: Tokens, recipe: BitsPerByte) -> dict[str, Any]:
    """Mean bits per byte of the checkpoint in `model`, its standard error over windows, and the bytes scored.

    Raises `CbdError` when the split has no document as long as a window.
    """
    count = max(1, recipe.sample // (recipe.window - recipe.window // 2))
    found = list(islice(windows(tokens, recipe.split, recipe.window), count))
    wrong = f"the {recipe.split} split has no document of {recipe.window} bytes"
    require(found, f"{wrong}: shorten the window")
    network, segmenter = load_llm(model), Segmenter(AutoTokenizer.from_pretrained(model))
    parts = [_bits_of(network, segmenter, found[i : i + BATCH]) for i in range(0, len(found), BATCH)]
    bits, size = (np.concatenate(values) for values in zip(*parts, strict=True))
    mean = bits.sum() / size.sum()
    spread = (bits - mean * size).std(ddof=1) / size.mean() if len(bits) > 1 else math.nan
    return {
        "bits_per_byte": float(mean),
        "stderr": float(spread / math.sqrt(len(bits))),
        "bytes": int(size.sum()),
        "windows": len(bits),
    }


def windows(tokens: Tokens, split: str, size: int) -> Iterator[tuple[str, int]]:
    """Windows of about `size` bytes of each document, moved on by half of it, cut before spaces.

    Each with the byte from which on it is scored.
    """
    tokenizer = AutoTokenizer.from_pretrained(tokens.folder)
    ids = tokens.array(split)
    for document in np.split(ids, np.flatnonzero(ids == tokens.eos) + 1):
        words = tokenizer.decode(document[document != tokens.eos], clean_up_tokenization_spaces=False)
        text = words.encode()
        places = [_before_space(text, i) for i in range(0, len(text) + 1, size // 2)]
        for first, cut, last in zip(places, places[1:], places[2:], strict=False):
            if first < cut < last:
                yield text[first:last].decode(), cut - first


def _before_space(text: bytes, place: int) -> int:
    """The last space at or before `place`, or the beginning of the character there."""
    space = text.rfind(b" ", max(0, place - 40), place + 1)
    if space > 0:
        return space
    while 0 < place < len(text) and text[place] & 0xC0 == 0x80:
        place -= 1
    return place


@torch.inference_mode()
def _bits_of(
    model: nn.Module, segmenter: Segmenter, batch: list[tuple[str, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Bits and bytes of each window's second half."""
    longest = getattr(model.config, "max_position_embeddings", None) or 2**31
    parts = []
    texts = segmenter.many([text for text, _ in batch], add_special_tokens=True)
    for (_, cut), one in zip(batch, texts, strict=True):
        starts, places = np.concatenate([[0], one.ends[:-1]]), np.arange(len(one.ids))
        # less context where the text has many tokens
        kept = (places < one.lead) | (places >= len(places) - longest + one.lead)
        lengths = np.diff(one.ends, prepend=0)[kept]
        parts.append((torch.from_numpy(one.ids[kept]), (~one.special & (starts >= cut))[kept], lengths))
    ids = nn.utils.rnn.pad_sequence([part[0] for part in parts], batch_first=True).to(model.device)
    states, head = hidden_states(model, ids)
    bits, size = [], []
    for row, (own, counted, lengths) in zip(states, parts, strict=True):
        logits = (row[: len(own) - 1] @ head.T).double()
        likelihoods = logits.gather(1, own[1:, None].to(row.device)).squeeze(1) - logits.logsumexp(1)
        bits.append(-likelihoods.cpu().numpy()[counted[1:]].sum() / math.log(2))
        size.append(lengths[1:][counted[1:]].sum())
    return np.array(bits), np.array(size)
