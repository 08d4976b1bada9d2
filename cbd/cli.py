"""The command line: `cbd chain | init | recover | eval | run | plan | figures | reproduce`."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import get_args

import cbd
from cbd.errors import CbdError


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
    _add_init(commands.add_parser("init", help="a checkpoint of a new size from your own models"))
    _add_chain(commands.add_parser("chain", help="a knowledge chain from your own checkpoint and text"))
    _add_recover(commands.add_parser("recover", help="a start, trained further on your own text"))
    _add_eval(commands.add_parser("eval", help="a checkpoint's scores on downstream tasks, by lm-eval"))
    _add_run(commands.add_parser("run", help="run an experiment (or all) and write its table"))
    _add_plan(
        commands.add_parser("plan", help="what each experiment would need: runs, tokens, FLOPs; runs nothing")
    )
    _add_figures(commands.add_parser("figures", help="draw every figure again from the tables in results/"))
    _add_reproduce(commands.add_parser("reproduce", help="run every notebook headlessly"))
    return top


def _add_init(init: argparse.ArgumentParser) -> None:
    from cbd.recipes.operators import OPERATORS
    from cbd.recipes.starts import STARTS

    init.set_defaults(action=_init)
    init.add_argument("--chain", metavar="DIR", help="a chain made by `cbd chain`: two neighbours are used")
    init.add_argument("--small", metavar="DIR", help="the smaller model: a folder or a hub id")
    init.add_argument("--large", metavar="DIR", help="the larger model")
    init.add_argument("--layers", type=int)
    init.add_argument("--width", type=int)
    init.add_argument("--parameters", metavar="N", help="instead of layers and width, such as 60M")
    init.add_argument("--heads", type=int, help="query heads; their dimension is kept (default: by width)")
    init.add_argument("--kv-heads", type=int, help="key-value heads (default: groups stay as they are)")
    init.add_argument("--ffn", type=int, help="feed-forward width (default: in its ratio to the width)")
    init.add_argument(
        "--start",
        default="mixed",
        choices=("mixed", *(key for key, one in STARTS.items() if one.operator is None and key != "random")),
        help="both models mixed (default), the smaller one alone, grown, or the larger one alone, cut",
    )
    init.add_argument(
        "--alpha", default="distance", help='share of the smaller model, or "distance" (default)'
    )
    init.add_argument(
        "--operator",
        default="union",
        choices=OPERATORS,
        help="how to mix: union (default), or another reading; literal is the paper's formula",
    )
    init.add_argument("--outside", action="store_true", help="allow a target outside the two models")
    init.add_argument("--unaligned", action="store_true", help="mix models that share no basis")
    init.add_argument("--out", required=True, metavar="DIR")


def _add_chain(chain: argparse.ArgumentParser) -> None:
    chain.set_defaults(action=_chain)
    chain.add_argument(
        "--source", required=True, metavar="DIR", help="the model to begin with, or its hub id"
    )
    chain.add_argument(
        "--anchors",
        required=True,
        metavar="LxD,...",
        help="layers x width from large to small, or parameters (100M,40M)",
    )
    chain.add_argument("--tokens", required=True, type=int, help="training tokens of each step")
    _training_options(chain)


def _add_recover(recover: argparse.ArgumentParser) -> None:
    recover.set_defaults(action=_recover)
    recover.add_argument("checkpoint", metavar="DIR", help="the model to train further, or its hub id")
    recover.add_argument("--teacher", metavar="DIR", help="a model of the same tokenizer to distil from")
    recover.add_argument("--tokens", required=True, type=int, help="training tokens")
    _training_options(recover)


def _training_options(command: argparse.ArgumentParser) -> None:
    from cbd.recipes.training import Divergence

    command.add_argument("--corpus", required=True, metavar="DIR", help="a folder of .txt or .jsonl files")
    command.add_argument("--column", default="text", help="field of .jsonl lines that holds the text")
    command.add_argument("--out", required=True, metavar="DIR")
    command.add_argument("--lr", type=float, help="peak learning rate (default: by the model's size)")
    command.add_argument("--batch", type=int, default=8, help="sequences a step")
    command.add_argument("--context", type=int, default=128, help="tokens a sequence")
    command.add_argument("--divergence", default="reverse_kl", choices=get_args(Divergence)[1:])
    command.add_argument(
        "--cross-entropy", type=float, default=0.5, help="its share of a distillation's loss"
    )
    command.add_argument("--seed", type=int, default=0)


def _add_eval(evaluate: argparse.ArgumentParser) -> None:
    from cbd.experiments.scales import SCALES

    evaluate.set_defaults(action=_eval)
    evaluate.add_argument("checkpoint", metavar="DIR", help="a Hugging Face checkpoint with its tokenizer")
    evaluate.add_argument(
        "--tasks",
        default="cbd_continuation,cbd_cloze,cbd_reply",
        help="names by comma: ours, made from held-out text (default), or any that lm-eval knows",
    )
    evaluate.add_argument("--shots", type=int, default=0, help="examples in the prompt")
    evaluate.add_argument("--limit", type=int, help="the first items of each task only")
    evaluate.add_argument("--scale", default="laptop", choices=SCALES, help="whose text our tasks use")
    evaluate.add_argument("--corpus", metavar="DIR", help="a folder of text to make our tasks from")
    evaluate.add_argument("--out", metavar="FILE", help="write scores and single items there, as JSON")


def _add_run(run: argparse.ArgumentParser) -> None:
    run.set_defaults(action=_run)
    run.add_argument("experiment", choices=_experiments(), help=_PAPER_HELP)
    _scale_options(run)
    run.add_argument("--jobs", type=int, help="processes side by side")
    run.add_argument("--fresh", action="store_true", help="even where results/ has the table already")


def _add_plan(plan: argparse.ArgumentParser) -> None:
    plan.set_defaults(action=_plan)
    plan.add_argument("experiment", nargs="?", default="all", choices=_experiments(), help=_PAPER_HELP)
    _scale_options(plan)
    plan.add_argument(
        "--on", choices=("h100", "a100", "cpu"), help="what to count hours on instead of the scale's machine"
    )
    plan.add_argument(
        "--tree", action="store_true", help="every step with its inputs, not a line an experiment"
    )


_PAPER_HELP = "an experiment, all, or one of the paper's by its number (E3)"


def _experiments() -> list[str]:
    from cbd.experiments import EXPERIMENTS, PAPER

    return [*EXPERIMENTS, *PAPER, "all"]


def _add_figures(figures: argparse.ArgumentParser) -> None:
    figures.set_defaults(action=_figures)
    figures.add_argument("--scale", default="laptop")


def _add_reproduce(reproduce: argparse.ArgumentParser) -> None:
    from cbd.experiments.scales import SCALES

    reproduce.set_defaults(action=_reproduce)
    reproduce.add_argument("--scale", default="smoke", choices=SCALES)
    reproduce.add_argument("--seed", type=int, default=0)
    reproduce.add_argument("--jobs", type=int, help="processes side by side (default: the scale's)")
    reproduce.add_argument(
        "--in-place", action="store_true", help="refresh the outputs of notebooks/ themselves"
    )


def _scale_options(command: argparse.ArgumentParser) -> None:
    from cbd.experiments.scales import SCALES

    command.add_argument("--scale", default="smoke", choices=SCALES)
    command.add_argument("--seed", type=int, default=0, help="the first of the scale's seeds")
    command.add_argument(
        "--corpus", metavar="DIR", help="a folder of .txt or .jsonl files instead of the scale's corpus"
    )


def _scale(options: argparse.Namespace):
    from cbd.experiments.scales import scale_named

    scale = scale_named(options.scale)
    if not options.corpus:
        return scale
    from cbd.data.documents import folder_corpus

    return scale.on(folder_corpus(options.corpus, vocab_size=scale.source_spec.vocab))


def _names(experiment: str, scale) -> list[str]:
    """The experiments meant; "all" are those that say so themselves."""
    from cbd.experiments import PAPER
    from cbd.experiments.run import names_at

    return names_at(scale) if experiment == "all" else [PAPER.get(experiment, experiment)]


def _init(options: argparse.Namespace) -> None:
    from cbd.commands.init import Size, init_checkpoint, models_around, said
    from cbd.commands.own import count
    from cbd.recipes.operators import OPERATORS

    parameters = None if options.parameters is None else count(options.parameters, "--parameters")
    shape = (options.layers, options.width, options.heads, options.kv_heads, options.ffn)
    size = Size(*shape, parameters=parameters)
    small, large = options.small, options.large
    if options.chain:
        if small or large:
            raise CbdError("--chain names both models: leave --small and --large out")
        small, large = models_around(options.chain, size)
    done = init_checkpoint(
        small,
        large,
        options.out,
        size,
        alpha=_alpha(options.alpha),
        operator=OPERATORS[options.operator],
        outside=options.outside,
        start=options.start,
        unaligned=options.unaligned,
    )
    for line in said(options.out, done):
        print(line)


def _alpha(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _training(options: argparse.Namespace, lr: float):
    from cbd.recipes.training import Loss, Training

    training = Training(
        tokens=options.tokens,
        lr=lr if options.lr is None else options.lr,
        batch=options.batch,
        context=options.context,
        seed=options.seed,
    )
    return training, Loss(options.divergence, options.cross_entropy)


def _chain(options: argparse.Namespace) -> None:
    from cbd.commands.chain import make_chain
    from cbd.commands.own import default_rate, source_of

    training, loss = _training(options, default_rate(source_of(options.source).spec))
    rows = make_chain(
        options.source, options.anchors, options.corpus, options.column, training, loss, options.out
    )
    for row in rows:
        folder = f"{options.out}/{row['folder']}"
        print(f"{folder:<24} {row['parameters']:>14,} parameters   loss {row['loss']:.4f}")


def _recover(options: argparse.Namespace) -> None:
    from cbd.commands.own import default_rate, source_of
    from cbd.commands.recover import recover

    training, loss = _training(options, default_rate(source_of(options.checkpoint).spec))
    done = recover(
        options.checkpoint, options.corpus, options.column, training, loss, options.teacher, options.out
    )
    print(f"{options.out}: loss {done['before']:.4f} before, {done['after']:.4f} after (held-out text)")


def _eval(options: argparse.Namespace) -> None:
    from cbd.commands.evaluate import evaluate_checkpoint, lines
    from cbd.data.documents import folder_corpus
    from cbd.experiments.scales import scale_named

    dial = scale_named(options.scale).evaluation
    if options.corpus:
        dial = dial.on(folder_corpus(options.corpus, vocab_size=257))  # its tokenizer plays no part here
    tasks = [name.strip() for name in options.tasks.split(",") if name.strip()]
    scores = evaluate_checkpoint(options.checkpoint, tasks, dial, options.shots, options.limit, options.out)
    for line in lines(scores):
        print(line)


def _run(options: argparse.Namespace) -> None:
    from cbd.experiments.run import run
    from cbd.report import results

    scale = _scale(options)
    for name in _names(options.experiment, scale):
        table = run(name, scale, options.seed, options.jobs, options.fresh)
        print(f"{name}: {len(table)} rows in {results.table_path(scale.name, name)}")


def _plan(options: argparse.Namespace) -> None:
    from cbd.experiments.run import plan

    scale = _scale(options)
    print(plan(_names(options.experiment, scale), scale, options.seed, options.on, options.tree))


def _figures(options: argparse.Namespace) -> None:
    from cbd.report import readme, results, scorecard
    from cbd.report.figures import draw_all

    drawn = draw_all(options.scale)
    if not drawn:
        raise CbdError(
            f"no tables of scale {options.scale} to draw: run `cbd run all --scale {options.scale}` first"
        )
    for path in drawn:
        print(path)
    print(scorecard.write(options.scale))
    page = results.root() / "README.md"
    if options.scale == readme.SCALE and page.exists():
        page.write_text(readme.update(page.read_text()))
        print(f"{page} (what was found)")


def _reproduce(options: argparse.Namespace) -> None:
    from cbd.commands.reproduce import reproduce

    if options.jobs:
        os.environ["CBD_JOBS"] = str(options.jobs)  # reaches the notebooks' kernels
    reproduce(options.scale, options.seed, options.in_place)


if __name__ == "__main__":
    sys.exit(main())
