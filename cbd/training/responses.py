"""Supervised fine-tuning: batches of prompts with their responses, on which alone the loss is taken."""

from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from cbd.data.pairs import read
from cbd.errors import CbdError
from cbd.evaluation.held_out import HeldOut
from cbd.recipes.training import Training
from cbd.training.losses import IGNORED


class Responses:
    """The pairs in a folder of `cbd.recipes.data.Pairs`, in the ids of the tokenizer in `model`.

    A row is prompt, response and end of text. Of one that is longer than `context` the prompt loses its
    beginning, and a response that does not fit into half of the context loses its end.
    """

    def __init__(self, folder: Path, model: Path, context: int):
        tokenizer = AutoTokenizer.from_pretrained(model)
        if tokenizer.eos_token_id is None:
            raise CbdError(f"the tokenizer in {model} has no end-of-text token, with which a response ends")
        self.context, self.end = context, tokenizer.eos_token_id
        self._pairs = read(folder / "validation.jsonl")
        self._rows = self._encoded(tokenizer, read(folder / "train.jsonl"))
        self._held_out = self._encoded(tokenizer, self._pairs)

    def _encoded(self, tokenizer: Any, pairs: list[dict]) -> list[tuple[np.ndarray, int]]:
        """Ids of each pair, at most context + 1, and how many of them are the prompt's."""
        rows = []
        for pair in pairs:
            prompt = tokenizer(pair["prompt"]).input_ids
            own = tokenizer(pair["response"], add_special_tokens=False).input_ids + [self.end]
            own = own[: max(1, (self.context + 1) // 2)]
            prompt = prompt[-(self.context + 1 - len(own)) :]
            rows.append((np.array(prompt + own, np.int64), len(prompt)))
        return rows

    def parts(self, training: Training, step: int) -> dict[str, np.ndarray]:
        """`input_ids` and `labels`, (B, T) with T the longest row's: labels are -100 but for responses.

        A pure function of the pairs, the seed and the step.
        """
        key = np.array([training.seed % 2**64, step % 2**64], np.uint64)
        drawn = np.random.Philox(key=key).random_raw(training.batch) % np.uint64(len(self._rows))
        inputs, labels = self._padded([self._rows[i] for i in drawn])
        return {"input_ids": inputs, "labels": labels}

    def held_out(self, training: Training) -> HeldOut:
        """The validation pairs; bits per byte are those of the responses."""
        size = sum(len(pair["response"].encode()) for pair in self._pairs)
        counted = sum(len(ids) - prompt for ids, prompt in self._held_out)
        return HeldOut(*self._padded(self._held_out), size / counted)

    def _padded(self, rows: list[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
        longest = max(len(ids) for ids, _ in rows)
        inputs = np.full((len(rows), longest - 1), self.end, np.int64)
        labels = np.full((len(rows), longest - 1), IGNORED, np.int64)
        for row, (ids, prompt) in enumerate(rows):
            inputs[row, : len(ids) - 1] = ids[:-1]
            labels[row, prompt - 1 : len(ids) - 1] = ids[prompt:]
        return inputs, labels
