"""The way that a user takes, from end to end: chain, init, recover, eval, on folders as a user has them.

Each step was exact by itself while two together gave a model worse than random weights: no two neighbours of
a chain shared a basis. So the steps are tried one after the other, on a source that has learnt something.
"""

from __future__ import annotations

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cbd import cli
from cbd.commands import choose
from cbd.commands.init import Size, in_one_basis, init_checkpoint
from cbd.commands.own import anchor_rate, default_precision, opened, source_of, text_for
from cbd.models import basis
from cbd.models.checkpoints import Checkpoint
from cbd.models.interpolation import rewrite, transfer
from cbd.realize import pending, realize, realize_all, store
from cbd.recipes.evaluation import Evaluated
from cbd.recipes.models import Random
from cbd.recipes.operators import Trans
from cbd.recipes.specs import NAMED, ModelSpec, gpt2, llama
from cbd.recipes.training import Trained, Training

CONTEXT = 32
SHAPES = {
    "gpt2": gpt2(4, 64, head_dim=16, vocab=300, positions=CONTEXT),
    "llama": llama(4, 64, 4, 2, 192, vocab=300, positions=CONTEXT),
}
TRAINING = Training(tokens=40_000, lr=5e-3, batch=8, context=CONTEXT, evaluations=1, evaluation_tokens=512)


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module", params=SHAPES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def source(family, tiny_corpus, tmp_path_factory) -> Path:
    """A trained checkpoint with its tokenizer, and nothing of ours beside it."""
    trained = realize(Trained(Random(SHAPES[family], tiny_corpus), tiny_corpus, TRAINING))
    folder = tmp_path_factory.mktemp("user") / "my-model"
    folder.mkdir()
    for path in trained.iterdir():
        if path.name in ("config.json", "model.safetensors") or path.name.startswith("tokenizer"):
            shutil.copyfile(path, folder / path.name)
    return folder


@pytest.fixture(scope="module")
def chain(source, text_folder) -> Path:
    """The chain that `cbd chain` makes of it: two steps, by depth and then by both."""
    out = source.parent / "chain"
    options = ("--tokens", 20_000, "--context", CONTEXT, "--lr", 3e-3)
    assert run("chain", "--source", source, "--anchors", "2x64,1x32", "--corpus", text_folder, *options,
               "--out", out) == 0  # fmt: skip
    return out


@pytest.fixture
def loss_of(text_folder):
    """The loss of a checkpoint folder on held-out text, nats per token."""

    def measure(folder: Path) -> float:
        text = text_for(opened(folder), text_folder, "text", CONTEXT)
        measured = Evaluated(source_of(folder), text, 2048, CONTEXT)
        return json.loads((realize(measured) / "metrics.json").read_text())["loss"]

    return measure


def logits(folder: Path) -> torch.Tensor:
    ids = torch.arange(2 * CONTEXT).reshape(2, CONTEXT) % 300
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits


def test_the_commands_of_a_plan_for_ones_own_sizes_lead_to_them(
    source, text_folder, tmp_path, monkeypatch, capsys
):
    """As printed, but for the short context that this source has."""
    whole = opened(source).spec.parameters
    targets = [round(share * whole) for share in (0.3, 0.5, 0.8)]
    words = ("--targets", ",".join(map(str, targets)), "--budget", 1e11, "--source", whole)
    assert run("plan", *words) == 0
    commands = [
        line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("  cbd ")
    ]
    assert [command[0] for command in commands][:2] == ["chain", "init"]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(source, "source")
    shutil.copytree(text_folder, "texts")
    for command in commands:
        context = [] if command[0] == "init" else ["--context", CONTEXT]
        assert run(*command, *context) == 0
    made = [opened(folder).spec.parameters for folder in Path().glob("start-*")]
    assert sorted(made) == pytest.approx(targets, rel=0.15)
    for folder in Path().glob("slm-*"):
        told = json.loads((folder / "cbd.json").read_text())
        assert told["after"] < told["before"] + 0.02 and told["teacher"] is told["loss"] is None
        assert "next-token cross-entropy" in (folder / "README.md").read_text()
    assert len(list(Path().glob("slm-*"))) == len(targets)


