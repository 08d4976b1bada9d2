"""The README's four commands on SmolLM2-135M, as a user gives them: what each takes, and what comes of it.

    python tests/benchmarks/commands.py        # results/bench/commands.json and a table

In an empty folder with an empty store. The text is what the smollm scale's source wrote, which is made first
where the user's own store has none; the benchmarks' data come from `make data`.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import surroundings, table, write

from cbd.commands.init import named
from cbd.data.items import write as write_lines
from cbd.errors import si
from cbd.experiments.scales import SCALES
from cbd.models.generation import texts
from cbd.realize import realize

SCALE = SCALES["smollm"]
COMMANDS = (
    "cbd chain --source smollm2 --anchors 20x576 --corpus texts --tokens 25000 --out chain",
    "cbd init --chain chain --layers 25 --width 576 --text texts --out slm",
    "cbd recover slm --teacher chain/30x576 --corpus texts --tokens 25000 --out slm-tuned",
    "cbd eval slm-tuned --tasks hellaswag,piqa --limit 200 --out scores.json",
)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "smollm2").symlink_to(realize(SCALE.source))
        (place / "texts").mkdir()
        documents = [text for part in SCALE.corpus.texts for text in texts(realize(part))]
        write_lines(place / "texts" / "written.jsonl", [{"text": text} for text in documents])
        rows = []
        for command, said in zip(COMMANDS, (chain, init, recover, scores), strict=True):
            seconds = run(command, place)
            rows.append({"command": command, "seconds": round(seconds), "said": said(place)})
            print(f"{seconds:.0f} s: {rows[-1]['said']}", flush=True)
    write("commands", {"rows": rows, **surroundings()})
    table(rows)


def run(command: str, place: Path) -> float:
    """Seconds."""
    settings = os.environ | {"CBD_STORE": str(place / "store"), "HF_HUB_OFFLINE": "1"}
    began = time.monotonic()
    words = [sys.executable, "-m", "cbd.cli", *shlex.split(command)[1:]]
    subprocess.run(words, cwd=place, env=settings, check=True)
    return time.monotonic() - began


def chain(place: Path) -> str:
    rows = read(place / "chain" / "chain.json")["models"]
    return ", ".join(f"{row['folder']} ({si(row['parameters'])}) at {row['loss']:.2f} nats" for row in rows)


def init(place: Path) -> str:
    tried = read(place / "slm" / "cbd.json")["choice"]["measured"]
    return f"the best of {len(tried)} starts is {named(tried[0])}: {tried[0]['loss']:.2f} nats"


def recover(place: Path) -> str:
    about = read(place / "slm-tuned" / "cbd.json")
    return f"{about['before']:.2f} nats before, {about['after']:.2f} after"


def scores(place: Path) -> str:
    found = read(place / "scores.json")["scores"]
    told = [f"{task} {100 * score['acc_norm']['value']:.1f}" for task, score in found.items()]
    chances = [f"{100 * score['acc_norm']['chance']:.0f}" for score in found.values()]
    return f"{', '.join(told)} (guessing {', '.join(chances)})"


def read(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


if __name__ == "__main__":
    main()
