"""Downstream tasks by lm-eval, and what is read from its samples: scores, chance, margins, favourites.

lm-eval (EleutherAI's harness) asks the questions and takes every likelihood and every generated text; the
scores of single items are kept, so that two models can be compared item by item.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from torch import nn
from transformers import AutoTokenizer

from cbd.data.progress import lively
from cbd.errors import CbdError
from cbd.models.forward import load_llm
from cbd.recipes.evaluation import LOCAL, XLSUM

OURS = Path(__file__).parent / "tasks"
PREFIX = "cbd_"  # of our own tasks; none of lm-eval's begins with it
BATCH = 32


@dataclass
class TaskScore:
    """One task's outcome. items: metric -> a number an item; chance: metric -> what guessing would get.

    frequency: how often each option is the most likely one, as shares; empty where there are no options.
    """

    items: dict[str, list[float]] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    frequency: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Mean, standard error over items and chance level of each metric."""
        found: dict[str, Any] = {}
        for metric, values in self.items.items():
            spread = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
            found[metric] = {"value": float(np.mean(values)), "stderr": float(spread), "items": len(values)}
            if metric in self.chance:
                found[metric]["chance"] = self.chance[metric]
        return found | ({"option_frequency": self.frequency} if self.frequency else {})


def evaluate(
    folder: Path,
    tasks: Iterable[str],
    data: Mapping[str, Path] | None = None,
    shots: int = 0,
    limit: int | None = None,
) -> dict[str, TaskScore]:
    """The checkpoint's scores on lm-eval tasks, a `TaskScore` a name; a group's subtasks are pooled.

    data: the folders behind our own tasks ("items", "pairs"). shots: examples in the prompt. limit: the first
    items of each task only. Raises `CbdError` as `load_tasks` and `load_llm`'s folder do.
    """
    loaded, model = load_tasks(tasks, data), harness(folder)
    _check_room(all_of(loaded), model)
    with quiet():
        for task in all_of(loaded):
            if task.get_config("num_fewshot") != 0 or not shots:
                task.set_config("num_fewshot", shots)
            task.set_fewshot_seed(0)
        everything = {"tasks": {t.task_name: t for t in all_of(loaded)}, "groups": {}, "group_map": {}}
        found = evaluator.evaluate(model, everything, limit=limit, bootstrap_iters=0)
    samples = found["samples"]
    return {
        name: pooled([score_of(task, samples[task.task_name], model) for task in leaves])
        for name, leaves in loaded.items()
    }


def _check_room(tasks: Iterable[Any], model: HFLM) -> None:
    for task in tasks:
        room = (task.get_config("generation_kwargs") or {}).get("max_gen_toks", 0)
        if room >= model.max_length:
            raise CbdError(
                f"{task.task_name} writes up to {room} tokens and the model has {model.max_length} "
                f"positions: leave the task out"
            )


def harness(folder: Path) -> HFLM:
    """The checkpoint as lm-eval's Hugging Face model."""
    try:
        model, tokenizer = load_llm(folder), AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CbdError(f"{folder} is no Hugging Face checkpoint with a tokenizer ({reason})") from None
    return of_model(model, tokenizer)


def of_model(model: nn.Module, tokenizer: Any) -> HFLM:
    """A model in memory as lm-eval's."""
    with quiet():
        return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH)


def load_tasks(tasks: Iterable[str], data: Mapping[str, Path] | None = None) -> dict[str, list[Any]]:
    """Name -> its lm-eval tasks (a group has several). Only ours are indexed unless others are asked for.

    Raises `CbdError` for an unknown task, and where the data cannot be loaded.
    """
    names = list(dict.fromkeys(tasks))
    if not names:
        raise CbdError("no tasks: name some, such as --tasks cbd_continuation,cbd_cloze")
    folders = {name: str(folder) for name, folder in (data or {}).items()}
    manager = _manager(names, folders)
    with quiet():
        return {name: _load(manager, name) for name in names}


def check_known(tasks: Iterable[str]) -> None:
    """Raise `CbdError` for a task that nobody knows; nothing is loaded."""
    _manager(list(tasks), {})


def _manager(names: list[str], folders: dict[str, str]) -> TaskManager:
    """lm-eval's index: it takes seconds to read all of it, so only when others than ours are asked for."""
    others = [name for name in names if name not in (*LOCAL, XLSUM)]
    with quiet():
        manager = TaskManager(
            include_path=str(OURS),
            include_defaults=not all(name.startswith(PREFIX) for name in others),
            metadata=folders,
        )
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        ours = ", ".join((*LOCAL, XLSUM))
        raise CbdError(
            f"no task {', '.join(unknown)}: ours are {ours}; `lm-eval ls tasks` lists lm-eval's own"
        )
    return manager


