"""What training promises: a plain loop's numbers, however cut into micro-batches, processes and lives."""

import json
import math
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dense import divergence
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import GPT2LMHeadModel

from cbd.data import documents
from cbd.data.documents import folder_corpus
from cbd.data.tokens import Tokens
from cbd.errors import CbdError
from cbd.evaluation.held_out import HeldOut, evaluate
from cbd.models.forward import load
from cbd.realize import store
from cbd.realize.run import realize
from cbd.recipes.models import Random
from cbd.recipes.specs import gpt2
from cbd.recipes.training import Anchor, Loss, Search, Trained, Training
from cbd.training import loop
from cbd.training.lessons import DistilledLesson, Objective, PlainLesson
from cbd.training.loop import lr_factor, train

VOCAB, CONTEXT, STEPS = 300, 16, 10
BIG = {"layers": 2, "width": 32, "vocab": VOCAB, "positions": 32}
TINY = {"layers": 1, "width": 32, "vocab": VOCAB, "positions": 32, "seed": 1}
TRAINING = Training(
    tokens=STEPS * 4 * CONTEXT,
    lr=3e-3,
    batch=4,
    context=CONTEXT,
    seed=3,
    evaluations=3,
    evaluation_tokens=20 * CONTEXT,
)
PLAIN, DISTILLED = Loss(), Loss("reverse_kl", cross_entropy=0.3, temperature=2.0)


@pytest.fixture(scope="module")
def corpus(tiny_corpus_folder) -> Path:
    return tiny_corpus_folder


@pytest.fixture(scope="module")
def start(save_gpt2, corpus) -> Path:
    return save_gpt2(**TINY, tokenizer=corpus)


@pytest.fixture(scope="module")
def teacher(save_gpt2, corpus) -> Path:
    return save_gpt2(**BIG, tokenizer=corpus)


def lesson(corpus: Path, loss: Loss, teacher: Path) -> PlainLesson | DistilledLesson:
    return PlainLesson(corpus) if loss.divergence == "none" else DistilledLesson(corpus, teacher, loss)


@pytest.fixture
def run(start, teacher, corpus, tmp_path):
    """`run(loss=..., **changes)`: train the tiny student; returns the folder of the result."""

    def go(loss: Loss = PLAIN, student: Path = start, guide: Path = teacher, **changes) -> Path:
        settings = replace(TRAINING, **changes)
        place = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        out, state = place / "out", place / "state"
        out.mkdir(parents=True)
        state.mkdir()
        train(student, lesson(corpus, loss, guide), settings, settings.lr, out, state)
        return out

    return go


def curve(folder: Path) -> list[dict]:
    return json.loads((folder / "curve.json").read_text())


def logged(folder: Path) -> dict[str, np.ndarray]:
    """What was logged at each step, by name."""
    steps = json.loads((folder / "steps.json").read_text())
    return {name: np.array([step[name] for step in steps]) for name in steps[0]}


def assert_same_trajectory(a: Path, b: Path, largest: float = 1e-5, mean: float = 2e-6) -> None:
    """Loss and gradient norm of every step, the validation curve, and the final weights.

    The gradient norm has to be compared: Adam does not see a gradient that is wrong by a constant factor.
    """
    ours, theirs = logged(a), logged(b)
    for name in ours:
        gap = np.abs(ours[name] - theirs[name])
        assert gap.max() <= largest * max(1, np.abs(theirs[name]).max()), (name, gap.max())
        assert gap.mean() <= mean * max(1, np.abs(theirs[name]).max()), (name, gap.mean())
    for ours, theirs in zip(curve(a), curve(b), strict=True):
        assert ours == pytest.approx(theirs, abs=largest)
    assert_close_weights(load_file(a / "model.safetensors"), load_file(b / "model.safetensors"))