def ends_of(chain: Path, size: tuple, folder: Path, loss_of) -> list[float]:
    """The losses of either model alone at a size: the smaller one grown, the larger one cut."""
    for start in ("grown", "cut"):
        assert run("init", "--chain", chain, *size, "--start", start, "--out", folder / start) == 0
    return [loss_of(folder / start) for start in ("grown", "cut")]


def test_four_commands_lead_from_a_checkpoint_to_a_finished_small_model(
    chain, text_folder, tmp_path, loss_of, capsys
):
    size = ("--layers", 3, "--width", 64)
    assert run("init", "--chain", chain, *size, "--out", tmp_path / "slm") == 0
    said = capsys.readouterr().out
    assert "from small 2x64 and large 4x64" in said and "operator union" in said and "alpha 0.5" in said
    slm, ends = loss_of(tmp_path / "slm"), ends_of(chain, size, tmp_path, loss_of)
    assert slm < max(ends) and slm < min(ends) + 0.1
    texts = {
        text_for(opened(f), text_folder, "text", CONTEXT).key for f in (chain / "4x64", tmp_path / "slm")
    }
    assert len(texts) == 1, "one tokenizer, wherever it lies: the text is tokenized once"

    options = ("--corpus", text_folder, "--context", CONTEXT, "--tokens", 4096, "--lr", 1e-3)
    tuned = tmp_path / "slm-tuned"
    assert run("recover", tmp_path / "slm", "--teacher", chain / "4x64", *options, "--out", tuned) == 0
    assert loss_of(tuned) < slm + 0.01
    curve = json.loads((tuned / "curve.json").read_text())
    assert f"loss {curve[0]['loss']:.4f} before, {curve[-1]['loss']:.4f} after" in capsys.readouterr().out
    assert "distilled from `4x64`" in (tuned / "README.md").read_text()

    scores = tmp_path / "scores.json"
    task = ("--tasks", "cbd_cloze", "--scale", "smoke", "--limit", 8)
    assert run("eval", tuned, *task, "--out", scores) == 0, capsys.readouterr().err
    assert set(json.loads(scores.read_text())["scores"]) == {"cbd_cloze"}


def test_a_size_between_the_anchors_starts_near_the_better_of_them(chain, tmp_path, loss_of):
    """In the lower pair, whose larger model is cut in width as well; then by parameters."""
    size = ("--layers", 2, "--width", 32)
    assert run("init", "--chain", chain, *size, "--out", tmp_path / "slm") == 0
    slm, ends = loss_of(tmp_path / "slm"), ends_of(chain, size, tmp_path, loss_of)
    assert slm < max(ends) and slm < min(ends) + 0.1
    for start in ("mixed", "grown", "cut"):
        out = tmp_path / f"{start} by count"
        assert run("init", "--chain", chain, "--parameters", "170k", "--start", start, "--out", out) == 0
        assert Checkpoint(out).spec.name == "3x64"


def test_a_model_that_is_cut_keeps_what_is_worth_most(chain, source, tmp_path, loss_of):
    """Its principal axes, which a chain knows, and not the channels that are important or come first."""
    size = ("--layers", 2, "--width", 32, "--start", "cut")
    assert run("init", "--chain", chain, *size, "--out", tmp_path / "axes") == 0
    assert run("init", "--large", chain / "2x64", *size, "--out", tmp_path / "sorted") == 0
    (tmp_path / "first").mkdir()
    model = Checkpoint(chain / "2x64")
    transfer(model, model.spec.resized(2, 32), tmp_path / "first", Trans())
    axes, importance, first = (loss_of(tmp_path / name) for name in ("axes", "sorted", "first"))
    assert axes < min(importance, first) - 0.2


