"""Text from a source LLM: continuations of prompts, batch by batch, resumable and seeded."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer

from cbd.data import progress
from cbd.data.documents import training_documents
from cbd.data.items import read, write
from cbd.errors import require
from cbd.files import write_text
from cbd.models.forward import load_llm
from cbd.recipes.data import Corpus
from cbd.recipes.models import Sampling

TEXT = "text.jsonl"


def generate(source: Path, corpus: Corpus, sampling: Sampling, out: Path, state: Path) -> dict[str, Any]:
    """Write `sampling.documents` continuations as lines {"prompt", "text", "tokens"} of `out`/text.jsonl.

    Prompts are the first tokens of training documents, one each, in the corpus' order. Every batch has a seed
    of its own and is kept in `state` when it is finished, so that a killed run goes on with the next one and
    repeats none. Returns what was measured. Raises `CbdError` when the corpus has too few documents.
    """
    tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left")
    prompts = prompts_of(corpus, tokenizer, sampling)
    batches = [prompts[i : i + sampling.batch] for i in range(0, len(prompts), sampling.batch)]
    places = [state / f"batch-{i:06d}.json" for i in range(len(batches))]
    missing = [i for i, place in enumerate(places) if not place.exists()]
    if missing:
        writer = Writer(load_llm(source), tokenizer, sampling)
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


class Writer:
    """A source that continues prompts."""

    def __init__(self, model: nn.Module, tokenizer: Any, sampling: Sampling):
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token

    def write(self, prompts: list[list[int]], number: int) -> list[dict[str, Any]]:
        """One batch: prompts padded on the left, so that all continue at the same place."""
        padded = self.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        padded = padded.to(self.model.device)
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(self.sampling.seed * 1_000_003 + number)
            written = self.model.generate(
                **padded,
                do_sample=True,
                temperature=self.sampling.temperature,
                top_k=self.sampling.top_k,
                top_p=1.0,
                max_new_tokens=self.sampling.new,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        new = written[:, padded["input_ids"].shape[1] :].tolist()
        return [self._row(*pair) for pair in zip(prompts, new, strict=True)]

    def _row(self, prompt: list[int], new: list[int]) -> dict[str, Any]:
        """The text up to the first end; `tokens` counts what was written, the end included."""
        ends = self.model.generation_config.eos_token_id
        ends = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        length = next((i for i, token in enumerate(new) if token in ends), len(new))
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        start, whole = (self.tokenizer.decode(ids, **options) for ids in (prompt, prompt + new[:length]))
        return {"prompt": start, "text": whole, "tokens": min(length + 1, len(new))}


def continued(folder: Path, prompt: str, new: int = 40, top_k: int = 20, seed: int = 0) -> str:
    """The prompt and what the checkpoint in `folder` writes after it: a sample to look at."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    writer = Writer(load_llm(folder), tokenizer, Sampling(1, new=new, top_k=top_k, seed=seed))
    return writer.write([tokenizer(prompt).input_ids], 0)[0]["text"]


def texts(folder: Path) -> list[str]:
    """The documents that a finished generation holds: prompt and continuation, empty ones left out."""
    return [text for row in read(folder / TEXT) if (text := row["text"].strip())]