def assert_close_weights(ours: dict, theirs: dict, largest: float = 2e-4, mean: float = 2e-6) -> None:
    """Equal to within a small part of what ten steps at this rate move (0.02).

    All but the bias of the keys, which has no gradient (it moves all scores of a query alike): of rounding in
    its place Adam makes a step of full size.
    """
    assert set(ours) == set(theirs)
    gaps = {name: (ours[name].detach() - theirs[name].detach()).abs() for name in ours}
    for name, gap in gaps.items():
        if name.endswith("attn.c_attn.bias"):
            gap[len(gap) // 3 : 2 * len(gap) // 3] = 0
    every = torch.cat([gap.flatten() for gap in gaps.values()])
    assert every.max() <= largest and every.mean() <= mean, (every.max(), every.mean())


# One loop ----------------------------------------------------------------------------------------------


def plain_loop(start: Path, corpus: Path, settings: Training, loss: Loss, teacher: Path | None):
    """The loop as a textbook has it: dense logits, autograd, plain AdamW. Losses, norms and the model."""
    student = GPT2LMHeadModel.from_pretrained(start).eval()
    guide = GPT2LMHeadModel.from_pretrained(teacher).eval() if teacher else None
    decayed = [p for p in student.parameters() if p.ndim >= 2]
    others = [p for p in student.parameters() if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=settings.betas, foreach=False, fused=False)
    warm = max(1, round(settings.warmup * settings.steps))
    losses, norms = [], []
    for step in range(settings.steps):
        share = (step + 1) / warm
        if step >= warm:
            angle = math.pi * (step - warm) / (settings.steps - warm)
            share = settings.final + (1 - settings.final) * (1 + math.cos(angle)) / 2
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * share
        batch = Tokens(corpus).batch(settings.seed, settings.skip + step, settings.batch, settings.context)
        rows = torch.from_numpy(batch)
        logits, labels = student(rows[:, :-1]).logits, rows[:, 1:]
        value = cross_entropy(logits.flatten(0, 1), labels.flatten())
        if guide is not None:
            with torch.no_grad():
                target = guide(rows[:, :-1]).logits
            apart = divergence(logits, target, loss).mean()
            value = (1 - loss.cross_entropy) * apart + loss.cross_entropy * value
        value.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(student.parameters(), settings.clip)))
        losses.append(float(value.detach()))
        optimizer.step()
        optimizer.zero_grad()
    return np.array(losses), np.array(norms), student


@pytest.mark.parametrize(
    ("loss", "skip"), [(PLAIN, 0), (PLAIN, 7), (DISTILLED, 3)], ids=["plain", "later batches", "distilled"]
)
def test_training_equals_a_plain_loop(run, start, teacher, corpus, loss, skip):
    folder = run(loss, skip=skip)
    guide = teacher if loss.divergence != "none" else None
    losses, norms, student = plain_loop(start, corpus, replace(TRAINING, skip=skip), loss, guide)
    assert np.abs(logged(folder)["loss"] - losses).max() < 1e-5
    assert np.abs(logged(folder)["gradient_norm"] - norms).max() < 1e-4 * norms.max()
    ours = GPT2LMHeadModel.from_pretrained(folder)
    assert_close_weights(dict(ours.named_parameters()), dict(student.named_parameters()))
    before = GPT2LMHeadModel.from_pretrained(start)
    moved = (before.transformer.wte.weight - ours.transformer.wte.weight).abs().max()
    assert moved > 5e-3, "the tolerances above mean something: training moved the weights by far more"


def test_the_logged_loss_is_the_mix_of_its_parts(run):
    steps = logged(run(DISTILLED))
    w = DISTILLED.cross_entropy
    assert steps["loss"] == pytest.approx(
        (1 - w) * steps["divergence"] + w * steps["cross_entropy"], rel=1e-5
    )
    assert (logged(run())["divergence"] == 0).all()


def test_the_result_is_a_checkpoint_with_the_starts_config_and_tokenizer(run, start):
    folder = run()
    config, before = (json.loads((f / "config.json").read_text()) for f in (folder, start))
    assert config == before | {"dtype": "float32"}
    assert (folder / "tokenizer.json").read_bytes() == (start / "tokenizer.json").read_bytes()
    _, info = GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert curve(folder)[-1]["loss"] < curve(folder)[0]["loss"], "it learnt something"


