"""Text from a source LLM: continuations of prompts, batch by batch, resumable and seeded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer

from cbd.data import progress
from cbd.data.documents import training_documents
from cbd.errors import CbdError
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
    missing = [i for i in range(len(batches)) if not _place(state, i).exists()]
    if missing:
        writer = Writer(load_llm(source), tokenizer, sampling)
        done = len(batches) - len(missing)
        for i in progress.bar(missing, "generate", initial=done, total=len(batches), unit=" batches"):
            write_text(_place(state, i), json.dumps(writer.write(batches[i], i), ensure_ascii=False))
    rows = [row for i in range(len(batches)) for row in json.loads(_place(state, i).read_text())]
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / TEXT).write_text("".join(lines), "utf-8")
    return {"documents": len(rows), "generated_tokens": sum(row["tokens"] for row in rows)}


def prompts_of(corpus: Corpus, tokenizer: Any, sampling: Sampling) -> list[list[int]]:
    """The first `sampling.prompt` tokens of the first training documents (fewer of a shorter document)."""
    found = []
    for text in islice(training_documents(corpus), sampling.documents):
        # a beginning is enough: no token has more than 64 characters on average
        found.append(tokenizer(text[: 64 * sampling.prompt]).input_ids[: sampling.prompt])
    if len(found) < sampling.documents:
        raise CbdError(
            f"{corpus.name} has {len(found):,} training documents, fewer than the {sampling.documents:,} "
            f"prompts that are asked for: lower the sampling's documents"
        )
    return found


class Writer:
    """A source that continues prompts."""

    def __init__(self, model: nn.Module, tokenizer: Any, sampling: Sampling):
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def write(self, prompts: list[list[int]], number: int) -> list[dict[str, Any]]:
        """One batch: prompts padded on the left, so that all continue at the same place."""
        longest = max(map(len, prompts))
        rows = [[self.pad] * (longest - len(p)) + p for p in prompts]
        mask = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
        device = self.model.device
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(self.sampling.seed * 1_000_003 + number)
            written = self.model.generate(
                torch.tensor(rows, device=device),
                attention_mask=torch.tensor(mask, device=device),
                do_sample=True,
                temperature=self.sampling.temperature,
                top_k=self.sampling.top_k,
                top_p=1.0,
                max_new_tokens=self.sampling.new,
                pad_token_id=self.pad,
            )
        return [self._row(p, new) for p, new in zip(prompts, written[:, longest:].tolist(), strict=True)]

    def _row(self, prompt: list[int], new: list[int]) -> dict[str, Any]:
        """The text up to the first end; `tokens` counts what was written, the end included."""
        ends = set(self._ends())
        length = next((i for i, token in enumerate(new) if token in ends), len(new))
        decode = lambda ids: self.tokenizer.decode(  # noqa: E731
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        start, whole = decode(prompt), decode(prompt + new[:length])
        return {"prompt": start, "text": whole, "tokens": min(length + 1, len(new))}

    def _ends(self) -> Iterator[int]:
        ends = self.model.generation_config.eos_token_id
        yield from [] if ends is None else ends if isinstance(ends, list) else [ends]
        if self.tokenizer.eos_token_id is not None:
            yield self.tokenizer.eos_token_id


def continued(folder: Path, prompt: str, new: int = 40, top_k: int = 20, seed: int = 0) -> str:
    """The prompt and what the checkpoint in `folder` writes after it: a sample to look at."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    writer = Writer(load_llm(folder), tokenizer, Sampling(1, new=new, top_k=top_k, seed=seed))
    return writer.write([tokenizer(prompt).input_ids], 0)[0]["text"]


def texts(folder: Path) -> list[str]:
    """The documents that a finished generation holds: prompt and continuation, empty ones left out."""
    with (folder / TEXT).open(encoding="utf-8", newline="\n") as lines:
        return [text for line in lines if (text := json.loads(line)["text"].strip())]


def _place(state: Path, number: int) -> Path:
    return state / f"batch-{number:06d}.json"
