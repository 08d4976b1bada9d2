"""Items and pairs: cut from held-out text alone, shared with no training text, the same every time."""

import json
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbd.data import items, pairs
from cbd.data.documents import documents, folder_corpus, split_of
from cbd.errors import CbdError
from cbd.experiments.scales import SCALES
from cbd.recipes.data import Items, Pairs
from cbd.recipes.evaluation import Downstream
from cbd.recipes.models import Random
from cbd.recipes.specs import gpt2

WORDS = st.text("abcdefg", min_size=1, max_size=4)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Prose and dialogues; a third of the documents share a sentence: something to drop."""
    import random

    draw = random.Random(3)
    vocabulary = [
        f"{a}{b}" for a in ("ba", "do", "fi", "gu", "ke", "lo") for b in ("nad", "ter", "sol", "mik", "p")
    ]
    common = "this very sentence of nine words is everywhere the same"
    folder = tmp_path_factory.mktemp("texts")
    for i in range(160):
        sentences = [" ".join(draw.choices(vocabulary, k=draw.randint(5, 12))) + "." for _ in range(12)]
        if i % 3 == 0:
            sentences.insert(4, f"{common}.")
        (folder / f"{i:03}.txt").write_text(("\n" if i % 2 else " ").join(sentences), "utf-8")
    return folder_corpus(folder, vocab_size=300, held_out=0.2)


@pytest.fixture(scope="module")
def recipe(corpus):
    return Items(corpus, count=40, words=10, answer=4)


@pytest.fixture(scope="module")
def built(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("items")
    items.build(recipe, folder)
    return folder


@pytest.fixture(scope="module")
def training_grams(corpus):
    """All runs of eight words in training text, found in another way: by a window over the joined words."""
    found = set()
    for text in documents(corpus):
        if split_of(text, corpus.held_out) == "train":
            words = re.sub(r"[^\w\s]", "", text.lower()).split()
            found |= {tuple(words[i : i + 8]) for i in range(len(words) - 7)}
    return found


def runs(text: str) -> set[tuple[str, ...]]:
    words = re.sub(r"[^\w\s]", "", text.lower()).split()
    return {tuple(words[i : i + 8]) for i in range(len(words) - 7)}


def rows(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


# Items -------------------------------------------------------------------------------------------------


def test_no_eight_words_of_an_items_passage_are_in_training_text(built, training_grams):
    for split in ("validation", "test"):
        for row in rows(built, f"continuation.{split}.jsonl"):
            assert not runs(f"{row['context']} {row['options'][row['answer']]}") & training_grams
        for row in rows(built, f"cloze.{split}.jsonl"):
            assert not runs(f"{row['context']}{row['answer']}") & training_grams


def test_the_filter_has_something_to_drop(recipe):
    found = items.held_out_passages(recipe)
    clean = items.uncontaminated(found, recipe.corpus)
    dropped = {p.text for p in found["test"]} - {p.text for p in clean["test"]}
    assert any("very sentence of nine words" in text for text in dropped)
    assert not any("sentence of nine words is everywhere the same" in p.text for p in clean["test"])


def test_items_come_from_their_own_split(built, recipe):
    texts = {
        split: "\0".join(t for t in documents(recipe.corpus) if split_of(t, 0.2) == split)
        for split in items.HELD_OUT
    }
    for split in items.HELD_OUT:
        for row in rows(built, f"continuation.{split}.jsonl"):
            assert f"{row['context']} {row['options'][row['answer']]}" in texts[split]
        for row in rows(built, f"cloze.{split}.jsonl"):
            assert f"{row['context']}{row['answer']}" in texts[split]


def test_options_are_four_different_answers_of_documents_of_one_kind(built, recipe):
    kind_of = {}
    for number, text in enumerate(documents(recipe.corpus)):
        for passage in items.passages(number, text, recipe.words, recipe.answer):
            kind_of.setdefault(passage.answer, set()).add((passage.kind, passage.document))
    for row in rows(built, "continuation.test.jsonl"):
        assert len(set(row["options"])) == 4
        kinds = [{kind for kind, _ in kind_of[option]} for option in row["options"]]
        assert set.intersection(*kinds)
        assert all(len(option.split()) == recipe.answer for option in row["options"])


def test_the_right_option_is_at_each_place_equally_often(built):
    places = Counter(row["answer"] for row in rows(built, "continuation.test.jsonl"))
    assert max(places.values()) - min(places[i] for i in range(4)) <= 1


def test_equal_corpora_give_equal_bytes(built, recipe, tmp_path):
    items.build(recipe, tmp_path)
    for path in built.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_cloze_asks_for_a_word_without_its_punctuation(built):
    for row in rows(built, "cloze.test.jsonl"):
        assert re.fullmatch(r" [A-Za-z']{4,}", row["answer"])
        assert not row["context"].endswith(" ")


@given(
    st.lists(st.lists(WORDS, min_size=1, max_size=9), min_size=1, max_size=6),
    st.integers(1, 6),
    st.integers(1, 3),
)
@settings(max_examples=150, deadline=None)
def test_passages_do_not_overlap_and_are_never_cut_at_a_lines_end(lines, words, answer):
    text = "\n".join(" ".join(line) for line in lines)
    place = 0
    for passage in items.passages(0, text, words, answer):
        assert len(passage.context.split()) == words and len(passage.answer.split()) == answer
        found = text.find(passage.text, place)
        assert found >= 0, "a passage follows the one before it, its two parts one space apart"
        place = found + len(passage.text)


def test_too_little_text_is_refused_with_the_remedy(corpus, tmp_path):
    with pytest.raises(CbdError, match="add documents, raise held_out"):
        items.build(Items(corpus, words=400, answer=4), tmp_path)


# Pairs -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built_pairs(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    counts = pairs.build(Pairs(corpus, count=60, tests=20, words=12, answer=8), folder)
    return folder, counts


def test_pairs_are_neighbours_in_a_document_of_their_split(built_pairs, corpus):
    folder, counts = built_pairs
    texts = {
        split: [t for t in documents(corpus) if split_of(t, 0.2) == split]
        for split in ("train", "validation", "test")
    }
    for split, most in (("train", 60), ("validation", 20), ("test", 20)):
        found = rows(folder, f"{split}.jsonl")
        assert 0 < len(found) <= most and counts[f"pairs_{split}"] == len(found)
        for row in found:
            context, label = row["prompt"].rsplit("\n", 1)
            between = {"Reply:": "\n", "Continue:": " "}[label]
            assert row["response"].startswith(" ")
            assert any(f"{context}{between}{row['response'][1:]}" in text for text in texts[split])


def test_held_out_pairs_share_no_eight_words_with_training_text(built_pairs, training_grams):
    folder, _ = built_pairs
    for split in ("validation", "test"):
        for row in rows(folder, f"{split}.jsonl"):
            context = row["prompt"].rsplit("\n", 1)[0]
            assert not runs(f"{context}{row['response']}") & training_grams


def test_dolly_from_a_local_folder_has_its_template_and_three_splits(tmp_path):
    from datasets import Dataset

    Dataset.from_list(
        [
            {"instruction": f"Do {i}.", "context": f"Text {i}." if i % 2 else "", "response": f"Done {i}."}
            for i in range(200)
        ]
    ).save_to_disk(tmp_path / "dolly")
    out = tmp_path / "out"
    out.mkdir()
    counts = pairs.build(Pairs(kind="dolly", location=str(tmp_path / "dolly"), tests=5, held_out=0.2), out)
    assert counts["pairs_test"] == counts["pairs_validation"] == 5
    train = rows(out, "train.jsonl")
    assert {bool("### Input:\nText" in row["prompt"]) for row in train} == {True, False}
    for row in train:
        number = re.search(r"Do (\d+)\.", row["prompt"])[1]
        assert row["response"] == f" Done {number}." and row["prompt"].endswith("### Response:")
    prompts = [
        row["prompt"] for split in ("train", "validation", "test") for row in rows(out, f"{split}.jsonl")
    ]
    assert len(set(prompts)) == len(prompts)


def test_dolly_without_its_columns_is_refused(tmp_path):
    from datasets import Dataset

    Dataset.from_list([{"text": "x"}]).save_to_disk(tmp_path / "other")
    with pytest.raises(CbdError, match="no column context, instruction, response"):
        pairs.build(Pairs(kind="dolly", location=str(tmp_path / "other")), tmp_path)


# Recipes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: Items(c, count=0), "at least 1"),
        (lambda c: Items(c, words=2, answer=2), "at least 8 words"),
        (lambda c: Pairs(c, kind="poems"), "choose one of replies, dolly"),
        (lambda c: Pairs(), "cut from a corpus"),
        (lambda c: Pairs(c, kind="dolly"), "its own text"),
        (lambda c: Downstream(Random(gpt2(1, 64), c), ("cbd_cloze",)), "name its Items"),
        (lambda c: Downstream(Random(gpt2(1, 64), c), ("cbd_reply",)), "name the Pairs"),
    ],
)
def test_recipes_refuse_what_cannot_be(make, message, corpus):
    with pytest.raises(CbdError, match=message):
        make(corpus)


# The embedded corpus -----------------------------------------------------------------------------------


def test_items_of_the_embedded_corpus_are_whole_and_unseen(tmp_path):
    """The smoke scale's own items, against all of its training text."""
    recipe = SCALES["smoke"].evaluation.items
    assert items.build(recipe, tmp_path) == dict.fromkeys(
        ("continuation_validation", "cloze_validation", "continuation_test", "cloze_test"), recipe.count
    ) | {name: pytest.approx(recipe.count, abs=3) for name in ("cloze_validation", "cloze_test")}
    asked = [row for name in ("continuation", "cloze") for row in rows(tmp_path, f"{name}.test.jsonl")]
    grams = {
        gram
        for row in asked
        for gram in runs(row["context"] + (row["answer"] if "options" not in row else f" {right(row)}"))
    }
    for text in documents(recipe.corpus):
        if split_of(text, recipe.corpus.held_out) == "train":
            assert not runs(text) & grams


def right(row: dict) -> str:
    return row["options"][row["answer"]]