@pytest.mark.parametrize("loss", [PLAIN, DISTILLED], ids=["plain", "distilled"])
def test_there_is_no_dropout_whatever_the_config_says(run, start, teacher, tmp_path, loss):
    def with_dropout(folder: Path, name: str) -> Path:
        copy = shutil.copytree(folder, tmp_path / name)
        config = json.loads((copy / "config.json").read_text())
        config |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.1)
        (copy / "config.json").write_text(json.dumps(config))
        assert GPT2LMHeadModel.from_pretrained(copy).transformer.drop.p == 0.1
        return copy

    guide = with_dropout(teacher, "teacher")
    quiet, noisy = run(loss), run(loss, student=with_dropout(start, "student"), guide=guide)
    assert (noisy / "model.safetensors").read_bytes() == (quiet / "model.safetensors").read_bytes()
    assert curve(noisy) == curve(quiet)


# Micro-batches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [PLAIN, DISTILLED], ids=["plain", "distilled"])
def test_micro_batches_follow_one_trajectory(run, loss):
    whole = run(loss)
    for accumulation in (2, 4):
        assert_same_trajectory(run(loss, accumulation=accumulation), whole)


def test_one_process_trains_in_one_precision_and_then_in_another(run):
    exact, near, again = (run(DISTILLED, precision=precision) for precision in ("fp32", "bf16", "fp32"))
    ends = [curve(folder)[-1]["loss"] for folder in (exact, near, again)]
    assert ends[0] == ends[2] != ends[1]
    assert ends[1] == pytest.approx(ends[0], abs=0.02)


@pytest.fixture
def fresh(start, teacher, corpus):
    """`fresh(loss, accumulation)`: a run in flight, before its first step."""

    def prepare(loss: Loss, accumulation: int):
        settings = replace(TRAINING, accumulation=accumulation)
        return loop.Run(start, lesson(corpus, loss, teacher), settings, settings.lr)

    return prepare


@pytest.mark.parametrize("loss", [PLAIN, DISTILLED], ids=["plain", "distilled"])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_the_denominator_is_the_tokens_trained_on(fresh, start, teacher, loss, accumulation):
    # Three targets a row; the last does not count in three rows of four: micro-batches of unequal weight.
    rows = np.random.default_rng(0).integers(0, VOCAB, (4, 4))
    rows[1:, -1] = -100
    run = fresh(loss, accumulation)
    sums, trained = run._accumulate({"input_ids": rows[:, :-1], "labels": rows[:, 1:]})
    assert trained == 9

    student = GPT2LMHeadModel.from_pretrained(start).eval()
    inputs, labels = torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, 1:])
    logits, kept = student(inputs).logits, labels >= 0
    value = cross_entropy(logits[kept], labels[kept])  # the mean over nine tokens
    if loss.divergence != "none":
        with torch.no_grad():
            target = GPT2LMHeadModel.from_pretrained(teacher).eval()(inputs).logits
        apart = divergence(logits[kept], target[kept], loss).mean()
        value = (1 - loss.cross_entropy) * apart + loss.cross_entropy * value
    value.backward()
    assert float(sums[0] / trained) == pytest.approx(float(value.detach()), rel=1e-5)
    ours = dict(run.objective.student.named_parameters())
    for name, parameter in student.named_parameters():
        assert torch.allclose(ours[name].grad, parameter.grad, atol=1e-6, rtol=1e-4), name


# Learning rate -----------------------------------------------------------------------------------------

SCHEDULES = st.builds(
    lambda steps, **rest: Training(tokens=steps * 4, lr=1.0, batch=1, context=4, **rest),
    steps=st.integers(1, 400),
    schedule=st.sampled_from(["cosine", "wsd"]),
    warmup=st.floats(0, 0.4),
    decay=st.floats(0.05, 0.5),
    final=st.floats(0, 1),
)


