"""What the store promises: a folder is there whole or not at all, made once, whoever dies while making it."""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

import cbd
from cbd.errors import CbdError
from cbd.realize import store
from cbd.recipes.data import Corpus
from cbd.recipes.models import Random
from cbd.recipes.specs import gpt2
from cbd.recipes.training import Trained, Training

RECIPE = Corpus(name="toy")  # any recipe will do: what it builds is up to the test
SPEC = gpt2(1, 32, head_dim=16, vocab=300, positions=16)
CHILD_SECONDS = 60  # a hanging child fails its test


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CBD_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def content(folder: Path) -> dict[str, str]:
    """All files but the record, by relative name."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != store.RECORD)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def write_two(out: Path, state: Path) -> dict:
    (out / "deeper").mkdir()
    (out / "a.txt").write_text("a")
    (out / "deeper" / "b.txt").write_text("b")
    return {"measured": 1}


WHOLE = {"a.txt": "a", "deeper/b.txt": "b"}

# Children do not import torch, so that they start at once. `make` is what a test puts before the call.
CHILD = """
import os, signal, sys, time
from pathlib import Path
from cbd.realize import store
from cbd.recipes.data import Corpus

def say(name):
    Path(sys.argv[1], name).touch()

def write_two(out, state):
    (out / "deeper").mkdir()
    (out / "a.txt").write_text("a")
    (out / "deeper" / "b.txt").write_text("b")
    return {"measured": 1}

def build(out, state):
    return write_two(out, state)

def hang(*_):
    say("ready")
    time.sleep(600)