def test_every_anchor_says_how_its_teacher_lies_to_it(chain, source, tmp_path):
    """Its leading units are the anchor's after one step and after two, though the files lie otherwise."""
    content = json.loads((chain / "chain.json").read_text())
    assert [row["folder"] for row in content["models"]] == ["4x64", "2x64", "1x32"]
    assert torch.equal(logits(chain / "4x64"), logits(source))
    assert content["source"]["fingerprint"] == Checkpoint(source).fingerprint()
    assert [row.get("lr") for row in content["models"]] == [None, 3e-3, 3e-3], "as it was asked for"
    models = [Checkpoint(chain / row["folder"]) for row in content["models"]]
    for row, model in zip(content["models"], models, strict=True):
        assert row["sha256"] == model.hashes()
        loaded_by_any_tool = [path.name for path in model.folder.glob("*.safetensors")]
        assert loaded_by_any_tool == ["model.safetensors"]
    for large, small in (*pairwise(models), (models[0], models[2]), (Checkpoint(source), models[2])):
        view, about = in_one_basis(small, large, unaligned=False)
        assert about == {"aligned": "by their chain's record"}
        found = basis.compare(small, view)
        assert found.kind == "same" and min(found.stream, found.blocks) > 0.6
        folder = tmp_path / f"{large.folder.name} {small.folder.name}"
        folder.mkdir()
        rewrite(view, folder)
        change = (logits(folder) - logits(large.folder)).abs().mean() / logits(large.folder).std()
        assert change < (1e-4 if small.spec.width == large.spec.width else 0.05), "but for the last gain"
    assert basis.compare(models[1], models[0]).kind == "permuted", "the first step keeps the width"
    assert basis.compare(models[2], models[1]).kind == "apart", "the second is one of axes"


def test_the_source_as_it_was_is_brought_into_the_chains_basis(chain, source, tmp_path, capsys):
    """By the chain's record, or, where the chain is gone, by matching: the same model either way."""
    size = ("--layers", 3, "--width", 64)
    assert run("init", "--chain", chain, *size, "--out", tmp_path / "expected") == 0
    large = ("--large", source)
    assert run("init", "--small", chain / "2x64", *large, *size, "--out", tmp_path / "recorded") == 0
    assert "by their chain's record" in capsys.readouterr().out
    shutil.copytree(chain / "2x64", tmp_path / "alone")
    (tmp_path / "alone" / "cbd.json").unlink()
    assert run("init", "--small", tmp_path / "alone", *large, *size, "--out", tmp_path / "found") == 0
    assert "by an order of units, found" in capsys.readouterr().out
    for name in ("recorded", "found"):
        assert torch.allclose(logits(tmp_path / name), logits(tmp_path / "expected"), atol=1e-4), name


def test_models_that_were_trained_apart_are_mixed_only_when_asked(chain, tiny_corpus, tmp_path, capsys):
    stranger = realize(
        Trained(Random(chain_shape(chain, "2x64"), tiny_corpus, seed=9), tiny_corpus, TRAINING)
    )
    pair = ("--small", stranger, "--large", chain / "4x64", "--layers", 3, "--width", 64)
    assert run("init", *pair, "--out", tmp_path / "out") == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "--start grown or cut" in errors and "--unaligned" in errors
    assert not list(tmp_path.iterdir())
    assert run("init", *pair, "--unaligned", "--out", tmp_path / "out") == 0
    assert "as they lie" in capsys.readouterr().out


def chain_shape(chain: Path, name: str):
    return Checkpoint(chain / name).spec


def test_a_mixture_in_two_bases_is_worse_and_that_is_why(chain, source, tmp_path, loss_of):
    """What the first version gave its users: the same pair, mixed as the files lie."""
    size = ("--layers", 3, "--width", 64)
    assert run("init", "--chain", chain, *size, "--out", tmp_path / "aligned") == 0
    shutil.copytree(source, tmp_path / "source")
    shutil.copytree(chain / "2x64", tmp_path / "anchor")
    from cbd.models.interpolation import initialize
    from cbd.recipes.operators import UNION

    raw = tmp_path / "raw"
    raw.mkdir()
    initialize(tmp_path / "anchor", tmp_path / "source", chain_shape(chain, "2x64").resized(3, 64), raw,
               operator=UNION)  # fmt: skip
    assert loss_of(raw) > loss_of(tmp_path / "aligned") + 0.3


# The start that is measured -----------------------------------------------------------------------------

TEXT = ("--context", CONTEXT, "--tokens", 1024)