@given(SCHEDULES)
def test_the_rate_warms_up_to_its_peak_and_falls_to_its_end(settings):
    factors = [lr_factor(step, settings) for step in range(settings.steps + 1)]
    peak = max(1, round(settings.warmup * settings.steps)) - 1
    assert all(0 <= f <= 1 + 1e-12 for f in factors)
    assert factors[0] > 0, "no step is wasted at rate zero"
    if peak < settings.steps:
        assert factors[peak] == 1
    assert factors[: peak + 1] == pytest.approx([(i + 1) / (peak + 1) for i in range(peak + 1)])
    if peak + 1 < settings.steps:
        assert factors[-1] == pytest.approx(settings.final, abs=1e-12)
    falling = np.diff(factors[peak:-1])
    assert (falling <= 1e-12).all(), "after the peak it never rises"


@given(SCHEDULES, st.integers(0, 400))
def test_a_warm_up_in_tokens_is_the_same_as_its_share(settings, steps):
    steps = min(steps, settings.steps)
    tokens, share = (
        replace(settings, warmup_tokens=4 * steps),
        replace(settings, warmup=steps / settings.steps),
    )
    for step in range(settings.steps):
        assert lr_factor(step, tokens) == lr_factor(step, share)
    assert lr_factor(max(steps, 1) - 1, tokens) == 1


@given(SCHEDULES)
def test_the_rate_has_no_jumps(settings):
    steps = settings.steps
    warm = max(1, round(settings.warmup * steps))
    tail = steps - warm if settings.schedule == "cosine" else max(1, round(settings.decay * steps))
    # a cosine is at most pi/2 as steep as a line; rounding may cut one step off the way down
    steepest = (math.pi / 2 if settings.schedule == "cosine" else 1) / max(1, tail)
    factors = np.array([lr_factor(step, settings) for step in range(steps)])
    assert (np.abs(np.diff(factors[warm - 1 :])) <= steepest + 1e-12).all()


def test_a_cosine_is_halfway_at_half_of_its_way_and_wsd_is_constant_until_its_tail():
    cosine = Training(tokens=4000, lr=1.0, batch=1, context=4, warmup=0.2, final=0.1)
    assert lr_factor(600, cosine) == pytest.approx(0.55)
    wsd = replace(cosine, schedule="wsd", decay=0.3)
    assert {lr_factor(step, wsd) for step in range(199, 701)} == {1.0}
    assert lr_factor(850, wsd) == pytest.approx(0.55)


# Evaluation --------------------------------------------------------------------------------------------


def test_the_held_out_loss_is_huggingfaces_own(start, corpus, monkeypatch):
    held_out = HeldOut.of(Tokens(corpus), "validation", 30 * CONTEXT, CONTEXT)
    model = GPT2LMHeadModel.from_pretrained(start).eval()
    windows = torch.from_numpy(np.concatenate([held_out.inputs, held_out.labels[:, -1:]], axis=1))
    assert windows.shape == (30, CONTEXT + 1) and (held_out.inputs[:, 1:] == held_out.labels[:, :-1]).all()
    with torch.no_grad():
        theirs = [float(model(input_ids=w[None], labels=w[None]).loss) for w in windows]

    for batch in (1, 7, 64):
        monkeypatch.setattr("cbd.evaluation.held_out.BATCH", batch)
        ours = evaluate(Objective(load(start), Loss()), held_out, torch.device("cpu"))
        assert ours["loss"] == pytest.approx(np.mean(theirs), abs=1e-5)
        assert ours["stderr"] == pytest.approx(np.std(theirs, ddof=1) / math.sqrt(30), rel=1e-4)
        assert ours["tokens"] == 30 * CONTEXT


def test_bits_per_byte_spread_the_loss_over_the_texts_bytes(start, corpus, tiny_corpus):
    tokens = Tokens(corpus)
    texts = [
        t
        for t in documents.documents(tiny_corpus)
        if documents.split_of(t, tiny_corpus.held_out) == "validation"
    ]
    held_out = HeldOut.of(tokens, "validation", 10**9, CONTEXT)
    found = evaluate(Objective(load(start), Loss()), held_out, torch.device("cpu"))
    total_bits = found["loss"] / math.log(2) * tokens.count("validation")
    total_bytes = sum(len(text.encode()) for text in texts)
    assert found["bits_per_byte"] == pytest.approx(total_bits / total_bytes, rel=1e-9)


