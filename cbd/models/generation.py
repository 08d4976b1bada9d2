"""Text from a source LLM, from prompts or from nothing, batch by batch, resumable and seeded."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer

from cbd.data import progress
from cbd.data.corpus import beginning_of_text
from cbd.data.documents import training_documents
from cbd.data.items import read, write
from cbd.errors import require
from cbd.files import write_text
from cbd.models.decoding import AmongLikeliest, decoding
from cbd.models.forward import load_llm
from cbd.recipes.data import Corpus
from cbd.recipes.models import Sampling

TEXT = "text.jsonl"
TURN = "<turn>"  # stands where a chat template puts what the user says


def generate(
    source: Path, corpus: Corpus | None, sampling: Sampling, out: Path, state: Path
) -> dict[str, Any]:
    """Write `sampling.documents` texts as lines {"prompt", "text", "tokens"} of `out`/text.jsonl.

    With a corpus, prompts are the first tokens of its training documents, one each, in its order. Every batch
    has a seed of its own and is kept in `state` when it is finished, so that a killed run goes on with the
    next one and repeats none. Returns what was measured. Raises `CbdError` when the corpus has too few
    documents, or when a user's turn is asked of a tokenizer that has no chat template.
    """
    tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left")
    if corpus:
        prompts = prompts_of(corpus, tokenizer, sampling)
    else:
        prompts = [opening_of(tokenizer, sampling)[0]] * sampling.documents
    batches = [prompts[i : i + sampling.batch] for i in range(0, len(prompts), sampling.batch)]
    places = [state / f"batch-{i:06d}.json" for i in range(len(batches))]
    missing = [i for i, place in enumerate(places) if not place.exists()]
    if missing:
        writer = Writer(load_llm(source, sampling.precision), tokenizer, sampling)
        done = len(batches) - len(missing)
        for i in progress.bar(missing, "generate", initial=done, total=len(batches), unit=" batches"):
            write_text(places[i], json.dumps(writer.write(batches[i], i), ensure_ascii=False))
    rows = [row for place in places for row in json.loads(place.read_text())]
    write(out / TEXT, rows)
    return {"documents": len(rows), "generated_tokens": sum(row["tokens"] for row in rows)}


def prompts_of(corpus: Corpus, tokenizer: Any, sampling: Sampling) -> list[list[int]]:
    """The first `sampling.prompt` tokens of the first training documents (fewer of a shorter document)."""
    count, most = sampling.documents, sampling.prompt
    # a beginning is enough: no token has more than 64 characters on average
    beginnings = [text[: 64 * most] for text in islice(training_documents(corpus), count)]
    few = f"{corpus.name} has {len(beginnings):,} training documents, fewer than the {count:,} prompts"
    require(len(beginnings) == count, f"{few}: lower the sampling's documents")
    return [tokenizer(text).input_ids[:most] for text in beginnings]


def opening_of(tokenizer: Any, sampling: Sampling) -> tuple[list[int], list[int]]:
    """The ids before a text that is written from nothing, and those between a user's turn and its answer."""
    if sampling.opening == "text":
        return [beginning_of_text(tokenizer)], []
    require(tokenizer.chat_template, "this source has no chat template: let it write from the opening 'text'")
    options = {"tokenize": False, "add_generation_prompt": True}
    around = tokenizer.apply_chat_template([{"role": "user", "content": TURN}], **options).split(TURN)
    before, between = (tokenizer(part, add_special_tokens=False).input_ids for part in around)
    return before, between


class Writer:
    """A source that writes."""

    def __init__(self, model: nn.Module, tokenizer: Any, sampling: Sampling):
        self.model, self.tokenizer, self.sampling = decoding(model), tokenizer, sampling
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        ends = model.generation_config.eos_token_id
        found = [tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])]
        self.ends = {token for token in found if token is not None}
        if sampling.opening != "document":
            self.ends.add(beginning_of_text(tokenizer))

    def write(self, prompts: list[list[int]], number: int) -> list[dict[str, Any]]:
        """One batch."""
        most = self.sampling.new
        if self.sampling.opening != "user":
            written = self._continue(prompts, number, most)
            return [self._row(*pair) for pair in zip(prompts, written, strict=True)]
        _, between = opening_of(self.tokenizer, self.sampling)
        turns = [new[: self._length(new)] for new in self._continue(prompts, number, most // 2)]
        asked = [prompt + turn + between for prompt, turn in zip(prompts, turns, strict=True)]
        answers = self._continue(asked, -number - 1, most - most // 2)
        return [self._answered(*pair) for pair in zip(turns, answers, strict=True)]

    def _continue(self, prompts: list[list[int]], number: int, most: int) -> list[list[int]]:
        """What follows each prompt, padded on the left, so that all continue at the same place."""
        padded = self.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        padded = padded.to(self.model.device)
        how = {"do_sample": True, "top_k": 0}
        how |= {name: getattr(self.sampling, name) for name in ("temperature", "top_p")}
        if self.sampling.top_k:
            how = {"do_sample": False, "logits_processor": [AmongLikeliest(self.sampling)]}
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(self.sampling.seed * 1_000_003 + number)
            written = self.model.generate(
                **padded,
                **how,
                max_new_tokens=most,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=sorted(self.ends),
            )
        return written[:, padded["input_ids"].shape[1] :].tolist()

    def _row(self, prompt: list[int], new: list[int]) -> dict[str, Any]:
        """The text up to the first end; `tokens` counts what was written, the end included."""
        length = self._length(new)
        start, whole = (self._decoded(ids) for ids in (prompt, prompt + new[:length]))
        return {"prompt": start, "text": whole, "tokens": min(length + 1, len(new))}

    def _answered(self, turn: list[int], answer: list[int]) -> dict[str, Any]:
        """A user's turn and the answer, with a line between them."""
        length = self._length(answer)
        text = f"{self._decoded(turn)}\n{self._decoded(answer[:length])}"
        return {"prompt": "", "text": text, "tokens": len(turn) + 1 + min(length + 1, len(answer))}

    def _length(self, new: list[int]) -> int:
        return next((i for i, token in enumerate(new) if token in self.ends), len(new))

    def _decoded(self, ids: list[int]) -> str:
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return self.tokenizer.decode(ids, **options)


def continued(folder: Path, prompt: str, new: int = 40, top_k: int = 20, seed: int = 0) -> str:
    """The prompt and what the checkpoint in `folder` writes after it: a sample to look at."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    writer = Writer(load_llm(folder), tokenizer, Sampling(1, new=new, top_k=top_k, seed=seed))
    return writer.write([tokenizer(prompt).input_ids], 0)[0]["text"]


def texts(folder: Path) -> list[str]:
    """The documents that a finished generation holds: prompt and continuation, empty ones left out."""
    return [text for row in read(folder / TEXT) if (text := row["text"].strip())]