def test_the_best_start_on_a_text_is_found_by_measuring_all(chain, text_folder, tmp_path, capsys):
    size = ("--layers", 3, "--width", 64)
    best = tmp_path / "best"
    assert run("init", "--chain", chain, *size, "--text", text_folder, *TEXT, "--out", best) == 0
    said, about = capsys.readouterr().out, json.loads((best / "cbd.json").read_text())
    rows = about["choice"]["measured"]
    plain = [row for row in rows if row["blocks"] is None]
    mixed = {(row["operator"], row["alpha"]) for row in plain if row["start"] == "mixed"}
    shares = ("distance", 0.25, 0.75, 0.9, 1.0)  # the rule says 0.5
    assert mixed == {("literal", "distance"), *(("union", alpha) for alpha in shares)}
    assert sorted(row["start"] for row in plain if row["start"] != "mixed") == ["cut", "grown"]
    trained = [row["trained"] for row in rows if row["trained"] is not None]
    assert trained == sorted(trained) and len(trained) == 3 and rows[0]["trained"] == trained[0]
    lowest = sorted(row["loss"] for row in rows)
    assert sorted(row["loss"] for row in rows if row["trained"] is not None) == lowest[:3]

    text = text_for(opened(best), text_folder, "text", CONTEXT)

    def loss(folder: Path, split: str = "validation") -> float:
        measured = Evaluated(source_of(folder), text, 8192, CONTEXT, split)
        return json.loads((realize(measured) / "metrics.json").read_text())["loss"]

    assert (loss(best), loss(best, "test")) == pytest.approx((rows[0]["loss"], about["choice"]["test"]))
    for row in plain:
        words = ("--start", row["start"], "--operator", row["operator"], "--alpha", row["alpha"])
        folder = tmp_path / f"{words}"
        assert run("init", "--chain", chain, *size, *words, "--out", folder) == 0
        assert loss(folder) == pytest.approx(row["loss"])
    assert f"{about['choice']['test']:.4f}" in said and said.count("\n") >= len(rows) + 3
    assert f"| {rows[0]['loss']:.4f} | {trained[0]:.4f} |" in (best / "README.md").read_text()


def test_blocks_that_the_loss_chooses_are_tried_and_recorded(
    chain, text_folder, tmp_path, monkeypatch, capsys
):
    """A block that a cut in the middle keeps is made to do harm: the loss leaves it out."""
    deep = tmp_path / "deep"
    shutil.copytree(chain, deep)
    weights = load_file(deep / "4x64" / "model.safetensors")
    for name in [name for name in weights if re.search(r"\.1\..*(c_proj|o_proj|down_proj).*weight", name)]:
        weights[name] += torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(0))
    save_file(weights, deep / "4x64" / "model.safetensors", metadata={"format": "pt"})
    best, size = tmp_path / "best", ("--layers", 3, "--width", 64)
    pair = ("--small", deep / "2x64", "--large", deep / "4x64", "--unaligned")
    assert run("init", *pair, *size, "--text", text_folder, *TEXT, "--out", best) == 0
    about = json.loads((best / "cbd.json").read_text())
    tried = {row["start"]: row for row in about["choice"]["measured"] if row["blocks"]}
    assert set(tried) == {"mixed", "cut"} and all(row["blocks"] == [0, 2, 3] for row in tried.values())
    for said in (capsys.readouterr().out, (best / "README.md").read_text()):
        assert "blocks by loss" in said
    first, cut = about["choice"]["measured"][0], tried["cut"]
    assert about.get("blocks") == first["blocks"]
    [plain] = [r for r in about["choice"]["measured"] if r["start"] == "cut" and not r["blocks"]]
    assert cut["loss"] < plain["loss"], "the harmful block is among those that a cut in the middle keeps"
    folder = tmp_path / "alone"
    init_checkpoint(None, deep / "4x64", folder, Size(3, 64), start="cut", blocks=[0, 2, 3])
    text = text_for(opened(folder), text_folder, "text", CONTEXT)
    measured = Evaluated(source_of(folder), text, 8192, CONTEXT)
    found = json.loads((realize(measured) / "metrics.json").read_text())["loss"]
    assert found == pytest.approx(cut["loss"])


