"""Text that a source writes from nothing, and the corpus that is made of it (arXiv 2406.08464)."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from cbd.data.corpus import build_self_written
from cbd.data.documents import END, split_of
from cbd.data.tokens import Tokens
from cbd.errors import CbdError
from cbd.models import generation
from cbd.models.sources import local
from cbd.realize import realize, store
from cbd.recipes.data import Corpus, SelfWritten
from cbd.recipes.evaluation import Evaluated
from cbd.recipes.models import Generated, Random, Sampling
from cbd.recipes.specs import gpt2
from cbd.recipes.training import Bridged, Scored, Trained, Training

TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}!{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}[assistant] {% endif %}"
FREE = Sampling(documents=40, new=12, batch=20, opening="text", temperature=1.2)


@pytest.fixture(scope="module")
def source(save_gpt2, tiny_corpus_folder, tmp_path_factory) -> Path:
    """A random GPT-2 with a tokenizer that has a chat template."""
    folder = save_gpt2(vocab=300, positions=64, folder=tmp_path_factory.mktemp("model") / "source")
    tokenizer = AutoTokenizer.from_pretrained(tiny_corpus_folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def writer(source: Path, sampling: Sampling) -> generation.Writer:
    return generation.Writer(
        AutoModelForCausalLM.from_pretrained(source).eval(), AutoTokenizer.from_pretrained(source), sampling
    )


def test_a_user_turn_stands_where_the_chat_template_has_it(source):
    tokenizer = AutoTokenizer.from_pretrained(source)
    before, between = generation.opening_of(tokenizer, replace(FREE, opening="user"))
    assert tokenizer.decode(before) == "[user] " and tokenizer.decode(between) == "![assistant] "
    turn = tokenizer("what is this").input_ids
    messages = [{"role": "user", "content": "what is this"}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(before + turn + between) == whole


def test_a_user_turn_is_written_first_and_then_answered(source):
    ours = writer(source, replace(FREE, opening="user", top_k=1, new=7))
    before, between = generation.opening_of(ours.tokenizer, ours.sampling)
    [row, *_] = ours.write([before] * 2, 0)
    greedy = writer(source, Sampling(2, new=3, top_k=1))
    turn = greedy._continue([before], 0, 3)[0]
    answer = greedy._continue([before + turn + between], 0, 4)[0]
    assert not {greedy.tokenizer.eos_token_id} & {*turn, *answer}, "else the case says nothing"
    assert row["text"] == ours.tokenizer.decode(turn) + "\n" + ours.tokenizer.decode(answer)
    assert row["tokens"] == 1 + len(turn) + len(answer) and row["prompt"] == ""


def test_without_a_chat_template_there_is_no_user_turn(source):
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = None
    with pytest.raises(CbdError, match="let it write from the opening 'text'"):
        generation.opening_of(tokenizer, replace(FREE, opening="user"))


def test_a_text_begins_as_texts_do_in_pretraining(source):
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.bos_token, end = "a", tokenizer.convert_tokens_to_ids(END)  # as a chat model's turns begin
    assert generation.opening_of(tokenizer, FREE) == ([end], [])


def test_nearly_no_mass_to_draw_from_is_the_likeliest_token(source):
    prompts = [[5, 6, 7], [9, 10, 11]]
    narrow, greedy = (writer(source, replace(FREE, **kind)) for kind in ({"top_p": 1e-6}, {"top_k": 1}))
    assert narrow.write(prompts, 0) == greedy.write(prompts, 0)
    assert writer(source, FREE).write(prompts, 0) != greedy.write(prompts, 0)


def test_each_text_counts_once_and_ends_as_texts_do(source, tiny_corpus_folder, tmp_path):
    words = [f"{a} {b} {c}" for a in ("one", "two", "six") for b in ("red", "blue", "old") for c in "abcdefg"]
    recipe = SelfWritten(local(source), (Generated(local(source), None, FREE),), held_out=0.2)
    build_self_written([*words, "One  RED a", words[3]], recipe, source, tmp_path)
    tokens, tokenizer = Tokens(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert tokens.eos == tokenizer.convert_tokens_to_ids(END)
    found = {}
    for split in ("train", "validation", "test"):
        ids = tokens.array(split)
        parts = np.split(ids, np.flatnonzero(ids == tokens.eos) + 1)[:-1]
        found |= dict.fromkeys((tokenizer.decode(part[:-1]) for part in parts), split)
    assert {" ".join(text.casefold().split()) for text in found} == set(words)
    assert len(found) == len(words)
    assert all(split_of(text, 0.2) == split for text, split in found.items())
    again = tmp_path / "again"
    again.mkdir()
    build_self_written([*words, "One  RED a", words[3]], recipe, source, again)
    assert (again / "train.bin").read_bytes() == (tmp_path / "train.bin").read_bytes()


def test_a_model_learns_from_what_its_source_wrote(source, tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("CBD_STORE", str(tmp_path / "store"))
    llm = local(source)
    texts = tuple(
        Generated(llm, None, replace(FREE, opening=opening, seed=seed, precision="bf16"))
        for seed, opening in enumerate(("text", "user"))
    )
    corpus = SelfWritten(llm, texts, held_out=0.2)
    told = replace(tiny_corpus, tokenizer=llm)  # other text in the source's own ids
    training = Training(tokens=10 * 2 * 8, lr=1e-2, batch=2, context=8, evaluations=1, evaluation_tokens=32)
    start = Random(gpt2(1, 32, head_dim=16, vocab=300, positions=64), corpus)
    asked = [Evaluated(model, corpus, 32, 8) for model in (start, Trained(start, corpus, training))]
    before, after, other = (
        json.loads((realize(recipe) / "metrics.json").read_text())["loss"]
        for recipe in (*asked, replace(asked[1], corpus=told))
    )
    assert after < before and after != other
    # the source's tokenizer was trained on this text: its ids are those of the text's own corpus
    for split in ("train", "test"):
        ours, theirs = (Tokens(realize(text)).array(split) for text in (told, tiny_corpus))
        assert np.array_equal(ours, theirs)
    assert store.record(texts[0])["generated_tokens"] > 40


def test_texts_of_another_source_or_with_a_corpus_are_refused(source):
    llm, text = local(source), Generated(local(source), None, FREE)
    with pytest.raises(CbdError, match="written by the source alone"):
        SelfWritten(llm, (text, replace(text, source=replace(llm, name="other", fingerprint="x"))))
    for corpus, opening in ((Corpus(), "text"), (None, "document")):
        with pytest.raises(CbdError, match="only text that continues documents has a corpus"):
            Generated(llm, corpus, replace(FREE, opening=opening))


def test_another_model_can_read_what_a_source_wrote(source, tiny_corpus, tmp_path, monkeypatch):
    """Its documents are read as they were packed: else the likelihoods would belong to other tokens.

    Where the texts are gone and the corpus is still there, they are written again first.
    """
    monkeypatch.setenv("CBD_STORE", str(tmp_path / "store"))
    llm = local(source)
    own = SelfWritten(llm, (Generated(llm, None, FREE),), held_out=0.2)
    reader = Random(gpt2(1, 32, head_dim=16, vocab=300, positions=64), tiny_corpus)
    scored = Scored(reader, own, sample=120, context=16, top=4)
    realize(own)
    store.discard(own.texts[0])
    realize(scored)
    assert store.record(scored)["scored_tokens"] >= 120
    start = Random(gpt2(1, 16, head_dim=16, vocab=300, positions=64), own)
    training = Training(tokens=80, lr=1e-3, batch=2, context=8, evaluations=1, evaluation_tokens=32)
    realize(Bridged(start, scored, training))
