"""Distillation on the student's own text: what is drawn, what it costs; MiniLLM against its definition."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from conftest import dying_at, random_model
from torch.nn.functional import cross_entropy

from cbd.data.tokens import Tokens
from cbd.errors import CbdError
from cbd.models.forward import load
from cbd.recipes.data import Corpus
from cbd.recipes.models import Random
from cbd.recipes.onpolicy import MiniLLM, OnPolicy
from cbd.recipes.specs import gpt2, llama
from cbd.recipes.training import Loss, Training
from cbd.training import onpolicy
from cbd.training.loop import train
from cbd.training.losses import IGNORED
from cbd.training.minillm import MiniLLMLesson, Rollouts, length_normalised, policy_loss
from cbd.training.onpolicy import OnPolicyLesson, Sampled, rows, sample

SHAPES = {
    "gpt2": gpt2(1, 32, head_dim=16, vocab=300, positions=32),
    "llama": llama(2, 32, 2, 1, 64, vocab=300, positions=32),
}
TRAINING = Training(
    tokens=64 * 4 * 16, lr=3e-3, batch=4, context=16, seed=3, evaluations=2, evaluation_tokens=256
)


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, tmp_path_factory):
    """Folders of a student and of a teacher."""
    folders = [tmp_path_factory.mktemp(name) for name in ("student", "teacher")]
    for seed, folder in enumerate(folders):
        random_model(SHAPES[request.param], seed=seed).save_pretrained(folder)
    return folders


def recipe(**changes) -> MiniLLM:
    start = Random(SHAPES["gpt2"], Corpus())
    return MiniLLM(start, start, Corpus(), TRAINING, **{"prompt": 4} | changes)


def lessons(corpus, teacher, **changes):
    """Both methods, by name."""
    return {
        "GKD": OnPolicyLesson(corpus, teacher, Loss("jsd", 0.0), share=0.5, prompt=4),
        "MiniLLM": MiniLLMLesson(corpus, teacher, recipe(collected=3, **changes)),
    }


def test_what_is_drawn_has_the_log_probabilities_of_the_models_and_of_their_mixture(pair):
    models, prompts = [load(folder) for folder in pair], torch.randint(1, 300, (5, 3))
    found = sample(models, (0.8, 0.2), prompts, new=6, end=0, seed=1)
    whole = torch.cat([prompts, found.tokens], 1)
    with torch.no_grad():  # without a cache, all places at once
        logs = [model(whole).logits[:, 2:-1].log_softmax(-1) for model in models]
    mixture = (0.8 * logs[0].exp() + 0.2 * logs[1].exp()).log()
    kept = found.counts
    for ours, theirs in zip((*found.logs, found.mixed), (*logs, mixture), strict=True):
        due = theirs.gather(-1, found.tokens[..., None]).squeeze(-1)
        assert torch.allclose(ours[kept], due[kept], atol=1e-4)
    again = sample(models, (0.8, 0.2), prompts, new=6, end=0, seed=1)
    assert torch.equal(again.tokens, found.tokens)
    other = sample(models, (0.8, 0.2), prompts, new=6, end=0, seed=2)
    assert not torch.equal(other.tokens, found.tokens)


def test_tokens_come_as_often_as_the_mixture_says(pair):
    models, prompts = [load(folder) for folder in pair], torch.full((20_000, 1), 7)
    found = sample(models, (0.5, 0.5), prompts, new=1, end=0, seed=0)
    with torch.no_grad():
        expected = sum(m(prompts[:1]).logits[0, -1].softmax(-1) for m in models) / 2
    seen = torch.bincount(found.tokens[:, 0], minlength=300) / len(prompts)
    assert (seen - expected).abs().max() < 5 * (expected.max() / len(prompts)).sqrt()
    assert torch.allclose(found.mixed.exp(), expected[found.tokens], rtol=1e-4)


def test_a_text_ends_with_its_first_end_and_what_follows_is_not_trained_on():
    prompts = torch.tensor([[5, 0, 6], [1, 2, 3]])  # an end inside a prompt ends nothing
    tokens = torch.tensor([[8, 0, 0, 0], [9, 9, 9, 9]])
    counts = torch.tensor([[True, True, False, False], [True] * 4])
    found = Sampled(tokens, counts, torch.zeros(1, 2, 4), torch.zeros(2, 4))
    inputs, labels = rows(prompts, found)
    assert inputs.tolist() == [[5, 0, 6, 8, 0, 0], [1, 2, 3, 9, 9, 9]]
    assert labels.tolist() == [[-100, -100, 8, 0, -100, -100], [-100, -100, 9, 9, 9, 9]]


def test_after_an_end_only_ends_are_written_and_none_counts(pair):
    model, prompts = load(pair[0]), torch.randint(1, 300, (64, 2))
    likely = int(sample([model], [1.0], prompts, 8, end=-1, seed=0).tokens.flatten().mode().values)
    found = sample([model], [1.0], prompts, 8, end=likely, seed=0)
    ended = 0
    for tokens, counts in zip(found.tokens.tolist(), found.counts.tolist(), strict=True):
        first = tokens.index(likely) if likely in tokens else 7
        assert counts == [i <= first for i in range(8)]
        assert set(tokens[first + 1 :]) <= {likely}
        ended += first < 7
    assert 0 < ended < 64


def test_returns_are_the_mean_of_later_rewards_and_do_not_see_padding():
    rewards = torch.randn(3, 6, dtype=torch.float64)
    lengths = (6, 4, 1)
    counts = torch.stack([torch.arange(6) < n for n in lengths])
    found = length_normalised(rewards, counts)
    for row, n, ours in zip(rewards, lengths, found, strict=True):
        for t in range(n):
            later = row[t + 1 : n]
            assert ours[t] == pytest.approx(float(later.mean()) if len(later) else 0.0)
    padded = length_normalised(
        torch.nn.functional.pad(rewards, (0, 5), value=9.0), torch.nn.functional.pad(counts, (0, 5))
    )
    assert torch.allclose(padded[:, :6][counts], found[counts])
    ones = length_normalised(torch.ones(1, 5), torch.tensor([[1, 1, 1, 0, 0]]))
    assert ones[0, :3].tolist() == [1, 1, 0]


def test_the_gradient_is_that_of_the_reverse_kl_of_whole_texts():
    """Texts of two tokens, all of them, each as often as the student writes it: nothing is estimated."""
    draw = torch.Generator().manual_seed(0)
    first, second = (
        torch.randn(*s, generator=draw, dtype=torch.float64).requires_grad_() for s in ((4,), (4, 4))
    )
    p1, p2 = (torch.randn(*s, generator=draw, dtype=torch.float64) for s in ((4,), (4, 4)))

    def logs(a, b):
        return a.log_softmax(-1)[:, None] + b.log_softmax(-1)

    whole = logs(first, second)
    (whole.exp() * (whole - logs(p1, p2))).sum().backward()
    due = first.grad.clone(), second.grad.clone()
    first.grad = second.grad = None

    total = torch.zeros((), dtype=torch.float64)
    for a, b in product(range(4), repeat=2):
        labels = torch.tensor([a, b])
        ours, theirs = torch.stack([first, second[a]]), torch.stack([p1, p2[a]])
        old, known = (x.detach().log_softmax(-1).gather(-1, labels[:, None])[:, 0] for x in (ours, theirs))
        returns = length_normalised((known - old)[None], torch.ones(1, 2, dtype=torch.bool))[0]
        loss, _ = policy_loss(ours, theirs, labels, old, torch.ones(2, dtype=torch.float64), returns, 0.2)
        total = total + logs(first, second)[a, b].detach().exp() * loss
    total.backward()
    for parameter, wanted in zip((first, second), due, strict=True):
        assert torch.allclose(parameter.grad, wanted, atol=1e-12)


@pytest.mark.parametrize("gain, drift, moves", [(1.0, 0.5, False), (-1.0, 0.5, True), (1.0, -0.5, True),
                                                (-1.0, -0.5, False), (1.0, 0.1, True)])  # fmt: skip
def test_an_update_that_went_far_enough_is_clipped(gain, drift, moves):
    """drift: log(q / m) of the token. weights 0: the single-step part is left out."""
    logits = torch.randn(1, 5, requires_grad=True)
    label = torch.tensor([2])
    mixed = logits.detach().log_softmax(-1)[:, 2] - drift
    loss, _ = policy_loss(logits, torch.zeros(1, 5), label, mixed, torch.zeros(1), torch.tensor([gain]), 0.2)
    loss.backward()
    assert bool(logits.grad.abs().max() > 1e-6) == moves


def test_the_objective_is_the_formula_on_whole_logits(pair, tiny_corpus_folder):
    start, folder = pair
    student, teacher = load(start), load(folder)
    lesson = MiniLLMLesson(tiny_corpus_folder, folder, recipe(pretraining=0.7))
    objective, feed = lesson.prepare(student, start, TRAINING, torch.device("cpu"))
    part = {name: torch.from_numpy(array) for name, array in feed.parts(TRAINING, 0).items()}
    sums = objective(**part)
    sums.total.backward()
    ours = {name: p.grad.clone() for name, p in student.named_parameters()}
    student.zero_grad()

    kept = part["labels"] != IGNORED
    logits, theirs = (model(part["input_ids"]).logits[kept] for model in (student, teacher))
    known = [part[name][kept] for name in ("mixed", "weights", "returns")]
    loss, divergence = policy_loss(logits, theirs.detach(), part["labels"][kept], *known, 0.2)
    text = part["text"]
    plain = student(text[:, :-1]).logits.flatten(0, 1)
    mean = cross_entropy(plain, text[:, 1:].flatten())
    (loss + 0.7 * kept.sum() * mean).backward()
    assert float(sums.divergence) == pytest.approx(float(divergence.detach()), rel=1e-4)
    assert float(sums.cross_entropy) == pytest.approx(float(kept.sum() * mean.detach()), rel=1e-4)
    for name, parameter in student.named_parameters():
        assert torch.allclose(ours[name], parameter.grad, rtol=1e-3, atol=1e-4 * parameter.grad.abs().max())


def test_texts_are_written_once_for_several_steps_and_each_batch_comes_again(pair, tiny_corpus_folder):
    start, teacher = pair
    lesson = MiniLLMLesson(tiny_corpus_folder, teacher, recipe(collected=3, passes=2))
    _, feed = lesson.prepare(load(start), start, TRAINING, torch.device("cpu"))
    skipped = replace(TRAINING, skip=100)
    steps = [feed.parts(skipped, 100 + i) for i in range(7)]
    same = [all(np.array_equal(a["labels"], b["labels"]) for a, b in zip(steps[:3], steps[3:6], strict=True))]
    assert same == [True]
    assert not np.array_equal(steps[0]["labels"], steps[1]["labels"])
    assert not np.array_equal(steps[0]["labels"], steps[6]["labels"])
    assert not np.array_equal(steps[0]["text"], steps[3]["text"])  # the corpus goes on
    assert len(steps[0]["text"]) == len(steps[0]["labels"]) == TRAINING.batch // 2


def test_the_share_of_steps_on_own_text(pair, tiny_corpus_folder):
    start, teacher = pair
    lesson = lessons(tiny_corpus_folder, teacher)["GKD"]
    _, feed = lesson.prepare(load(start), start, TRAINING, torch.device("cpu"))
    own = [bool((feed.parts(TRAINING, step)["labels"] == IGNORED).any()) for step in range(60)]
    assert 15 < sum(own) < 45
    plain = Tokens(tiny_corpus_folder).batch(TRAINING.seed, own.index(False), 4, 16)
    assert np.array_equal(feed.parts(TRAINING, own.index(False))["input_ids"], plain[:, :-1])


@pytest.mark.parametrize("method", ["GKD", "MiniLLM"])
def test_micro_batches_change_nothing_though_texts_have_many_lengths(
    method, pair, tiny_corpus_folder, tmp_path
):
    """The loss of a step is divided by the tokens that were written in all of it."""
    start, teacher = pair
    losses = []
    for accumulation in (1, 2):
        training = replace(TRAINING, tokens=8 * 4 * 16, lr=1e-6, accumulation=accumulation)
        out = tmp_path / f"{accumulation}"
        for name in ("out", "state"):
            (out / name).mkdir(parents=True)
        lesson = lessons(tiny_corpus_folder, teacher)[method]
        train(start, lesson, training, training.lr, out / "out", out / "state")
        steps = json.loads((out / "out" / "steps.json").read_text())
        losses.append(np.array([[*row.values()] for row in steps]))
    assert np.allclose(*losses, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["GKD", "MiniLLM"])
def test_the_student_comes_nearer_and_a_killed_run_goes_on(method, pair, tiny_corpus_folder, tmp_path):
    start, teacher = pair
    lesson = lessons(tiny_corpus_folder, teacher, pretraining=0.0)[method]
    feed = {"GKD": onpolicy.OwnText, "MiniLLM": Rollouts}[method]

    def run(name: str):
        for folder in ("out", "state"):
            (tmp_path / name / folder).mkdir(parents=True, exist_ok=True)
        return train(start, lesson, TRAINING, TRAINING.lr, tmp_path / name / "out", tmp_path / name / "state")

    run("whole")

    def apart(folder) -> float:
        """The reverse KL of whole texts, estimated on many that the student writes."""
        prompts = torch.from_numpy(Tokens(tiny_corpus_folder).windows("test", 256, 4)[:, :-1]).repeat(8, 1)
        found = sample([load(folder), load(teacher)], (1.0, 0.0), prompts, 12, end=0, seed=9)
        return float(((found.logs[0] - found.logs[1]) * found.counts).sum() / len(prompts))

    assert apart(tmp_path / "whole" / "out") < 0.9 * apart(start)

    with dying_at(21, feed):
        run("killed")
    run("killed")
    ours, theirs = (tmp_path / name / "out" / "model.safetensors" for name in ("whole", "killed"))
    assert ours.read_bytes() == theirs.read_bytes()


def test_bad_choices_are_refused():
    start = Random(SHAPES["gpt2"], Corpus())
    given = (start, start, Corpus(), TRAINING)
    for kind, changes, what in (
        (OnPolicy, {"share": 1.5}, "share 1.5"),
        (OnPolicy, {"prompt": 17}, "prompt 17 must lie in 1..16"),
        (OnPolicy, {"loss": Loss("jsd", 0.5)}, "set cross_entropy to 0"),
        (MiniLLM, {"prompt": 4, "mixed": 1.0}, "teacher's share 1.0"),
        (MiniLLM, {"prompt": 4, "passes": 0}, "at least 1"),
        (MiniLLM, {"prompt": 4, "clip": 0.0}, "clip must be positive"),
    ):
        with pytest.raises(CbdError, match=what):
            kind(*given, **changes)
    with pytest.raises(CbdError, match="vocabularies"):
        OnPolicy(Random(gpt2(1, 32, head_dim=16, vocab=61), Corpus()), *given[1:])
    with pytest.raises(CbdError, match="batch 3"):
        MiniLLM(start, start, Corpus(), replace(TRAINING, batch=3), prompt=4)


def test_several_processes_are_refused(pair, tiny_corpus_folder, monkeypatch):
    monkeypatch.setattr(onpolicy, "PartialState", lambda: type("State", (), {"num_processes": 2}))
    for lesson in lessons(tiny_corpus_folder, pair[1]).values():
        with pytest.raises(CbdError, match="start it without torchrun"):
            lesson.prepare(load(pair[0]), pair[0], TRAINING, torch.device("cpu"))


def test_a_token_costs_what_is_done_for_it():
    small, large = Random(SHAPES["gpt2"], Corpus()), Random(gpt2(3, 64, vocab=300, positions=32), Corpus())
    ours, theirs = (model.spec.forward_flops(16) for model in (small, large))
    trained = small.spec.training_flops(16)
    assert OnPolicy(large, small, Corpus(), TRAINING).flops_per_token == trained + theirs + ours // 2
    run = MiniLLM(large, small, Corpus(), TRAINING, passes=4)
    assert run.flops_per_token == trained + theirs // 2 + (ours + theirs) // 8
