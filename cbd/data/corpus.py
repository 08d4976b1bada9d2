"""A `Corpus` built: its tokenizer, and the packed ids of each split that training reads."""

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cbd.data import progress
from cbd.data.documents import END, SPLITS, documents, fingerprint_of, split_of
from cbd.data.embedded import EMBEDDED
from cbd.data.tokens import DTYPES
from cbd.errors import CbdError, first_line, require
from cbd.files import sha256
from cbd.recipes.data import Corpus, SelfWritten

CHUNK = 500  # documents encoded at a time: enough to keep every thread busy, little enough memory


def _progress(texts: Iterable[str], what: str, total: int | None = None) -> Iterable[str]:
    return progress.bar(texts, what, total=total, unit=" documents", unit_scale=True)


def build(corpus: Corpus, folder: Path, tokenizer: Path | None = None) -> None:
    """Write a finished corpus into `folder`, which exists and is empty. Equal input gives equal bytes.

    Files: the tokenizer's (`AutoTokenizer.from_pretrained(folder)`); train.bin, validation.bin and test.bin,
    each document's ids and the end-of-text id after it, as little-endian uint16 (or uint32 where the
    vocabulary needs it); and, last, corpus.json (dtype, vocabulary size, tokens, bytes and documents of each
    split, sha256 of each file). Training documents stand in their own order, held-out ones in the order of
    their hash, so that the first tokens of a held-out split are a fair sample of it.

    The tokenizer is a byte-level BPE trained on the training split alone, or `corpus.tokenizer`; where that
    is a recipe, `tokenizer` is its folder. Tokenizing uses all cores unless TOKENIZERS_PARALLELISM is
    "false". Raises `CbdError` as `documents` does, and when a folder is not the one that the corpus was named
    after, a split is empty, the text is too little for the vocabulary, or the tokenizer cannot be loaded or
    has no end-of-text token.
    """
    if corpus.kind == "folder" and corpus.fingerprint:
        same = corpus.fingerprint == fingerprint_of(Path(corpus.location))
        wrong = f"the files in {corpus.location} changed after the corpus was named"
        require(same, f"{wrong}; call folder_corpus again")
    given = tokenizer or corpus.tokenizer_location or corpus.tokenizer
    loaded = _load_tokenizer(str(given)) if given else None
    split_for = partial(split_of, held_out=corpus.held_out)
    read = _progress(documents(corpus), "reading")  # bad input shows here
    total = _require_splits(map(split_for, read), corpus.name, corpus.held_out)
    loaded = loaded or _train_tokenizer(corpus, total)
    texts = _progress(documents(corpus), "tokenizing", total)
    sources = {corpus.location or corpus.name: corpus.fingerprint}
    if corpus.kind == "embedded":
        sources = {package: importlib.metadata.version(package) for package in EMBEDDED}
    named = (
        getattr(corpus.tokenizer, "key", corpus.tokenizer) or "byte-level BPE trained on the training split"
    )
    _packed(texts, split_for, loaded, folder, {"tokenizer": named, "sources": sources})


def build_self_written(texts: Iterable[str], recipe: SelfWritten, tokenizer: Path, folder: Path) -> None:
    """As `build`, for texts that the tokenizer's model wrote; each once, whatever its blanks and capitals.

    They are parted by the token with which the model was taught to begin a text (`beginning_of_text`).
    """
    loaded = _load_tokenizer(str(tokenizer))
    loaded.eos_token = loaded.convert_ids_to_tokens(beginning_of_text(loaded))
    once = _distinct(texts)
    split_for = partial(split_of, held_out=recipe.held_out)
    _require_splits(map(split_for, once), "the text of its own", recipe.held_out)
    about = {"tokenizer": recipe.source.key, "sources": {"generated": _digest(once)}}
    _packed(_progress(once, "tokenizing"), split_for, loaded, folder, about)


def self_written_documents(texts: Iterable[str], recipe: SelfWritten) -> Iterator[str]:
    """The texts of the training split, in the order in which `build_self_written` packs them."""
    return (text for text in _distinct(texts) if split_of(text, recipe.held_out) == "train")


def _distinct(texts: Iterable[str]) -> list[str]:
    return list({" ".join(text.split()).casefold(): text for text in texts}.values())


def beginning_of_text(tokenizer: Any) -> int:
    """The token that begins a text in pretraining, which a chat model's `bos_token` need not be."""
    named = (tokenizer.get_vocab().get(END), tokenizer.bos_token_id, tokenizer.eos_token_id)
    return next(token for token in named if token is not None)