def test_a_killed_choice_goes_on_and_leaves_nothing_behind(
    chain, text_folder, tmp_path, monkeypatch, tmp_path_factory
):
    monkeypatch.setenv("CBD_STORE", str(tmp_path_factory.mktemp("store")))
    words = ("init", "--chain", chain, "--layers", 3, "--width", 64, "--text", text_folder, *TEXT)
    made, calls = [], iter((0, KeyboardInterrupt))

    def counted(recipes):
        todo = pending(recipes)
        made.append([type(recipe).__name__ for recipe in todo])
        if next(calls, 0):
            raise KeyboardInterrupt
        return realize_all(todo)

    monkeypatch.setattr(choose, "realize_all", counted)
    assert run(*words, "--out", tmp_path / "killed") == 130 and not list(tmp_path.iterdir())
    assert run(*words, "--out", tmp_path / "best") == 0
    first, _, second, trained = made
    rows = json.loads((tmp_path / "best" / "cbd.json").read_text())["choice"]["measured"]
    assert first.count("Evaluated") == len(rows) >= 8 and not second and trained.count("Trained") == 3
    assert not list((store.root() / "work").iterdir()) and not list((store.root() / "Trained").iterdir())
    kept = {json.loads(path.read_text())["name"] for path in store.root().glob("Source/*/record.json")}
    assert kept <= {"2x64", "4x64"}, "the user's own models, no candidate"


def test_strangers_are_compared_but_not_mixed(chain, text_folder, tiny_corpus, tmp_path, capsys):
    stranger = realize(
        Trained(Random(chain_shape(chain, "2x64"), tiny_corpus, seed=9), tiny_corpus, TRAINING)
    )
    pair = ("--small", stranger, "--large", chain / "4x64", "--layers", 3, "--width", 64)
    assert run("init", *pair, "--text", text_folder, *TEXT, "--out", tmp_path / "best") == 0
    rows = json.loads((tmp_path / "best" / "cbd.json").read_text())["choice"]["measured"]
    assert {row["start"] for row in rows} == {"grown", "cut"}
    assert "no mixtures" in capsys.readouterr().out


# What is refused ---------------------------------------------------------------------------------------


@pytest.fixture
def refused(capsys, tmp_path):
    """`refused(words...)`: the one line of the error; nothing is written."""

    def call(*words: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert run(*words) == 2
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1 and errors.startswith("cbd: ")
        assert sorted(tmp_path.rglob("*")) == before
        return errors

    return call


def test_weights_that_are_no_numbers_are_refused(source, text_folder, tmp_path, refused):
    broken = tmp_path / "broken"
    shutil.copytree(source, broken)
    weights = load_file(broken / "model.safetensors")
    name = max(weights)
    for value in (float("nan"), float("inf")):
        weights[name].view(-1)[0] = value
        save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
        corpus = ("--corpus", text_folder, "--tokens", 1000, "--context", CONTEXT, "--out", tmp_path / "out")
        size = ("--layers", 4, "--width", 64, "--out", tmp_path / "out")
        for words in (
            ("chain", "--source", broken, "--anchors", "2x64", *corpus),
            ("recover", broken, *corpus),
            ("init", "--small", broken, "--start", "grown", *size),
            ("init", "--small", source, "--large", broken, *size),
        ):
            assert "holds NaN or infinite weights" in refused(*words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--layers 3 --width 64 --ffn 0", "every size must be at least 1"),
        ("--layers 3 --width 64 --kv-heads 0", "every size must be at least 1"),
        ("--layers 3", "give --layers and --width, or --parameters"),
        ("--layers 3 --width 64 --parameters 1M", "give --layers and --width, or --parameters"),
        ("--parameters many", "'many' is no large number"),
        ("--layers 9 --width 64", "lies between no two neighbours of the chain 4x64"),
        ("--parameters 9M", "lies between no two neighbours of the chain 4x64"),
        ("--layers 3 --width 64 --alpha 2", "alpha is 2.0"),
        ("--layers 3 --width 64 --small x", "leave --small and --large out"),
        ("--layers 3 --width 64 --text x --alpha 0.5", "leave --start, --alpha, --operator"),
        ("--layers 3 --width 64 --text nowhere --context 8", "nowhere"),
        ("--layers 3 --width 64 --text . --context 99", "--context 99 exceeds"),
    ],
)
def test_a_size_that_cannot_be_made_is_refused(chain, tmp_path, refused, words, says):
    assert says in refused("init", "--chain", chain, *words.split(), "--out", tmp_path / "out")