"""
CALL = "\nprint(store.make(Corpus(name='toy'), build))\n"


def child(code: str, place: Path) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", CHILD + code + CALL, str(place)], **pipes)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    until = time.monotonic() + CHILD_SECONDS
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.01)


def output_of(process: subprocess.Popen) -> str:
    out, errors = process.communicate(timeout=CHILD_SECONDS)
    assert process.returncode == 0, errors
    return out.strip()


def test_a_recipe_is_built_once_and_its_folder_is_named_by_kind_and_key(root):
    builds = []

    def build(out, state):
        builds.append(list(out.iterdir()) + list(state.iterdir()))
        return write_two(out, state)

    folders = [store.make(RECIPE, build) for _ in range(3)]
    assert folders == [root / "Corpus" / RECIPE.key] * 3
    assert builds == [[]]
    assert content(folders[0]) == WHOLE
    assert store.folder(RECIPE) == folders[0] and store.finished(RECIPE)


def test_nothing_is_visible_before_all_of_it_is_on_disk(monkeypatch):
    final, synced = store.folder(RECIPE), set()
    real = os.fsync

    def fsync(descriptor):
        assert not final.exists()
        synced.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    def build(out, state):
        assert not final.exists() and not store.finished(RECIPE)
        return write_two(out, state)

    monkeypatch.setattr(os, "fsync", fsync)
    store.make(RECIPE, build)
    assert {"a.txt", "b.txt", store.RECORD} <= synced


def test_a_build_that_raises_leaves_nothing_trusted_and_the_next_try_keeps_only_its_state():
    seen = []

    def build(out, state):
        seen.append((content(out), content(state)))
        (out / f"junk{len(seen)}").write_text("half")
        (state / f"step{len(seen)}").write_text("kept")
        if len(seen) < 3:
            raise ValueError("no")
        return {}

    for _ in range(2):
        with pytest.raises(ValueError, match=r"^no$"):
            store.make(RECIPE, build)
        assert not store.finished(RECIPE) and not store.folder(RECIPE).exists()
    folder = store.make(RECIPE, build)
    assert seen == [({}, {}), ({}, {"step1": "kept"}), ({}, {"step1": "kept", "step2": "kept"})]
    assert content(folder) == {"junk3": "half"}
    assert not (store.root() / "work" / RECIPE.key).exists(), "the state of a finished recipe is of no use"


def test_a_build_whose_measurements_are_no_json_leaves_nothing_trusted():
    with pytest.raises(TypeError):
        store.make(RECIPE, lambda out, state: {"measured": object()})
    assert not store.finished(RECIPE)
    store.make(RECIPE, write_two)
    assert content(store.folder(RECIPE)) == WHOLE


def test_a_folder_without_a_record_is_not_trusted_and_is_replaced_whole():
    damaged = store.folder(RECIPE)
    damaged.mkdir(parents=True)
    (damaged / "a.txt").write_text("from a copy that broke off")
    (damaged / "leftover").write_text("x")
    assert not store.finished(RECIPE)
    assert store.make(RECIPE, write_two) == damaged
    assert content(damaged) == WHOLE


def test_of_several_processes_one_builds_and_all_get_the_folder(tmp_path):
    wait_in_build = (
        "def build(out, state):\n"
        "    with Path(sys.argv[1], 'builds').open('a') as file:\n"
        "        file.write('built\\n')\n"
        "    say('building')\n"
        "    while not Path(sys.argv[1], 'go').exists():\n"
        "        time.sleep(0.01)\n"
        "    return write_two(out, state)\n"
    )
    processes = [child(wait_in_build, tmp_path)]
    wait_for(tmp_path / "building", processes[0])
    processes += [child(wait_in_build + f"say('started{i}')\n", tmp_path) for i in range(2)]
    for i in range(2):
        wait_for(tmp_path / f"started{i}", processes[1 + i])
    time.sleep(0.2)  # both are at the lock, or would be building by now
    (tmp_path / "go").touch()
    assert {output_of(process) for process in processes} == {str(store.folder(RECIPE))}
    assert (tmp_path / "builds").read_text() == "built\n"
    assert content(store.folder(RECIPE)) == WHOLE


@pytest.mark.parametrize(
    "where",
    [
        "def build(out, state):\n    write_two(out, state)\n    (state / 's').write_text('kept')\n    "
        "hang()\n",
        "def build(out, state):\n    (state / 's').write_text('kept')\n    return write_two(out, state)\n"
        "os.fsync = hang\n",
    ],
    ids=["while it builds", "while it publishes"],
)
def test_a_process_killed_at_work_leaves_no_lock_and_no_half_made_folder(tmp_path, where):
    process = child(where, tmp_path)
    wait_for(tmp_path / "ready", process)
    process.kill()
    process.communicate()
    assert not store.finished(RECIPE) and not store.folder(RECIPE).exists()

    # In a child, so that a lock left behind fails the test instead of hanging it.
    check = (
        "def build(out, state):\n    assert not list(out.iterdir()) and (state / 's').read_text() == 'kept'\n"
    )
    assert output_of(child(check + "    return write_two(out, state)\n", tmp_path))
    assert content(store.folder(RECIPE)) == WHOLE


def test_killed_at_any_instant_a_folder_is_whole_or_absent(tmp_path):
    many = (
        "def build(out, state):\n    say('ready')\n"
        "    for i in range(300):\n        (out / f'{i}.txt').write_text(str(i))\n    return {}\n"
    )
    whole = {f"{i}.txt": str(i) for i in range(300)}
    finished = []
    for i in range(8):
        process = child(many, tmp_path)
        wait_for(tmp_path / "ready", process)
        time.sleep(0.01 * i)
        process.kill()
        process.communicate()
        finished.append(store.finished(RECIPE))
        assert store.folder(RECIPE).exists() == finished[-1]
        if finished[-1]:
            assert content(store.folder(RECIPE)) == whole
            shutil.rmtree(store.folder(RECIPE))
        (tmp_path / "ready").unlink()
    assert not all(finished), "no kill came in time to test anything"


def test_a_store_that_cannot_be_written_is_one_error_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("CBD_STORE", str(tmp_path / "file" / "store"))
    with pytest.raises(CbdError, match="set CBD_STORE to a writable folder"):
        store.make(RECIPE, write_two)


def test_a_lock_that_cannot_be_opened_is_the_same_error(root):
    (root / "locks" / f"{RECIPE.key}.lock").mkdir(
        parents=True
    )  # what another user's store looks like to root
    with pytest.raises(CbdError, match="set CBD_STORE to a writable folder"):
        store.make(RECIPE, write_two)


def test_the_record_says_what_was_made_from_what_where_and_when():
    corpus = Corpus(vocab_size=300)
    training = Training(tokens=640, lr=1e-3, batch=2, context=16)
    recipe = Trained(Random(SPEC, corpus), corpus, training)
    before = datetime.now(UTC).replace(microsecond=0)
    store.make(recipe, lambda out, state: time.sleep(0.05) or {"final_loss": 1.5})
    record = store.record(recipe)

    assert record == json.loads((store.folder(recipe) / store.RECORD).read_text())
    assert record["key"] == recipe.key and record["recipe"] == "Trained" and record["spec"] == "1x32"
    assert record["tokens"] == recipe.tokens == 640 and record["flops"] == recipe.flops > 0
    assert record["final_loss"] == 1.5, "what the build measured"
    assert 0.05 <= record["seconds"] < CHILD_SECONDS and record["peak_memory_mb"] > 1
    assert before <= datetime.fromisoformat(record["finished"]) <= datetime.now(UTC)
    assert datetime.fromisoformat(record["finished"]).utcoffset().total_seconds() == 0
    assert list(record["tree"]) == [corpus.key, recipe.start.key, recipe.key]
    assert record["tree"][recipe.key]["start"] == recipe.start.key
    assert record["tree"][recipe.key]["training"]["lr"] == 1e-3
    assert record["versions"]["cbd"] == cbd.__version__
    assert record["versions"]["python"] == platform.python_version()
    for package in ("torch", "transformers", "numpy", "tokenizers", "safetensors", "accelerate", "datasets"):
        assert record["versions"][package][0].isdigit()
    assert record["machine"]["cores"] == os.cpu_count() and record["machine"]["processor"]


def test_the_commit_names_the_code_and_says_when_it_was_changed(tmp_path, monkeypatch):
    package = tmp_path / "clone" / "cbd"
    package.mkdir(parents=True)
    (package / "code.py").write_text("x = 1\n")
    monkeypatch.setattr(store, "__file__", str(package / "realize" / "store.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert store._commit() is None, "an installed package has no commit"

    def git(*words):
        name = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(["git", *name, *words], cwd=package.parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    assert store._commit() == git("rev-parse", "--short=12", "HEAD")
    (package.parent / "notes.txt").write_text("not code\n")
    assert "+changes" not in store._commit()
    (package / "code.py").write_text("x = 2\n")
    assert store._commit().endswith("+changes")


def test_the_store_lies_where_the_variable_says_else_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CBD_STORE", "relative")
    monkeypatch.chdir(tmp_path)
    assert store.root() == tmp_path / "relative", "absolute, so that a later chdir does not move it"
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in ("", None):
        monkeypatch.delenv("CBD_STORE") if unset is None else monkeypatch.setenv("CBD_STORE", unset)
        assert store.root() == tmp_path / ".cache" / "cbd"