def test_masked_targets_do_not_count_in_an_evaluation(start):
    objective = Objective(load(start), Loss())
    rows = torch.randint(0, VOCAB, (3, 9), generator=torch.Generator().manual_seed(0))
    labels = rows[:, 1:].clone()
    labels[0, 4:], labels[2, :5] = -100, -100
    with torch.no_grad():
        ours = objective(rows[:, :-1], labels, per_row=True)
        logits = GPT2LMHeadModel.from_pretrained(start).eval()(rows[:, :-1]).logits
    theirs = [float(cross_entropy(row, label)) for row, label in zip(logits, labels, strict=True)]
    assert ours.tolist() == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("evaluations", [1, 2, 5, 50])
def test_the_curve_begins_before_the_first_step_and_ends_after_the_last(run, start, corpus, evaluations):
    folder = run(evaluations=evaluations)
    points = curve(folder)
    steps = [point["step"] for point in points]
    assert steps == sorted(set(steps)) and steps[0] == 0 and steps[-1] == STEPS
    assert min(evaluations, 3) <= len(steps) - 1 <= max(evaluations, 2)
    assert [point["trained"] for point in points] == [step * 4 * CONTEXT for step in steps]
    held_out = HeldOut.of(Tokens(corpus), "validation", TRAINING.evaluation_tokens, CONTEXT)
    for model, point in ((start, points[0]), (folder, points[-1])):
        found = evaluate(Objective(load(model), Loss()), held_out, torch.device("cpu"))
        assert {name: point[name] for name in found} == pytest.approx(found, rel=1e-6)


# Errors ------------------------------------------------------------------------------------------------


@pytest.fixture
def no_work(monkeypatch):
    """A refusal has to come before anything is computed."""

    def computed(*_, **__):
        pytest.fail("work was done before the refusal")

    monkeypatch.setattr(loop, "evaluate", computed)
    monkeypatch.setattr(loop.Run, "optimise", computed)


def test_a_vocabulary_smaller_than_the_corpus_is_refused(run, save_gpt2, no_work):
    small = save_gpt2(**TINY | {"vocab": 200})
    with pytest.raises(CbdError, match=r"\(200\) is smaller than the corpus' \(300\)"):
        run(student=small)


@pytest.mark.parametrize("vocab", [310, 299])
def test_a_teacher_of_another_vocabulary_is_refused(run, save_gpt2, no_work, vocab):
    guide = save_gpt2(**BIG | {"vocab": vocab})
    with pytest.raises(CbdError, match=rf"vocabular.*{vocab}"):
        run(DISTILLED, guide=guide)


def test_a_batch_that_the_processes_do_not_divide_is_refused(run, monkeypatch, no_work):
    monkeypatch.setattr(loop.Accelerator, "num_processes", 3)
    with pytest.raises(CbdError, match="batch 4 does not divide into 3 processes"):
        run()


@pytest.mark.parametrize("steps", [1, STEPS])
def test_a_loss_that_is_no_number_is_one_error_that_names_the_rate(run, steps):
    # also when the last step breaks the model, which no training loss is there to show
    with pytest.raises(CbdError, match=r"lower the learning rate \(1e\+30\)"):
        run(lr=1e30, tokens=steps * 4 * CONTEXT)


# Lives and processes -----------------------------------------------------------------------------------

