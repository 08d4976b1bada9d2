"""One text in two tokenizers' tokens: which tokens of the one cover the same bytes as which of the other.

Distillation across tokenizers (approximate likelihood matching, arXiv 2503.20083) compares how likely teacher
and student find the same piece of text. The pieces are found here: a `Segmenter` says where in the text's
UTF-8 each token ends, and `align` cuts the text wherever tokens of both sides end.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from cbd.errors import CbdError, require

WHITESPACE = np.array([point for point in range(0x3001) if chr(point).isspace()])


@dataclass(frozen=True, eq=False)
class Segmented:
    """A text in one tokenizer's tokens."""

    ids: np.ndarray  # (n,) int64
    ends: np.ndarray  # (n,) int64: bytes of the text's UTF-8 covered after each token; the last covers it all
    special: np.ndarray  # (n,) bool: tokens that stand for no text, added around it (BOS, EOS)

    @property
    def lead(self) -> int:
        """How many special tokens come before the text."""
        return int(np.argmin(self.special)) if len(self.special) else 0


class Segmenter:
    """Texts to their tokens and where those end in the text's UTF-8, by a fast transformers tokenizer.

    Byte-level tokenizers are exact to the byte, also where a token ends inside a character. Other tokenizers,
    and texts that a normaliser changes, have ends between characters: of the tokens that share a character
    only the last has its bytes. Spaces that no token covers go with the next token; marks and letters that a
    normaliser composes into the character before them stay with it. Text that spells a special token is text.

    The tokenizer itself is not changed. Raises `CbdError` when it is not a fast one.
    """

    def __init__(self, tokenizer: Any) -> None:
        wrong = f"{type(tokenizer).__name__} does not say where its tokens lie in the text"
        remedy = "take a tokenizer that has a tokenizer.json (AutoTokenizer loads it as a fast one)"
        require(getattr(tokenizer, "is_fast", False), f"{wrong}; {remedy}")
        # GPT-2's post-processor cuts the spaces around a word off the offsets
        text = tokenizer.backend_tokenizer.to_str().replace('"trim_offsets":true', '"trim_offsets":false')
        self._backend = Tokenizer.from_str(text)
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        content = json.loads(text)
        parts = json.dumps([content[part] for part in ("normalizer", "pre_tokenizer", "decoder")])
        self._pieces = _token_bytes(self._backend) if '"ByteLevel"' in parts else []
        self._sizes = np.array([len(piece) for piece in self._pieces], np.int64)

    def __call__(self, text: str, add_special_tokens: bool = False) -> Segmented:
        """The text's tokens, with those that the tokenizer puts around a text if asked for.

        Raises `CbdError` when the text holds half a surrogate pair, which UTF-8 cannot.
        """
        return self.many([text], add_special_tokens)[0]

    def many(self, texts: Sequence[str], add_special_tokens: bool = False) -> list[Segmented]:
        """Each text by itself, with the threads that TOKENIZERS_PARALLELISM allows; no text is cut short."""
        raw = [_utf8(text) for text in texts]
        options = {"add_special_tokens": add_special_tokens}
        found: list[Segmented | None] = [None] * len(texts)
        if self._pieces:  # the fast way leaves out the offsets, which are needed only if the bytes differ
            encodings = self._backend.encode_batch_fast(list(texts), **options)
            found = [self._by_bytes(*pair) for pair in zip(encodings, raw, strict=True)]
        rest = [i for i, segmented in enumerate(found) if segmented is None]
        encodings = self._backend.encode_batch([texts[i] for i in rest], **options)
        for i, encoding in zip(rest, encodings, strict=True):
            found[i] = _by_offsets(encoding, texts[i], len(raw[i]))
        return found

    def _by_bytes(self, encoding: Encoding, raw: bytes) -> Segmented | None:
        """Ends by the tokens' own bytes; None when those are not the text's."""
        ids, special = _ids(encoding)
        normal = ids[~special]
        covered = b"".join(map(self._pieces.__getitem__, normal.tolist()))
        if covered not in (raw, b" " + raw):  # some put a space before the text
            return None
        ends = np.cumsum(self._sizes[normal]) - (len(covered) - len(raw))
        return Segmented(ids, _around(special, np.maximum(ends, 0)), special)


