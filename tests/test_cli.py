"""What the command line promises: what it prints and writes, one line for an error, and its exit status."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cbd import __version__, cli
from cbd.commands.chain import parse_anchors
from cbd.errors import CbdError
from cbd.experiments import EXPERIMENTS
from cbd.experiments.run import design_of
from cbd.experiments.scales import SCALES
from cbd.models.interpolation import rewrite
from cbd.realize import store
from cbd.recipes import costs
from cbd.recipes.base import walk
from cbd.recipes.specs import gpt2
from cbd.report import results

VOCAB, CONTEXT = 300, 16


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch) -> Path:
    """An empty store and an empty root for results."""
    monkeypatch.setenv("CBD_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("CBD_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture
def command(capsys):
    """`command("plan", ...)`: exit status, output and the lines of standard error (no progress)."""

    def call(*words: str) -> tuple[int, str, list[str]]:
        status = cli.main(list(words))
        said = capsys.readouterr()
        lines = said.err.replace("\r", "\n").splitlines()
        progress = re.compile(r"\[\d+/\d+\] |made \d+ steps? in ")
        return status, said.out, [line for line in lines if line.strip() and not progress.match(line)]

    return call


def refused(result: tuple[int, str, list[str]]) -> str:
    """The one line of an error."""
    status, out, errors = result
    assert status == 2 and all(line.startswith("chain: ") for line in out.splitlines()), (status, out)
    assert len(errors) == 1 and errors[0].startswith("cbd: "), errors
    return errors[0]


# Statuses ----------------------------------------------------------------------------------------------


def test_help_names_every_command():
    done = subprocess.run([sys.executable, "-m", "cbd.cli", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    for word in ("chain", "init", "recover", "eval", "run", "plan", "figures", "reproduce"):
        assert re.search(rf"^\s+{word}\s+\w", done.stdout, re.MULTILINE)


def test_every_command_has_its_help_and_the_version_is_the_packages(capsys):
    for word in ("chain", "init", "recover", "eval", "run", "plan", "figures", "reproduce"):
        with pytest.raises(SystemExit) as left:
            cli.main([word, "--help"])
        assert left.value.code == 0 and f"usage: cbd {word}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0 and capsys.readouterr().out == f"cbd {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["run", "nonsense"],
        ["run", "chain", "--scale", "nonsense"],
        ["plan", "nonsense"],
        ["plan", "--on", "nonsense"],
        ["reproduce", "--scale", "nonsense"],
        ["chain", "--source", "x"],
        ["run", "chain", "--seed", "one"],
    ],
    ids=" ".join,
)
def test_an_unknown_name_or_a_missing_option_is_status_2_with_the_choices(capsys, words):
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    said = capsys.readouterr()
    assert left.value.code == 2 and said.out == ""
    assert "error: " in said.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (CbdError("no: do this"), 2, "cbd: no: do this"),
        (KeyboardInterrupt(), 130, "cbd: interrupted; the same command goes on where it was"),
    ],
)
def test_an_error_is_one_line_and_a_status(command, monkeypatch, raised, status, line):
    def fails(*_):
        raise raised

    monkeypatch.setattr("cbd.realize.plan.overview", fails)
    got, _, errors = command("plan", "chain")
    assert (got, errors) == (status, [line])


def test_a_bug_is_not_dressed_up_as_bad_input(monkeypatch):
    def fails(*_):
        raise ValueError("bug")

    monkeypatch.setattr("cbd.realize.plan.overview", fails)
    with pytest.raises(ValueError, match="bug"):
        cli.main(["plan", "chain"])


# Plan --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_a_plan_adds_up_what_would_run(command, scale):
    status, out, errors = command("plan", "--scale", scale)
    assert status == 0 and errors == []
    first, *_, last = out.strip().splitlines()
    dial = SCALES[scale]
    most = max(dial.seeds, dial.scratch_vs_cbd.seeds)
    assert first.startswith(f"{scale}: ") and f"{most} seeds" in first
    optional = {"families": dial.families, "basis": dial.families, "bridge": dial.bridge}
    optional |= {"density": dial.densities, "rivals": dial.rivals, "better_interpolation": dial.fitting}
    optional |= {"nested": dial.nested, "distillers": dial.distillers, "decisions": dial.decisions}
    left_out = ["public_checkpoints", *(name for name, there in optional.items() if not there)]
    names = [name for name in EXPERIMENTS if name not in left_out]
    seeds = {name: dial.scratch_vs_cbd.seeds if name == "scratch_vs_cbd" else dial.seeds for name in names}
    recipes = [r for name in names for s in range(seeds[name]) for r in design_of(name, dial, s).recipes]
    needed = walk(recipes).values()
    assert f"in all {len(needed)} recipes, {sum(r.tokens for r in needed):,} training tokens" in last
    work, left = (
        float(n) * 10 ** {"P": 15, "E": 18, "T": 12}[u] for n, u in re.findall(r"([\d.e+]+) ([PET])", last)
    )
    assert work == left == pytest.approx(costs.flops(recipes), rel=0.01)
    lines = [line.split() for line in out.splitlines() if line.split()[0] in names]
    assert [line[0] for line in lines] == [name for name in names if name != "paper_map"], "in their order"
    assert sum(int(line[1]) for line in lines) == len(needed), (
        "shared recipes once, at the first that needs them"
    )
    assert sum(int(line[2]) for line in lines) == sum(recipe.tokens > 0 for recipe in needed)
    assert sum(int(line[3].replace(",", "")) for line in lines) == sum(recipe.tokens for recipe in needed)
    assert "is counted at the first of them" in out and len(out.splitlines()) < 24, "one screen"


def test_a_plans_tree_has_every_step(command):
    recipes = [
        r for s in range(SCALES["smoke"].seeds) for r in design_of("chain", SCALES["smoke"], s).recipes
    ]
    status, out, _ = command("plan", "chain", "--tree")
    rows = [line.split() for line in out.splitlines() if re.match(r"\s+\d+  ", line)]
    assert status == 0 and out.splitlines()[-1] == command("plan", "chain")[1].splitlines()[-1]
    assert sum(int(re.search(r" 0/(\d+)", " ".join(row))[1]) for row in rows) == len(walk(recipes))


def test_a_single_experiment_shares_with_none(command):
    assert "counted at the first" not in command("plan", "chain")[1]


def test_a_plan_of_one_experiment_is_smaller_and_takes_seed_and_machine(command):
    def total(*words) -> int:
        return int(re.search(r"in all (\d+) recipes", command("plan", *words)[1])[1])

    assert 0 < total("chain") < total("all") == total()
    assert total("chain", "--seed", "7") == total("chain")
    for scale, machine in (("smoke", "two CPU cores"), ("laptop", "two CPU cores"), ("gpu", "H100")):
        assert machine in command("plan", "chain", "--scale", scale)[1]
    assert "A100" in command("plan", "chain", "--on", "a100")[1]


def test_a_plan_says_what_is_done(command, monkeypatch):
    before = command("plan", "chain", "--tree")[1]
    source = design_of("chain", SCALES["smoke"], 0).recipes[0]
    store.make(source, lambda out, state: {})
    after = command("plan", "chain", "--tree")[1]
    assert " 1/2 " in after and " 1/2 " not in before
    total = len(walk(r for seed in (0, 1) for r in design_of("chain", SCALES["smoke"], seed).recipes))
    assert f" 1/{total}" in command("plan", "chain")[1]

    def left(text: str) -> float:
        number, unit = re.search(r"of which ([\d.]+) ([GTP]) are", text).groups()
        return float(number) * {"G": 1e9, "T": 1e12, "P": 1e15}[unit]

    assert left(before) - left(after) == pytest.approx(source.flops, rel=0.05)


@pytest.mark.parametrize("scale", ["smoke", "paper"])
def test_a_plan_needs_neither_torch_nor_the_hub(scale):
    code = (
        "import sys; from cbd.cli import main; status = main(['plan', '--scale', sys.argv[1]]);"
        "slow = {'torch', 'transformers', 'datasets', 'accelerate'} & set(sys.modules);"
        "sys.exit(f'imported {slow}' if slow else status)"
    )
    done = subprocess.run([sys.executable, "-c", code, scale], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "in all" in done.stdout


# Run and figures ---------------------------------------------------------------------------------------


@pytest.fixture
def micro(monkeypatch) -> None:
    """The smoke scale, cut down in place."""

    def shape(layers: int, width: int):
        return gpt2(layers, width, head_dim=16, vocab=VOCAB, positions=CONTEXT)

    smoke = SCALES["smoke"]
    short = {
        "batch": 2,
        "context": CONTEXT,
        "evaluations": 1,
        "evaluation_tokens": 128,
        "tokens": 4 * 2 * CONTEXT,
    }
    small = replace(
        smoke,
        source=shape(2, 48),
        anchors=(shape(2, 32), shape(1, 16)),
        source_training=replace(smoke.source_training, **short),
        anchor_training=replace(smoke.anchor_training, **short),
        recovery=replace(smoke.recovery, **short),
        ladder=(shape(1, 32),),
        seeds=2,
        sample=128,
        jobs=1,
    )
    monkeypatch.setitem(SCALES, "smoke", small)


def test_run_on_ones_own_text_writes_a_table_of_its_own_that_figures_draws(
    command, micro, text_folder, places
):
    own = ("--corpus", str(text_folder), "--jobs", "1")
    status, out, errors = command("run", "chain", *own, "--seed", "5")
    assert status == 0 and errors == []
    path = places / "results" / f"smoke-{text_folder.name}" / "chain.csv"
    table = results.read_table(f"smoke-{text_folder.name}", "chain")
    assert out == f"chain: {len(table)} rows in {path}\n"
    assert set(table["seed"]) == {5, 6}, "the first of the scale's seeds is the one given"

    status, out, errors = command("figures", "--scale", f"smoke-{text_folder.name}")
    drawn = [Path(line) for line in out.splitlines()]
    assert status == 0 and errors == []
    assert {path.name for path in drawn} == {"chain.png", "chain.svg", "SCORECARD.md"}
    assert all(path.is_file() for path in drawn)


def test_figures_without_results_name_the_command_that_makes_them(command):
    line = refused(command("figures", "--scale", "smoke"))
    assert re.search(r"cbd run \w+ --scale smoke", line)


@pytest.mark.parametrize("words", [["run", "chain"], ["plan"]], ids=" ".join)
def test_a_folder_without_text_is_refused(command, micro, words, tmp_path):
    assert "is not a folder" in refused(command(*words, "--corpus", str(tmp_path / "nowhere")))
    (tmp_path / "empty").mkdir()
    assert "no .txt or .jsonl files" in refused(command(*words, "--corpus", str(tmp_path / "empty")))


def test_too_little_text_is_refused_with_the_remedy(command, micro, tmp_path):
    (tmp_path / "little").mkdir()
    (tmp_path / "little" / "one.txt").write_text("one short text")
    line = refused(command("run", "chain", "--corpus", str(tmp_path / "little"), "--jobs", "1"))
    assert "add documents" in line


# Chain -------------------------------------------------------------------------------------------------


@pytest.fixture
def source(save_gpt2, tiny_corpus_folder, tmp_path) -> Path:
    """A checkpoint with its tokenizer."""
    shape = {"layers": 3, "width": 48, "heads": 3, "vocab": VOCAB, "positions": 32}
    return save_gpt2(folder=tmp_path / "source", tokenizer=tiny_corpus_folder, **shape)


@pytest.fixture
def chain(command, source, text_folder, tmp_path):
    """`chain(option=value)`: `cbd chain` with what is not given at tiny values."""

    def call(**changes):
        options = {"source": source, "anchors": "2x48,1x16", "corpus": text_folder, "tokens": 8 * 2 * CONTEXT}
        options |= {"out": tmp_path / "out", "batch": 2, "context": CONTEXT} | changes
        words = [
            word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))
        ]
        return command("chain", *words)

    return call


def test_a_chain_of_ones_own(chain, source, tmp_path):
    status, out, errors = chain()
    assert status == 0 and errors == []
    rows = json.loads((tmp_path / "out" / "chain.json").read_text())["models"]
    assert [row["folder"] for row in rows] == ["3x48", "2x48", "1x16"]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["1x16", "2x48", "3x48", "chain.json"]
    first, *lines = out.splitlines()
    assert first.startswith("chain: 3x48 (") and "> 2x48 (" in first and "parameters)" in first
    for row, line in zip(rows, lines, strict=True):
        folder = tmp_path / "out" / row["folder"]
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.num_parameters() == row["parameters"]
        assert line.startswith(str(folder))
        assert f"{row['parameters']:,}" in line and f"{row['loss']:.4f}" in line
        ids = AutoTokenizer.from_pretrained(folder)("anna sees a small dog", return_tensors="pt").input_ids
        with torch.no_grad():
            assert model(ids).logits.shape == (1, ids.shape[1], VOCAB)
    for folder, shape in (("2x48", (2, 48, 3)), ("1x16", (1, 16, 1))):
        config = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / folder).config
        assert (config.n_layer, config.n_embd, config.n_head) == shape

    # what is trained stays in the store: the same command with another --out trains nothing
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob(store.RECORD)}
    assert chain(out=tmp_path / "again")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob(store.RECORD)} == done
    weights = [(tmp_path / place / "1x16" / "model.safetensors").read_bytes() for place in ("out", "again")]
    assert weights[0] == weights[1]


def test_the_options_of_a_chain_reach_its_recipes(chain, tmp_path):
    changes = {"lr": 5e-3, "seed": 4, "divergence": "jsd", "cross_entropy": 0.25, "anchors": "1x16"}
    assert chain(**changes)[0] == 0
    (anchor,) = (tmp_path / "store" / "Anchor").iterdir()
    fields = json.loads((anchor / store.RECORD).read_text())["tree"][anchor.name]
    assert fields["training"]["lr"] == 5e-3 and fields["training"]["seed"] == 4
    assert fields["training"]["batch"] == 2 and fields["training"]["context"] == CONTEXT
    assert fields["training"]["tokens"] == 8 * 2 * CONTEXT
    assert fields["loss"]["divergence"] == "jsd" and fields["loss"]["cross_entropy"] == 0.25


@pytest.mark.parametrize(
    ("anchors", "says"),
    [
        ("nonsense", "'nonsense' is no large number: write 60M, or a shape such as 6x144"),
        ("2x48,,1x16", "'' is no large number"),
        ("900M", "no shape between nothing and 3x48 has about 900,000,000 parameters"),
        ("2x48x3", "'2x48x3' is not LAYERSxWIDTH"),
        ("3x48", "3x48 is not smaller than 3x48"),
        ("1x16,2x48", "2x48 is not smaller than 1x16: list them from large to small"),
        ("4x16", "4x16 is not smaller than 3x48"),
        ("1x20", "width 20 is not a multiple of the head dimension 16"),
        ("0x16", "every size must be at least 1"),
        ("1x-16", "every size must be at least 1"),
    ],
)
def test_anchors_that_make_no_chain_are_refused(chain, tmp_path, anchors, says):
    assert says in refused(chain(anchors=anchors))
    assert not (tmp_path / "out").exists() and not (tmp_path / "store").exists(), "before any work"


def test_anchors_are_read_however_they_are_spaced():
    spec = gpt2(3, 48, head_dim=16, vocab=VOCAB, positions=32)
    assert [s.name for s in parse_anchors(" 2x48, 1X16 ", spec)] == ["2x48", "1x16"]
    assert all(s.vocab == VOCAB and s.head_dim == 16 for s in parse_anchors("2x32,1x16", spec))


def test_bad_input_is_refused_before_any_work(chain, tmp_path):
    (tmp_path / "out").mkdir()
    assert "choose another --out" in refused(chain())
    (tmp_path / "out").rmdir()
    assert "--context 64 exceeds the model's 32 positions" in refused(chain(context=64))
    assert "raise the tokens" in refused(chain(tokens=5))
    assert "cross_entropy 2.0 must lie in [0, 1]" in refused(chain(cross_entropy=2))
    assert "is not a folder" in refused(chain(corpus=tmp_path / "nowhere"))
    assert "is not a folder" in refused(chain(source=tmp_path / "nowhere"))
    assert not (tmp_path / "out").exists() and not (tmp_path / "store").exists()


def test_a_source_without_its_tokenizer_or_with_a_larger_one_is_refused(
    chain, source, save_gpt2, tiny_corpus_folder, tmp_path
):
    small = save_gpt2(layers=2, width=32, vocab=200, positions=32, tokenizer=tiny_corpus_folder)
    line = refused(chain(source=small, anchors="1x16"))
    assert "vocabulary (200) is smaller than the corpus' (300)" in line
    for path in source.glob("token*"):
        path.unlink()
    assert "source holds no tokenizer.json" in refused(chain())
    assert not (tmp_path / "out").exists()


def test_another_tokenizer_in_the_same_folder_is_another_corpus(chain, source, tmp_path):
    assert chain(anchors="1x16")[0] == 0
    content = json.loads((source / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][:10]
    (source / "tokenizer.json").write_text(json.dumps(content))
    assert chain(anchors="1x16", out=tmp_path / "other")[0] == 0
    packed = [path.stat().st_size for path in (tmp_path / "store" / "Corpus").glob("*/train.bin")]
    assert len(set(packed)) == 2, "stale ids of the old tokenizer would train the model on noise"


def test_a_copy_that_broke_off_leaves_no_out_and_the_same_command_ends_it(chain, tmp_path, monkeypatch):
    def interrupted(model, folder):
        rewrite(model, folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cbd.commands.chain.rewrite", interrupted)
        assert chain()[0] == 130
    assert not (tmp_path / "out").exists()
    assert chain()[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "1x16",
        "2x48",
        "3x48",
        "chain.json",
    ]
    assert not list(tmp_path.glob(".*part*"))


def test_a_number_of_seeds_that_runs_nothing_is_refused(command):
    for count in ("0", "-1"):
        status, _, errors = command("run", "alpha", "--seeds", count)
        assert status == 2 and errors == [f"cbd: --seeds {count} runs nothing: ask for at least 1"]