def _load(manager: TaskManager, name: str) -> list[Any]:
    try:
        return list(manager.load([name])["tasks"].values())
    except CbdError:
        raise
    except Exception as error:  # whatever the hub, the network or a parser raises, the remedy is the same
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise CbdError(
            f"the data of task {name} could not be loaded ({reason}): check the connection, or take our own "
            f"tasks, {', '.join(LOCAL[:3])}, which need none"
        ) from error


def check_available(tasks: Iterable[str]) -> None:
    """Load what is not made here, before any work: a missing data set shall not stop a run at its end."""
    names = [name for name in tasks if name not in LOCAL]
    if names:
        load_tasks(names)


def all_of(loaded: Mapping[str, list[Any]]) -> list[Any]:
    """All tasks, each once."""
    return list({task.task_name: task for leaves in loaded.values() for task in leaves}.values())


def score_of(task: Any, samples: list[dict[str, Any]], model: HFLM) -> TaskScore:
    """What a finished task's samples say, by the kind of its questions."""
    samples = sorted(samples, key=lambda sample: sample["doc_id"])
    if task.OUTPUT_TYPE == "multiple_choice":
        return _choices(task, samples)
    if task.OUTPUT_TYPE == "loglikelihood":
        return _words(samples, model)
    return _texts(task, samples)


def _choices(task: Any, samples: list[dict[str, Any]]) -> TaskScore:
    """acc and acc_norm (likelihood divided by the option's length in characters), as lm-eval has them.

    margin: log-likelihood of the right option minus that of the best other one, nats; negative when wrong.
    Chance: the mean over all options of what the score were if that one was right.
    """
    score = TaskScore({"acc": [], "acc_norm": [], "margin": []})
    picked: Counter[int] = Counter()
    options = 0
    guesses, margins = [], []
    for sample in samples:
        doc = sample["doc"]
        choices = task.doc_to_choice(doc)
        right = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
        right = choices.index(right) if isinstance(right, str) else int(right)
        likelihoods = np.array([reply[0] for reply in sample["filtered_resps"][: len(choices)]])
        lengths = np.array([float(len(choice)) for choice in choices])
        score.items["acc"].append(float(likelihoods.argmax() == right))
        score.items["acc_norm"].append(float((likelihoods / lengths).argmax() == right))
        gaps = [float(x - np.delete(likelihoods, i).max()) for i, x in enumerate(likelihoods)]
        score.items["margin"].append(gaps[right])
        margins.append(float(np.mean(gaps)))
        picked[int(likelihoods.argmax())] += 1
        options = max(options, len(choices))
        guesses.append(1 / len(choices))
    score.chance = dict.fromkeys(("acc", "acc_norm"), float(np.mean(guesses)))
    score.chance["margin"] = float(np.mean(margins))
    score.frequency = [picked[place] / len(samples) for place in range(options)]
    return score


def _words(samples: list[dict[str, Any]], model: HFLM) -> TaskScore:
    """acc: the greedy choice is right; nll: nats of the answer.

    Chance: always the most frequent answer for acc; every token equally likely for nll.
    """
    replies = [sample["filtered_resps"][0] for sample in samples]
    score = TaskScore({"acc": [float(r[1]) for r in replies], "nll": [-float(r[0]) for r in replies]})
    most = Counter(str(sample["target"]) for sample in samples).most_common(1)[0][1]
    tokens = np.mean([len(model.tok_encode(str(sample["target"]))) for sample in samples])
    score.chance = {"acc": most / len(samples), "nll": float(tokens * math.log(model.vocab_size))}
    return score


def _texts(task: Any, samples: list[dict[str, Any]]) -> TaskScore:
    """The task's own metrics. Chance: the right answer of the item before, scored as if it were generated."""
    metrics = samples[0]["metrics"]
    score = TaskScore({metric: [float(sample[metric]) for sample in samples] for metric in metrics})
    answers = [str(sample["target"]) for sample in samples]
    others = [task.process_results(samples[i]["doc"], [answers[i - 1]]) for i in range(len(samples))]
    score.chance = {metric: float(np.mean([other[metric] for other in others])) for metric in metrics}
    return score


def pooled(scores: list[TaskScore]) -> TaskScore:
    """The items of a group's subtasks as one task's; each item weighs the same."""
    if len(scores) == 1:
        return scores[0]
    metrics = set.intersection(*(set(score.items) for score in scores))
    sizes = [len(next(iter(score.items.values()))) for score in scores]
    found = TaskScore({m: [x for score in scores for x in score.items[m]] for m in sorted(metrics)})
    found.chance = {
        m: float(np.average([score.chance[m] for score in scores], weights=sizes))
        for m in sorted(metrics)
        if all(m in score.chance for score in scores)
    }
    if all(score.frequency for score in scores) and len({len(score.frequency) for score in scores}) == 1:
        found.frequency = np.average([score.frequency for score in scores], axis=0, weights=sizes).tolist()
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Without lm-eval's advice about options that are meant as they are; in a log, without its bars."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with nullcontext() if lively() else redirect_stderr(StringIO()):
            yield
    finally:
        logger.setLevel(before)