# A process that has imported everything forks one for each request: real processes, no seconds of imports.
# A request is a pickled dict: `recipe`, `env`, and `die`, (place, count, when): where it kills itself.
ZYGOTE = """
import os, pickle, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from transformers import AutoModelForCausalLM, GPT2Config
AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=8))  # imports the rest
from cbd.models import checkpoints
from cbd.realize import store
from cbd.training import loop
from cbd.realize import realize

def shard():
    # FSDP over gloo: accelerate 1.15 has no setting for it on a CPU, but all that version 2 needs. Version 1
    # fails there in torch: "Inconsistent compute device and `device_id` on rank 0: cpu vs cpu:0".
    from accelerate import Accelerator
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    class Sharding(Accelerator):
        def __init__(self, **options):
            super().__init__(**options)
            self.state.fsdp_plugin = FullyShardedDataParallelPlugin(
                fsdp_version=2,
                auto_wrap_policy="transformer_based_wrap",
                transformer_cls_names_to_wrap=["GPT2Block"],
            )
            self.state.distributed_type = DistributedType.FSDP

    loop.Accelerator = Sharding

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def fatal(function, count, when):
    calls = 0
    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == count and when == "before":
            die()
        result = function(*args, **kwargs)
        if calls == count:
            if when == "half":  # the file is there, cut in two
                os.truncate(args[1], os.path.getsize(args[1]) // 2)
            die()
        return result
    return wrapped

PLACES = {
    "a step": (loop.Run, "optimise"),
    "an evaluation": (loop.Run, "measure"),
    "the state's files": (loop, "save_file"),
    "the state's rename": (Path, "replace"),
    "the old state's removal": (loop.shutil, "rmtree"),
    "the result's files": (checkpoints, "save_file"),
    "the record": (store, "_write_record"),
    "publishing": (store, "publish"),
}

def serve(request):
    os.environ.update(request["env"])
    if request.get("sharded"):
        shard()
    if request.get("die"):
        place, count, when = request["die"]
        owner, name = PLACES[place]
        setattr(owner, name, fatal(getattr(owner, name), count, when))
    steps = []
    optimise = loop.Run.optimise
    loop.Run.optimise = lambda run: (steps.append(run.progress.step), optimise(run))[1]
    try:
        realize(request["recipe"])
    finally:
        Path(request["report"]).write_text(repr(steps))

for line in sys.stdin.buffer:
    requests = pickle.loads(bytes.fromhex(line.decode().strip()))
    children = []
    for request in requests:
        child = os.fork()
        if child == 0:
            log = os.open(request["report"] + ".log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1), os.dup2(log, 2), os.close(0)
            status = 1
            try:
                serve(request)
                status = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(status)
        children.append(child)
    print(*children, flush=True)
    print(*(os.waitpid(child, 0)[1] for child in children), flush=True)
"""


