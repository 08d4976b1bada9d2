"""The command line: `cbd chain | init | recover | eval | run | plan | figures | reproduce`."""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args

import cbd
from cbd.errors import CbdError, count, require
from cbd.experiments import EXPERIMENTS, PAPER
from cbd.experiments.scales import NOTHING_SHOWN, SCALES, scale_named
from cbd.recipes.costs import ACCELERATORS
from cbd.recipes.operators import OPERATORS
from cbd.recipes.starts import MIXED, STARTS, alone
from cbd.recipes.training import Divergence, Loss, Training


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status (2 for bad input, 130 when interrupted)."""
    options = parser().parse_args(arguments)
    try:
        options.action(options)
    except CbdError as error:
        print(f"cbd: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cbd: interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if not _no_space(error):
            raise
        print("cbd: no space left on the disk: free some, then the same command goes on", file=sys.stderr)
        return 2
    return 0


def _no_space(error: Exception) -> bool:
    """Whether a write failed for want of space; safetensors says so in its message only."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or any(f"(os error {code})" in str(error) for code in full)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        "cbd", description="Chain-based Distillation (arXiv 2605.07783), replicated."
    )
    top.add_argument("--version", action="version", version=f"cbd {cbd.__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name, (action, words, options) in COMMANDS.items():
        command = commands.add_parser(name, help=words)
        command.set_defaults(action=action)
        for option, details in options.items():
            command.add_argument(option, **details)
    return top


def _chain(options: argparse.Namespace) -> None:
    from cbd.commands.chain import make_chain
    from cbd.commands.own import anchor_rate

    how = options.corpus, options.column, *_training(options), options.out, options.basis
    rate = anchor_rate if options.lr is None else None
    rows = make_chain(options.source, options.anchors, *how, rate)
    for row in rows:
        folder = f"{options.out}/{row['folder']}"
        print(f"{folder:<24} {row['parameters']:>14,} parameters   loss {row['loss']:.4f}")


def _training(options: argparse.Namespace) -> tuple[Training, Loss]:
    from cbd.commands.own import default_precision, default_rate, source_of

    spec = source_of(options.source).spec
    training = Training(
        tokens=options.tokens,
        lr=default_rate(spec) if options.lr is None else options.lr,
        batch=options.batch,
        context=options.context,
        seed=options.seed,
        precision=options.precision or default_precision(spec),
    )
    return training, Loss(options.divergence, options.cross_entropy)


def _init(options: argparse.Namespace) -> None:
    from cbd.commands.choose import init_best
    from cbd.commands.init import Size, init_checkpoint, models_around, said

    parameters = None if options.parameters is None else count(options.parameters, "--parameters")
    size = Size(options.layers, options.width, options.heads, options.kv_heads, options.ffn, parameters)
    small, large = options.small, options.large
    if options.chain:
        require(not (small or large), "--chain names both models: leave --small and --large out")
        small, large = models_around(options.chain, size)
    if options.text:
        chosen = (options.start, options.alpha, options.operator, options.outside)
        both = "--text compares all starts: leave --start, --alpha, --operator and --outside out"
        require(chosen == (MIXED, "distance", "union", False), both)
        require(small and large, "--text compares two models: name --chain, or --small and --large")
        text = options.text, options.column, options.tokens, options.context
        done = init_best(small, large, options.out, size, *text, options.unaligned)
    else:
        names = ("alpha", "outside", "start", "unaligned")
        more = {name: getattr(options, name) for name in names} | {"operator": OPERATORS[options.operator]}
        done = init_checkpoint(small, large, options.out, size, **more)
    for line in said(options.out, done):
        print(line)


def _alpha(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _recover(options: argparse.Namespace) -> None:
    from cbd.commands.recover import recover

    training, loss = _training(options)
    done = recover(
        options.source, options.corpus, options.column, training, loss, options.teacher, options.out
    )
    print(f"{options.out}: loss {done['before']:.4f} before, {done['after']:.4f} after (held-out text)")


def _eval(options: argparse.Namespace) -> None:
    from cbd.commands.evaluate import evaluate_checkpoint, lines
    from cbd.data.documents import folder_corpus

    dial = scale_named(options.scale).evaluation
    if options.corpus:
        dial = dial.on(folder_corpus(options.corpus, vocab_size=257))  # its tokenizer plays no part here
    tasks = [name.strip() for name in options.tasks.split(",") if name.strip()]
    asked = (options.shots, options.limit, options.out, options.precision)
    scores = evaluate_checkpoint(options.checkpoint, tasks, dial, *asked)
    for line in lines(scores):
        print(line)


def _scale(options: argparse.Namespace):
    scale = scale_named(options.scale)
    if options.corpus:
        from cbd.data.documents import folder_corpus

        scale = scale.on(folder_corpus(options.corpus, vocab_size=scale.source_spec.vocab))
    return scale


def _run(options: argparse.Namespace) -> None:
    from cbd.experiments.run import names_at, run
    from cbd.report import results

    scale = _scale(options)
    for name in names_at(scale, options.experiment):
        table = run(name, scale, options.seed, options.jobs, options.fresh, options.seeds)
        print(f"{name}: {len(table)} rows in {results.table_path(scale.name, name)}")


def _plan(options: argparse.Namespace) -> None:
    from cbd.experiments.run import names_at, plan

    if options.targets:
        _advise(options)
        return
    scale = _scale(options)
    print(plan(names_at(scale, options.experiment), scale, options.seed, options.on, options.tree))


def _advise(options: argparse.Namespace) -> None:
    from cbd.commands.advise import advise

    missing = "--targets needs --budget (FLOPs, such as 1e20) and --source (parameters, such as 774M), too"
    require(options.budget and options.source, missing)
    sizes = [count(part, "--targets") for part in options.targets.split(",")]
    budget, source = count(options.budget, "--budget", "1e20"), count(options.source, "--source")
    tokens = options.anchor_tokens and count(options.anchor_tokens, "--anchor-tokens", "100M")
    for line in advise(sizes, budget, source, tokens):
        print(line)


def _figures(options: argparse.Namespace) -> None:
    from cbd.commands import card, findings
    from cbd.report import readme, results, scorecard
    from cbd.report.figures import draw_all

    drawn = draw_all(options.scale)
    remedy = f"run `cbd run all --scale {options.scale}` first"
    require(drawn, f"no tables of scale {options.scale} to draw: {remedy}")
    for path in drawn:
        print(path)
    print(scorecard.write(options.scale))
    if options.scale in SCALES and options.scale != NOTHING_SHOWN:
        print(findings.write())
        if card.possible(scale := SCALES[options.scale]):
            print(card.write(scale))
    page = results.root() / "README.md"
    if options.scale in readme.SCALES and page.exists():
        page.write_text(readme.update(page.read_text()))
        print(f"{page} (what was found)")


def _reproduce(options: argparse.Namespace) -> None:
    from cbd.commands.reproduce import reproduce

    if options.jobs:
        os.environ["CBD_JOBS"] = str(options.jobs)  # reaches the notebooks' kernels
    reproduce(options.scale, options.seed, options.in_place)


def _option(words: str, default: Any = None, kind: Callable | None = None, **more: Any) -> dict[str, Any]:
    """An option that takes a value; its type is the default's where it is not given."""
    kind = kind or (str if default is None else type(default))
    return {"help": words, "default": default, "type": kind} | more


def _flag(words: str) -> dict[str, Any]:
    return {"help": words, "action": "store_true"}


FOLDER = {"metavar": "DIR"}
PRECISION = _option(
    "of matrix products (default: bf16 where the processor has it and the model is wide enough)",
    kind=str,
    choices=["fp32", "bf16"],
)
TRAINING = {
    "--corpus": _option("a folder of .txt or .jsonl files", required=True, **FOLDER),
    "--column": _option("field of .jsonl lines that holds the text", "text"),
    "--tokens": _option("training tokens; of each step of a chain", kind=int, required=True),
    "--out": _option("the folder to write", required=True, **FOLDER),
    "--lr": _option("peak learning rate (default: by the model's size)", kind=float),
    "--batch": _option("sequences a step", 8),
    "--context": _option("tokens a sequence", 128),
    "--divergence": _option("from the teacher", "reverse_kl", choices=get_args(Divergence)[1:]),
    "--cross-entropy": _option("its share of a distillation's loss", 0.5),
    "--seed": _option("of the batches", 0),
    "--precision": PRECISION,
}
SCALE = {
    "--scale": _option("which numbers", "smoke", choices=SCALES),
    "--seed": _option("the first of the scale's seeds", 0),
    "--corpus": _option("a folder of .txt or .jsonl files instead of the scale's corpus", **FOLDER),
}
EXPERIMENT = {
    "help": "an experiment, all, or one of the paper's by its number (E3)",
    "choices": [*EXPERIMENTS, *PAPER, "all"],
}
COMMANDS: dict[str, tuple[Callable, str, dict[str, dict[str, Any]]]] = {
    "chain": (
        _chain,
        "a knowledge chain from your own checkpoint and text",
        {
            "--source": _option("the model to begin with: a folder or a hub id", required=True, **FOLDER),
            "--anchors": _option(
                "from large to small: 20x576,12x576 (layers x width), or 100M,40M", required=True
            ),
            "--basis": _option(
                "what anchors are sliced from: their teacher sorted by weights or by activations, its "
                "principal axes, or (auto, default) these where the width shrinks",
                "auto",
                choices=["auto", "sorted", "activations", "axes"],
            ),
            **TRAINING,
        },
    ),
    "init": (
        _init,
        "a checkpoint of a new size from your own models",
        {
            "--chain": _option("a chain made by `cbd chain`: two neighbours are used", **FOLDER),
            "--small": _option("the smaller model: a folder or a hub id", **FOLDER),
            "--large": _option("the larger model", **FOLDER),
            "--layers": _option("blocks", kind=int),
            "--width": _option("channels of the residual stream", kind=int),
            "--parameters": _option("instead of layers and width, such as 60M", metavar="N"),
            "--heads": _option("query heads; their dimension is kept (default: by width)", kind=int),
            "--kv-heads": _option("key-value heads (default: groups stay as they are)", kind=int),
            "--ffn": _option("feed-forward width (default: in its ratio to the width)", kind=int),
            "--start": _option(
                f"{MIXED}: both models (default); "
                + "; ".join(f"{key}: {STARTS[key].label} alone" for key in alone()),
                MIXED,
                choices=[MIXED, *alone()],
            ),
            "--alpha": _option('share of the smaller model, or "distance" (default)', "distance", _alpha),
            "--operator": _option(
                "how to mix: union (default), or another reading; literal is the paper's formula",
                "union",
                choices=OPERATORS,
            ),
            "--text": _option(
                "a folder of .txt or .jsonl files: measure every start on it and write the best", **FOLDER
            ),
            "--column": TRAINING["--column"],
            "--tokens": _option("with --text: of the training that decides between the best three", 16_384),
            "--context": TRAINING["--context"],
            "--outside": _flag("allow a target outside the two models"),
            "--unaligned": _flag("mix models that share no basis"),
            "--out": _option("the folder to write", required=True, **FOLDER),
        },
    ),
    "recover": (
        _recover,
        "a start, trained further on your own text",
        {
            "source": {"metavar": "DIR", "help": "the model to train further: a folder or a hub id"},
            "--teacher": _option("a model of the same tokenizer to distil from", **FOLDER),
            **TRAINING,
        },
    ),
    "eval": (
        _eval,
        "a checkpoint's scores on downstream tasks, by lm-eval",
        {
            "checkpoint": {"metavar": "DIR", "help": "a Hugging Face checkpoint with its tokenizer"},
            "--tasks": _option(
                "names by comma: ours, made from held-out text (default), or any that lm-eval knows",
                "cbd_continuation,cbd_cloze,cbd_reply",
            ),
            "--shots": _option("examples in the prompt", 0),
            "--limit": _option("the first items of each task only", kind=int),
            "--precision": _option("of the weights on a CPU (cards: bf16)", "fp32", choices=["fp32", "bf16"]),
            "--scale": _option("whose text our tasks use", "laptop", choices=SCALES),
            "--corpus": _option("a folder of text to make our tasks from", **FOLDER),
            "--out": _option("write scores and single items there, as JSON", metavar="FILE"),
        },
    ),
    "run": (
        _run,
        "run an experiment (or all) and write its table",
        {
            "experiment": EXPERIMENT,
            **SCALE,
            "--jobs": _option("processes side by side", kind=int),
            "--seeds": _option("how many, from --seed on (default: the scale's number)", kind=int),
            "--fresh": _flag("even where results/ has the table already, or parts of it"),
        },
    ),
    "plan": (
        _plan,
        "what each experiment would need, or how best to make your own sizes; runs nothing",
        {
            "experiment": EXPERIMENT | {"nargs": "?", "default": "all"},
            **SCALE,
            "--on": _option("what to count hours on (default: the scale's)", choices=ACCELERATORS),
            "--tree": _flag("every step with its inputs, not a line an experiment"),
            "--targets": _option("instead: your sizes in parameters, such as 51M,138M", metavar="N,N"),
            "--budget": _option("with --targets: FLOPs for all of them, such as 1e20", metavar="FLOPS"),
            "--source": _option("with --targets: parameters of the source", metavar="N"),
            "--anchor-tokens": _option(
                "with --targets: training tokens of each anchor (default: half of the budget goes to them)",
                metavar="N",
            ),
        },
    ),
    "figures": (
        _figures,
        "draw every figure again from the tables in results/",
        {"--scale": _option("whose tables", "laptop")},
    ),
    "reproduce": (
        _reproduce,
        "run every notebook headlessly",
        {
            "--scale": _option("at which scale", "smoke", choices=SCALES),
            "--seed": _option("the first of the scale's seeds", 0),
            "--jobs": _option("processes side by side (default: the scale's)", kind=int),
            "--in-place": _flag("refresh the outputs of notebooks/ themselves"),
        },
    ),
}

if __name__ == "__main__":
    sys.exit(main())