def _require_splits(found: Iterable[str], name: str, held_out: float) -> int:
    """How many documents there are. Raises `CbdError` unless each split has one."""
    counts = Counter(found)
    empty = [split for split in SPLITS if not counts[split]]
    wrong = f"{name} has {counts.total():,} documents and none for {' and '.join(empty)}"
    remedy = f"add documents: {held_out:.0%} of them go to each held-out split"
    require(not empty, f"{wrong}; {remedy} (in Python `held_out`, at most 0.25)")
    return counts.total()


def _packed(
    texts: Iterable[str], split_for: Callable[[str], str], tokenizer: Any, folder: Path, about: dict
) -> None:
    """Write tokenizer, ids and corpus.json."""
    tokenizer.save_pretrained(folder)
    size = max(tokenizer.get_vocab().values()) + 1
    dtype = "uint16" if size <= 2**16 else "uint32"
    splits = _pack(texts, split_for, tokenizer, DTYPES[dtype], folder)
    own = {"dtype": dtype, "vocab_size": size, "eos": tokenizer.eos_token_id, "splits": splits}
    _describe(folder, own | about)


def build_written(texts: list[str], corpus: Path, folder: Path) -> None:
    """As `build`, for given training texts, with the tokenizer and the held-out splits of a built corpus."""
    tokenizer = _load_tokenizer(str(corpus))
    content = json.loads((corpus / "corpus.json").read_text("utf-8"))
    shown = _progress(texts, "tokenizing")
    content["splits"] |= _pack(shown, lambda _: "train", tokenizer, DTYPES[content["dtype"]], folder)
    content["sources"] = {"generated": _digest(texts)}
    for split in SPLITS[1:]:
        shutil.copyfile(corpus / f"{split}.bin", folder / f"{split}.bin")
    tokenizer.save_pretrained(folder)
    _describe(folder, content)


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _describe(folder: Path, content: dict[str, Any]) -> None:
    (folder / "corpus.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")


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
    wrong = f"the training text of {corpus.name} supports only {size:,} tokens, not {corpus.vocab_size:,}"
    require(size >= corpus.vocab_size, f"{wrong}; add text or set the vocabulary size to at most {size}")
    parts = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, clean_up_tokenization_spaces=False, **parts)


def _load_tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # the library raises many kinds for a bad folder, name or connection
        wrong = f"the tokenizer {name!r} could not be loaded ({first_line(error)})"
        raise CbdError(f"{wrong}; name a folder with tokenizer.json, or leave it out to train one") from error
    # without the files transformers makes an empty tokenizer, which knows no text
    full = tokenizer.is_fast and len(tokenizer) >= 2
    require(full, f"the tokenizer {name!r} has no tokenizer.json; choose one that has")
    ends = tokenizer.eos_token_id is not None
    require(ends, f"the tokenizer {name!r} has no end-of-text token to part documents; choose one that has")
    return tokenizer


def _pack(
    texts: Iterable[str], split_for: Callable[[str], str], tokenizer: Any, dtype: np.dtype, folder: Path
) -> dict[str, dict[str, Any]]:
    """Write the id file of each split that has text; returns what corpus.json says of them."""
    counts: dict[str, Counter] = defaultdict(Counter)
    held_out: dict[str, list[tuple[bytes, np.ndarray]]] = defaultdict(list)
    with (folder / "train.bin").open("wb") as train:
        for text, ids in _encoded(texts, tokenizer, dtype):
            split, content = split_for(text), text.encode()
            counts[split].update(tokens=len(ids), bytes=len(content), documents=1)
            if split == "train":
                ids.tofile(train)
            else:
                held_out[split].append((hashlib.sha256(content).digest(), ids))
    for split, items in held_out.items():
        items.sort(key=lambda item: item[0])
        np.concatenate([ids for _, ids in items]).tofile(folder / f"{split}.bin")
    return {s: dict(count, sha256=sha256(folder / f"{s}.bin")) for s, count in counts.items()}


def _encoded(texts: Iterable[str], tokenizer: Any, dtype: np.dtype) -> Iterator[tuple[str, np.ndarray]]:
    """Each text with its ids and the end-of-text id."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    # Text that spells a special token is text: only the end of a document gives the end-of-text id.
    backend.encode_special_tokens = True
    texts = iter(texts)
    while chunk := list(islice(texts, CHUNK)):
        encodings = backend.encode_batch_fast(chunk, add_special_tokens=False)
        for text, encoding in zip(chunk, encodings, strict=True):
            yield text, np.array([*encoding.ids, tokenizer.eos_token_id], dtype)
    # Threads were used unless the user decided; left undecided, a later fork would warn.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