def test_a_width_that_no_anchor_can_have_is_refused_without_options_that_a_chain_lacks(
    source, family, text_folder, tmp_path, refused
):
    options = ("--corpus", text_folder, "--tokens", 1024, "--out", tmp_path / "out")
    errors = refused("chain", "--source", source, "--anchors", "2x40", *options)
    nearest = {"gpt2": "32 and 48", "llama": "32 and 64"}[family]
    assert f"the nearest are {nearest}; choose another width" in errors and "--heads" not in errors


def test_a_start_without_its_model_and_a_folder_without_a_chain_are_refused(source, tmp_path, refused):
    size = ("--layers", 3, "--width", 64, "--out", tmp_path / "out")
    assert "--start mixed needs --small and --large" in refused("init", "--small", source, *size)
    assert "--start cut needs --large" in refused("init", "--small", source, "--start", "cut", *size)
    assert "take the other start" in refused("init", "--small", source, "--start", "grown", *size)
    assert "holds no chain.json" in refused("init", "--chain", source, *size)


@pytest.mark.parametrize("rate", [0, -1e-3, "nan"])
def test_a_rate_that_trains_nothing_is_refused_before_any_work(source, text_folder, tmp_path, refused, rate):
    options = ("--corpus", text_folder, "--tokens", 1000, "--lr", rate, "--out", tmp_path / "out")
    assert "learning rate" in refused("recover", source, *options)
    assert "learning rate" in refused("chain", "--source", source, "--anchors", "2x64", *options)


@pytest.mark.parametrize(
    ("width", "there", "expected"), [(256, True, "bf16"), (192, True, "fp32"), (256, False, "fp32")]
)
def test_precision_is_bf16_where_the_processor_has_it_and_the_model_is_wide(
    monkeypatch, width, there, expected
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": there})
    assert default_precision(gpt2(2, width)) == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: there)
    assert default_precision(gpt2(2, width)) == expected


def test_a_precision_that_is_asked_for_is_used_and_recorded(source, text_folder, tmp_path):
    options = ("--corpus", text_folder, "--tokens", 4096, "--context", CONTEXT, "--precision", "bf16")
    assert run("recover", source, *options, "--out", tmp_path / "out") == 0
    about = json.loads((tmp_path / "out" / "cbd.json").read_text())
    assert about["training"]["precision"] == "bf16" and about["after"] < about["before"] + 0.1


# The hub -----------------------------------------------------------------------------------------------


@pytest.fixture
def hub(source, tmp_path, monkeypatch) -> str:
    """A model in the hub's cache, as huggingface_hub lays it out; the hub itself cannot be reached."""
    import huggingface_hub.constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(source, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return commit


def test_a_model_of_the_hub_is_named_by_its_id_and_its_commit_is_recorded(
    hub, source, text_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("CBD_STORE", str(tmp_path / "store"))
    options = ("--tokens", 2048, "--context", CONTEXT, "--corpus", text_folder)
    assert (
        run("chain", "--source", "someone/tiny", "--anchors", "2x64", *options, "--out", tmp_path / "out")
        == 0
    )
    content = json.loads((tmp_path / "out" / "chain.json").read_text())
    assert content["source"]["name"] == "someone/tiny" and content["source"]["revision"] == hub
    assert torch.allclose(logits(tmp_path / "out" / "4x64"), logits(source), atol=1e-4)
    anchor = content["models"][1]
    assert anchor["lr"] == anchor_rate(ModelSpec(**anchor["spec"])) > anchor_rate(NAMED["GPT2-B"])


def test_a_model_that_the_hub_does_not_give_is_refused_in_one_line(hub, tmp_path, refused):
    size = ("--layers", 3, "--width", 64, "--out", tmp_path / "out")
    assert "someone/else" in refused("init", "--small", "someone/else", "--large", "someone/tiny", *size)
