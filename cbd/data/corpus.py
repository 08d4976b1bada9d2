"""A `Corpus` built: its tokenizer, and the packed ids of each split that training reads."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cbd.data import progress
from cbd.data.documents import (
    END,
    SPLITS,
    digest_of,
    documents,
    file_digest,
    fingerprint_of,
    split_at,
    split_of,
)
from cbd.data.embedded import EMBEDDED
from cbd.data.tokens import DTYPES
from cbd.errors import CbdError
from cbd.recipes.data import Corpus

CHUNK = 2_000_000  # characters encoded at a time: enough to keep every thread busy, little enough memory


def _survey(corpus: Corpus) -> int:
    """The number of documents; raises when a split has none. Reads everything, so bad input shows here."""
    found = Counter(split_of(text, corpus.held_out) for text in _progress(documents(corpus), "reading"))
    empty = [split for split in SPLITS if not found[split]]
    if empty:
        raise CbdError(
            f"{corpus.name} has {found.total():,} documents and none for {' and '.join(empty)}; add text, "
            f"or raise held_out (now {corpus.held_out}, at most 0.25)"
        )
    return found.total()


def _progress(items: Iterable[str], what: str, total: int | None = None) -> Iterable[str]:
    return progress.bar(items, what, total=total, unit=" documents", unit_scale=True)


def build(corpus: Corpus, folder: Path) -> None:
    """Write a finished corpus into `folder`, which exists and is empty. Equal input gives equal bytes.

    Files: the tokenizer's (`AutoTokenizer.from_pretrained(folder)`); train.bin, validation.bin and test.bin,
    each document's ids and the end-of-text id after it, as little-endian uint16 (or uint32 where the
    vocabulary needs it); and, last, corpus.json (dtype, vocabulary size, tokens, bytes and documents of each
    split, sha256 of each file). Training documents stand in their own order, held-out ones in the order of
    their hash, so that the first tokens of a held-out split are a fair sample of it.

    The tokenizer is a byte-level BPE trained on the training split alone, or `corpus.tokenizer`. Tokenizing
    uses all cores unless TOKENIZERS_PARALLELISM is "false". Raises `CbdError` as `documents` does, and when a
    folder is not the one that the corpus was named after, a split is empty, the text is too little for the
    vocabulary, or the tokenizer cannot be loaded or has no end-of-text token.
    """
    if corpus.kind == "folder" and corpus.fingerprint not in ("", fingerprint_of(Path(corpus.location))):
        raise CbdError(
            f"the files in {corpus.location} changed after the corpus was named; call folder_corpus again"
        )
    ready = _load_tokenizer(corpus.tokenizer) if corpus.tokenizer else None
    total = _survey(corpus)
    with _parallel_tokenizers():
        tokenizer = ready or _train_tokenizer(corpus, total)
        tokenizer.save_pretrained(folder)
        content = _pack(corpus, folder, tokenizer, total)
    (folder / "corpus.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")


@contextmanager
def _parallel_tokenizers() -> Iterator[None]:
    """Threads for the time of a build unless the user decided; left alone, a later fork would warn."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = before or "true"
    try:
        yield
    finally:
        os.environ["TOKENIZERS_PARALLELISM"] = before or "false"


def _train_tokenizer(corpus: Corpus, total: int) -> Any:
    """A byte-level BPE like GPT-2's; its one special token plays every part, and no text is unknown to it."""
    # Imported here so that reading a corpus does not import transformers.
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=corpus.vocab_size,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = _progress(documents(corpus), "training the tokenizer", total)
    bpe.train_from_iterator((t for t in texts if split_of(t, corpus.held_out) == "train"), trainer)
    size = bpe.get_vocab_size()
    if size < corpus.vocab_size:
        raise CbdError(
            f"the training text of {corpus.name} supports only {size:,} tokens, not {corpus.vocab_size:,}; "
            f"add text or set the vocabulary size to at most {size}"
        )
    parts = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, clean_up_tokenization_spaces=False, **parts)