def align(one: Segmented, other: Segmented) -> tuple[np.ndarray, np.ndarray]:
    """The group of each token of either side, (n,) and (m,) int64, numbered from 0; -1 for special tokens.

    A group is the shortest run of tokens of both sides that covers the same bytes; together they cover every
    byte. Tokens without bytes are in the group after them, at the text's end in the last.

    Raises `CbdError` when the two do not cover equally many bytes, so are not of one text.
    """
    ends, others = one.ends[~one.special], other.ends[~other.special]
    lengths = [int(side[-1]) if len(side) else 0 for side in (ends, others)]
    wrong = f"the two sides cover {lengths[0]:,} and {lengths[1]:,} bytes; segment the same text for both"
    require(lengths[0] == lengths[1], f"{wrong}, and leave out texts of which a tokenizer keeps nothing")
    shared = ends[np.isin(ends, others)]
    borders = shared[np.diff(shared, prepend=0) > 0]
    return _groups(one, borders), _groups(other, borders)


def _groups(side: Segmented, borders: np.ndarray) -> np.ndarray:
    """The number of the group that each token begins in."""
    starts = np.concatenate([[0], side.ends[:-1]])[: len(side.ends)]
    groups = np.minimum(np.searchsorted(borders, starts, side="right"), len(borders) - 1)
    return np.where(side.special, -1, groups)


def _by_offsets(encoding: Encoding, text: str, length: int) -> Segmented:
    """Ends by the characters that each token came from; `length` is the text's in bytes."""
    ids, special = _ids(encoding)
    spans = np.array(encoding.offsets, np.int64).reshape(-1, 2)[~special]
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    bytes_before = np.concatenate([[0], np.cumsum(1 + np.digitize(points, [0x80, 0x800, 0x10000]))])
    # A token that reaches past the beginning of a later one shares a character with it.
    following = _least_from(np.append(spans[1:, 0], len(text)))[: len(spans)]
    whole = spans[:, 1] <= following
    # What lies between two tokens was composed into the character before it, unless spaces were dropped.
    places = np.arange(len(text))
    space = _least_from(np.append(np.where(np.isin(points, WHITESPACE), places, len(text)), len(text)))
    reached = np.where(whole, np.minimum(space[spans[:, 1]], following), 0)
    ends = bytes_before[np.maximum.accumulate(reached)]
    ends[-1:] = length
    return Segmented(ids, _around(special, ends), special)


def _least_from(values: np.ndarray) -> np.ndarray:
    """For each place the least value there or later."""
    return np.minimum.accumulate(values[::-1])[::-1]


def _ids(encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    return np.array(encoding.ids, np.int64), np.array(encoding.special_tokens_mask, bool)


def _around(special: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The ends of all tokens from those of the text's own: a special one ends where the one before does."""
    return np.concatenate([np.zeros(1, np.int64), ends])[np.cumsum(~special)]


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        wrong = f"the text holds half a surrogate pair (character {error.start})"
        raise CbdError(f"{wrong}; put U+FFFD in its place") from error


def _token_bytes(backend: Tokenizer) -> list[bytes]:
    """The bytes of each id of a byte-level vocabulary; an added token stands for what it spells."""
    alphabet = {character: byte for byte, character in bytes_to_unicode().items()}
    vocabulary = backend.get_vocab(with_added_tokens=True)
    pieces = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for token, i in vocabulary.items():
        known = alphabet.keys() >= set(token)
        pieces[i] = bytes(alphabet[character] for character in token) if known else token.encode()
    for i, added in backend.get_added_tokens_decoder().items():
        pieces[i] = added.content.encode()
    return pieces