class Zygote:
    """Runs recipes in processes of their own."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, 0
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, "-c", ZYGOTE], **pipes)

    def begin(self, requests: list[dict]) -> list[int]:
        """Start a process for each request; returns their ids."""
        for request in requests:
            self.count += 1
            request["report"] = str(self.folder / f"report{self.count}")
        self.process.stdin.write(pickle.dumps(requests).hex().encode() + b"\n")
        self.process.stdin.flush()
        return [int(word) for word in self.process.stdout.readline().split()]

    def end(self) -> list[int]:
        """Wait for all of them; returns their exit codes (minus the signal that killed one)."""
        words = self.process.stdout.readline().split()
        return [os.waitstatus_to_exitcode(int(word)) for word in words]

    def run(self, recipe, place: Path, die=None, **env) -> tuple[int, list[int]]:
        """Realise a recipe in the store `place`; returns the exit code and the steps taken."""
        request = {
            "recipe": recipe,
            "die": die,
            "env": {"CBD_STORE": str(place), "CBD_CHECKPOINT_SECONDS": "0"} | env,
        }
        self.begin([request])
        (code,) = self.end()
        assert code in (0, -signal.SIGKILL), Path(request["report"] + ".log").read_text()
        return code, [] if code else json.loads(Path(request["report"]).read_text())


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    made = Zygote(tmp_path_factory.mktemp("reports"))
    yield made
    made.process.stdin.close()
    made.process.wait(timeout=60)


@contextmanager
def store_at(place: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CBD_STORE", str(place))
        yield


@pytest.fixture(scope="module")
def recipes(text_folder) -> dict[str, Trained | Anchor]:
    text = folder_corpus(text_folder, vocab_size=VOCAB, held_out=0.1)
    big, small = (gpt2(n, 32, head_dim=16, vocab=VOCAB, positions=32) for n in (2, 1))
    plain = Trained(Random(big, text), text, TRAINING)
    return {
        "plain": Trained(Random(small, text, 1), text, TRAINING),
        "distilled": Anchor(plain.start, Random(small, text, 1), text, TRAINING, DISTILLED),
    }


@pytest.fixture(scope="module")
def whole(recipes, tmp_path_factory) -> Path:
    """A store in which both recipes were made without interruption, in this process."""
    place = tmp_path_factory.mktemp("whole")
    with store_at(place):
        for recipe in recipes.values():
            realize(recipe)
    return place


@pytest.fixture
def prepared(whole, recipes, tmp_path) -> Path:
    """A store in which only the inputs are finished."""
    place = tmp_path / "store"
    for kind in {type(r).__name__ for recipe in recipes.values() for r in recipe.inputs}:
        shutil.copytree(whole / kind, place / kind)
    return place


def results_in(place: Path, recipe) -> dict[str, bytes]:
    folder = place / type(recipe).__name__ / recipe.key
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != store.RECORD}


DEATHS = {
    "in the first step": ("a step", 1, "before", 0),
    "in a later step": ("a step", 6, "after", 5),
    "in an evaluation": ("an evaluation", 3, "before", None),
    "between the two files of a state": ("the state's files", 7, "after", 3),
    "in the weights of a state": ("the state's files", 7, "half", 3),
    "in the moments of a state": ("the state's files", 8, "half", 3),
    "before a state's rename": ("the state's rename", 4, "before", 3),
    "after a state's rename": ("the state's rename", 4, "after", 4),
    "in the weights of the result": ("the result's files", 1, "half", STEPS - 1),
    "before the record": ("the record", 1, "before", STEPS - 1),
    "before publishing": ("publishing", 1, "before", STEPS - 1),
}


@pytest.mark.parametrize(
    ("kind", "death"),
    [("plain", death) for death in DEATHS]
    + [("distilled", death) for death in ("in a later step", "in the moments of a state")],
)
def test_killed_anywhere_a_run_goes_on_to_the_same_bits(zygote, whole, prepared, recipes, kind, death):
    *where, saved = DEATHS[death]
    recipe = recipes[kind]
    code, _ = zygote.run(recipe, prepared, die=tuple(where))
    assert code == -signal.SIGKILL
    assert not (prepared / type(recipe).__name__ / recipe.key).exists()
    code, steps = zygote.run(recipe, prepared)
    assert code == 0
    assert steps == list(range(steps[0], STEPS)), "every step once, in order"
    if saved is not None:
        assert steps[0] == saved, "it went on from the last whole state, not from the beginning"
    assert results_in(prepared, recipe) == results_in(whole, recipe)


def test_killed_again_and_again_from_outside_a_run_ends_with_the_same_bits(zygote, whole, prepared, recipes):
    recipe, work = recipes["distilled"], prepared / "work" / recipes["distilled"].key / "state"
    env = {"CBD_STORE": str(prepared), "CBD_CHECKPOINT_SECONDS": "0"}
    kills = 0
    for target in (2, 5, 8):
        (process,) = zygote.begin([{"recipe": recipe, "env": env}])
        while not any(int(p.name[5:]) >= target for p in work.glob("step-*")) and not results_exist(
            prepared, recipe
        ):
            pass  # no sleep: a step takes milliseconds
        os.kill(process, signal.SIGKILL)
        kills += zygote.end() == [-signal.SIGKILL]
    assert kills, "the run was over before any kill"
    code, _ = zygote.run(recipe, prepared)
    assert code == 0 and results_in(prepared, recipe) == results_in(whole, recipe)


def results_exist(place: Path, recipe) -> bool:
    return (place / type(recipe).__name__ / recipe.key).exists()


def test_states_are_kept_one_at_a_time_and_thrown_away_at_the_end(zygote, prepared, recipes):
    recipe = recipes["plain"]
    zygote.run(recipe, prepared, die=("a step", 6, "after"))
    state = prepared / "work" / recipe.key / "state"
    assert [path.name for path in state.iterdir()] == ["step-000000005"]
    zygote.run(recipe, prepared)
    assert not state.parent.exists()


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def assert_same_curve(place: Path, whole: Path, recipe) -> None:
    """The one-process numbers, apart from the order of sums."""
    folders = [p / type(recipe).__name__ / recipe.key for p in (place, whole)]
    assert_same_trajectory(*folders)
    assert json.loads((folders[0] / store.RECORD).read_text())["processes"] == 2
    assert not list((place / "work").glob("*")) and set(results_in(place, recipe)) == set(
        results_in(whole, recipe)
    )


def test_two_launched_processes_give_the_one_process_curve(whole, prepared, recipes, tmp_path):
    recipe = recipes["distilled"]
    (tmp_path / "recipe").write_bytes(pickle.dumps(recipe))
    script = tmp_path / "run.py"
    script.write_text(
        "import pickle, sys\nfrom cbd.realize import realize\nrealize(pickle.load(open(sys.argv[1], 'rb')))\n"
    )
    # torchrun, since `accelerate launch --cpu` starts one process whatever it is told (1.15)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launch += ["--master_port", free_port()]
    done = subprocess.run(
        [*launch, str(script), str(tmp_path / "recipe")],
        env=os.environ | {"CBD_STORE": str(prepared)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert_same_curve(prepared, whole, recipe)


def ranks(recipe, place: Path, count: int = 2, **more) -> list[dict]:
    """What `torchrun` would give each of its processes."""
    port = free_port()
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": port, "ACCELERATE_USE_CPU": "true", "CBD_STORE": str(place)}
    shared |= {"CBD_CHECKPOINT_SECONDS": "0"}
    return [
        {"recipe": recipe, "env": shared | {"RANK": str(i), "LOCAL_RANK": str(i)}} | more
        for i in range(count)
    ]


def logs(requests: list[dict]) -> str:
    return "\n".join(Path(request["report"] + ".log").read_text() for request in requests)


@pytest.mark.parametrize("sharded", [False, True], ids=["DDP", "FSDP"])
def test_two_processes_that_are_killed_go_on_together(zygote, whole, prepared, recipes, sharded):
    recipe = recipes["plain"]
    pair = ranks(recipe, prepared, sharded=sharded)
    for request in pair:
        request["die"] = ("a step", 6, "after")
    zygote.begin(pair)
    codes = zygote.end()
    assert -signal.SIGKILL in codes and 0 not in codes, logs(pair)  # one may see the other die before it does
    pair = ranks(recipe, prepared, sharded=sharded)
    zygote.begin(pair)
    assert zygote.end() == [0, 0], logs(pair)
    assert [json.loads(Path(r["report"]).read_text())[0] for r in pair] == [5, 5]
    assert_same_curve(prepared, whole, recipe)


def test_two_processes_with_sharded_weights_give_the_one_process_curve(zygote, whole, prepared, recipes):
    recipe = recipes["distilled"]
    pair = ranks(recipe, prepared, sharded=True)
    zygote.begin(pair)
    assert zygote.end() == [0, 0], logs(pair)
    assert_same_curve(prepared, whole, recipe)


def test_two_processes_search_together_and_find_what_one_finds(zygote, whole, prepared, recipes):
    run = recipes["plain"]
    short = replace(TRAINING, tokens=4 * 4 * CONTEXT, warmup_tokens=2 * 4 * CONTEXT, evaluations=1)
    recipe = Search(run.start, run.corpus, short, (1, 2))
    pair = ranks(recipe, prepared)
    zygote.begin(pair)
    assert zygote.end() == [0, 0], logs(pair)
    with store_at(whole):
        realize(recipe)
    together, alone = (
        json.loads((place / "Search" / recipe.key / "search.json").read_text()) for place in (prepared, whole)
    )
    assert together["best"] == alone["best"]
    for ours, theirs in zip(together["tried"], alone["tried"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert not list((prepared / "work").glob("*"))


def test_every_process_of_a_launch_gets_the_refusal(zygote, prepared, recipes):
    recipe = recipes["plain"]
    odd = replace(recipe, training=replace(TRAINING, batch=3))
    pair = ranks(odd, prepared)
    zygote.begin(pair)
    assert zygote.end() == [1, 1]
    for request in pair:
        assert (
            "CbdError: batch 3 does not divide into 2 processes"
            in Path(request["report"] + ".log").read_text()
        )