def _load_tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # the library raises many kinds for a bad folder, name or connection
        reason = str(error).strip().split("\n")[0]
        raise CbdError(
            f"the tokenizer {name!r} could not be loaded ({reason}); name a folder with "
            "tokenizer.json, or leave it out to train one"
        ) from error
    # without the files transformers makes an empty tokenizer, which knows no text
    if not tokenizer.is_fast or len(tokenizer) < 2:
        raise CbdError(f"the tokenizer {name!r} has no tokenizer.json; choose one that has")
    if tokenizer.eos_token_id is None:
        raise CbdError(
            f"the tokenizer {name!r} has no end-of-text token to part documents; choose one that has"
        )
    return tokenizer


def _pack(corpus: Corpus, folder: Path, tokenizer: Any, total: int) -> dict[str, Any]:
    """Write the three id files and return the content of corpus.json."""
    size = max(tokenizer.get_vocab().values()) + 1
    dtype = "uint16" if size <= 2**16 else "uint32"
    counts = {split: Counter(tokens=0, bytes=0, documents=0) for split in SPLITS}
    held_out: dict[str, list[tuple[bytes, np.ndarray]]] = {split: [] for split in SPLITS[1:]}
    texts = _progress(documents(corpus), "tokenizing", total)
    with (folder / "train.bin").open("wb") as train:
        for text, ids in _encoded(texts, tokenizer, DTYPES[dtype]):
            digest = digest_of(text)
            split = split_at(digest, corpus.held_out)
            counts[split].update(tokens=len(ids), bytes=len(text.encode()), documents=1)
            if split == "train":
                ids.tofile(train)
            else:
                held_out[split].append((digest, ids))
    for split, items in held_out.items():
        items.sort(key=lambda item: item[0])
        np.concatenate([ids for _, ids in items]).tofile(folder / f"{split}.bin")
    return {
        "dtype": dtype,
        "vocab_size": size,
        "eos": tokenizer.eos_token_id,
        "tokenizer": corpus.tokenizer or "byte-level BPE trained on the training split",
        "sources": _sources(corpus),
        "splits": {s: dict(counts[s], sha256=file_digest(folder / f"{s}.bin")) for s in SPLITS},
    }


def build_written(texts: list[str], corpus: Path, folder: Path) -> None:
    """As `build`, for given training texts, with the tokenizer and the held-out splits of a built corpus."""
    tokenizer = _load_tokenizer(str(corpus))
    content = json.loads((corpus / "corpus.json").read_text("utf-8"))
    count = Counter(tokens=0, bytes=0, documents=0)
    with (folder / "train.bin").open("wb") as train, _parallel_tokenizers():
        for text, ids in _encoded(_progress(texts, "tokenizing"), tokenizer, DTYPES[content["dtype"]]):
            count.update(tokens=len(ids), bytes=len(text.encode()), documents=1)
            ids.tofile(train)
    for split in SPLITS[1:]:
        shutil.copyfile(corpus / f"{split}.bin", folder / f"{split}.bin")
    tokenizer.save_pretrained(folder)
    content["splits"]["train"] = dict(count, sha256=file_digest(folder / "train.bin"))
    content["sources"] = {"generated": hashlib.sha256("\0".join(texts).encode()).hexdigest()}
    (folder / "corpus.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")


def _encoded(texts: Iterable[str], tokenizer: Any, dtype: np.dtype) -> Iterator[tuple[str, np.ndarray]]:
    """Each text with its ids and the end-of-text id."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    # Text that spells a special token is text: only the end of a document gives the end-of-text id.
    backend.encode_special_tokens = True
    for chunk in _chunks(texts):
        for text, encoding in zip(
            chunk, backend.encode_batch_fast(chunk, add_special_tokens=False), strict=True
        ):
            yield text, np.array([*encoding.ids, tokenizer.eos_token_id], dtype)


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    length = 0
    for text in texts:
        chunk.append(text)
        length += len(text)
        if length >= CHUNK:
            yield chunk
            chunk, length = [], 0
    if chunk:
        yield chunk


def _sources(corpus: Corpus) -> dict[str, str]:
    """What the text came from, for the record."""
    if corpus.kind == "embedded":
        return {package: importlib.metadata.version(package) for package in EMBEDDED}
    return {corpus.location or corpus.name: corpus.fingerprint}
