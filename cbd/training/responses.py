"""Supervised fine-tuning: batches of prompts with their responses, on which alone the loss is taken."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer

from cbd.data.items import read
from cbd.data.tokens import drawn
from cbd.errors import require
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
        wrong = f"the tokenizer in {model} has no end-of-text token, with which a response ends"
        require(tokenizer.eos_token_id is not None, wrong)
        self.context, self.end = context, tokenizer.eos_token_id
        self._pairs = read(folder / "validation.jsonl")
        self._rows = self._encoded(tokenizer, read(folder / "train.jsonl"))
        self._held_out = self._encoded(tokenizer, self._pairs)

    def _encoded(self, tokenizer: Any, pairs: list[dict]) -> list[tuple[Tensor, Tensor]]:
        """Inputs and labels of each pair, at most (context,) each."""
        rows = []
        for pair in pairs:
            prompt = tokenizer(pair["prompt"]).input_ids
            own = tokenizer(pair["response"], add_special_tokens=False).input_ids + [self.end]
            own = own[: max(1, (self.context + 1) // 2)]
            prompt = prompt[-(self.context + 1 - len(own)) :]
            labels = [IGNORED] * (len(prompt) - 1) + own
            rows.append((torch.tensor((prompt + own)[:-1]), torch.tensor(labels)))
        return rows

    def parts(self, training: Training, step: int) -> dict[str, np.ndarray]:
        """`input_ids` and `labels`, (B, T) with T the longest row's: labels are -100 but for responses.

        A pure function of the pairs, the seed and the step.
        """
        places = drawn(training.seed, step, training.batch, len(self._rows))
        inputs, labels = self._padded([self._rows[i] for i in places])
        return {"input_ids": inputs, "labels": labels}

    def held_out(self, training: Training) -> HeldOut:
        """The validation pairs; bits per byte are those of the responses."""
        size = sum(len(pair["response"].encode()) for pair in self._pairs)
        inputs, labels = self._padded(self._held_out)
        return HeldOut(inputs, labels, size / int((labels != IGNORED).sum()))

    def _padded(self, rows: list[tuple[Tensor, Tensor]]) -> tuple[np.ndarray, np.ndarray]:
        inputs, labels = zip(*rows, strict=True)
        padded = pad_sequence(inputs, batch_first=True, padding_value=self.end)
        return padded.numpy(), pad_sequence(labels, batch_first=True, padding_value=IGNORED).numpy()
