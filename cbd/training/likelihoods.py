"""A source's likelihoods of text, over groups of tokens that its tokenizer and another share by bytes.

They are worked out once and shared by every run that learns from them (see `cbd.recipes.training.Scored`).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer

from cbd.data import progress
from cbd.data.alignment import Segmented, Segmenter, align
from cbd.data.tokens import Tokens
from cbd.errors import require
from cbd.evaluation.held_out import HeldOut
from cbd.files import replacing
from cbd.models.forward import hidden_states, load_llm
from cbd.recipes.training import Scored, Training

SHARD = 16_384  # tokens of the corpus that are read between two points of resumption
BATCH_TOKENS = 4096  # tokens of the teacher in one forward pass

Read = tuple[np.ndarray, np.ndarray]


def read_likelihoods(
    teacher: Path, corpus: Path, texts: Iterable[str], scored: Scored, out: Path, state: Path
) -> dict[str, Any]:
    """Fill `out` with groups.bin, scores.bin, sorted.bin and scored.json, which `Likelihoods` reads.

    texts: the corpus' training documents, in its order. Kept in `state` shard by shard, so that a killed run
    goes on. Raises `CbdError` when the texts are not those that the corpus was packed from.
    """
    tokens = Tokens(corpus)
    own, others = (Segmenter(AutoTokenizer.from_pretrained(folder)) for folder in (corpus, teacher))
    model: nn.Module | None = None
    limit = min(scored.sample, tokens.count("train"))
    first = 0
    with progress.bar(title="read", total=limit, unit=" tokens", unit_scale=True) as bar:
        for number, shard in enumerate(_shards(texts, own, limit)):
            place = state / f"shard-{number:06d}.safetensors"
            ids = np.concatenate([np.append(one.ids, tokens.eos) for _, one in shard])
            if not place.exists():
                same = np.array_equal(ids, tokens.array("train")[first : first + len(ids)])
                wrong = f"the texts are not those that {corpus} was packed from"
                require(same, f"{wrong}: build the corpus again")
                model = model or load_llm(teacher)
                theirs = others.many([text for text, _ in shard], add_special_tokens=True)
                found = read_documents(model, scored, theirs)
                with replacing(place) as fresh:
                    save_file(_grouped([one for _, one in shard], theirs, found), fresh)
            first += len(ids)
            bar.update(len(ids))
    return _join([load_file(path) for path in sorted(state.glob("shard-*.safetensors"))], out)


def _shards(texts: Iterable[str], segmenter: Segmenter, limit: int) -> Iterator[list[tuple[str, Segmented]]]:
    """About `SHARD` tokens of documents at a time, until there are `limit`."""
    total, size, shard = 0, 0, []
    for text in texts:
        if total + size >= limit:
            break
        one = segmenter(text)
        shard.append((text, one))
        size += len(one.ids) + 1  # the end-of-text id
        if size >= SHARD:
            yield shard
            total, size, shard = total + size, 0, []
    if shard:
        yield shard


def _grouped(
    own: Sequence[Segmented], others: Sequence[Segmented], found: Sequence[Read]
) -> dict[str, np.ndarray]:
    """Groups of the corpus' tokens (-1 for the end-of-text id), and what the teacher says of each group."""
    groups, values, tops, count = [], [], [], 0
    for one, other, (likelihoods, top) in zip(own, others, found, strict=True):
        mine, theirs = align(one, other)
        n = int(mine.max(initial=-1)) + 1
        sums = np.zeros(n, np.float64)
        kept = theirs >= 0
        np.add.at(sums, theirs[kept], likelihoods[kept])  # NaN where the teacher saw nothing before
        last = np.zeros(n, np.int64)
        last[theirs[kept]] = np.flatnonzero(kept)  # of several, the last one stays
        groups.append(np.append(np.where(mine < 0, -1, mine + count), -1))
        values.append(sums)
        tops.append(top[last])
        count += n
    return {
        "groups": np.concatenate(groups).astype(np.int32),
        "scores": np.concatenate(values).astype(np.float32),
        "sorted": np.concatenate(tops).astype(np.float16),
    }


@torch.inference_mode()
def read_documents(model: nn.Module, scored: Scored, documents: Sequence[Segmented]) -> list[Read]:
    """For each document of n ids: (n,) log-likelihoods, the first NaN; (n, top) sorted probabilities.

    What the tokenizer puts before a text comes before each window of it: without their first token some
    models read as if they knew no language (Gemma 3 needs a third more bits).
    """
    sizes = [len(one.ids) for one in documents]
    results = [(np.full(size, np.nan), np.zeros((size, scored.top), np.float32)) for size in sizes]
    windows = [
        (number, start, skip)
        for number, one in enumerate(documents)
        for start, skip in _windows(sizes[number], scored.context - one.lead)
    ]
    windows.sort(key=lambda w: sizes[w[0]] - w[1])  # of like length, to pad little
    size = max(1, BATCH_TOKENS // scored.context)
    for i in range(0, len(windows), size):
        batch = windows[i : i + size]
        parts = [_window(documents[number], start, scored.context) for number, start, _ in batch]
        # padded on the right: what comes later changes nothing before it
        ids = nn.utils.rnn.pad_sequence([torch.cat(part) for part in parts], batch_first=True)
        states, head = hidden_states(model, ids.to(model.device))
        for row, (lead, part), (number, start, skip) in zip(states, parts, batch, strict=True):
            own = row[len(lead) : len(lead) + len(part)]
            found, top = _read_row(own, head, part.to(row.device), scored.top)
            likelihoods, tops = results[number]
            likelihoods[start + max(skip, 1) : start + len(part)] = found[max(skip, 1) - 1 :]
            tops[start + skip : start + len(part)] = top[skip:]
    return results


def _window(one: Segmented, start: int, context: int) -> tuple[Tensor, Tensor]:
    """The ids that are put before a window (none before the first, which has them), and the window's own."""
    lead = one.ids[: one.lead if start else 0]
    return torch.from_numpy(lead), torch.from_numpy(one.ids[start : start + context - one.lead])


def _read_row(states: Tensor, head: Tensor, ids: Tensor, most: int) -> Read:
    logits = (states @ head.T).float()
    norm = logits.logsumexp(1)
    picked = logits[:-1].gather(1, ids[1:, None]).squeeze(1) - norm[:-1]
    top = logits.topk(min(most, logits.shape[1]), dim=1).values - norm[:, None]
    padded = nn.functional.pad(top.exp(), (0, most - top.shape[1]))
    return picked.double().cpu().numpy(), padded.cpu().numpy()


def _windows(length: int, context: int) -> Iterator[tuple[int, int]]:
    """Starts of overlapping windows, and how many tokens of each an earlier window has read."""
    yield 0, 0
    step = max(1, context // 2)
    for start in range(step, length - (context - step), step):
        yield start, context - step


def _join(shards: list[dict[str, np.ndarray]], out: Path) -> dict[str, Any]:
    counts = np.cumsum([0, *(len(shard["scores"]) for shard in shards)])
    groups = [np.where(s["groups"] < 0, -1, s["groups"] + n) for s, n in zip(shards, counts, strict=False)]
    np.concatenate(groups).astype("<i4").tofile(out / "groups.bin")
    for name, dtype in (("scores", "<f4"), ("sorted", "<f2")):
        np.concatenate([shard[name] for shard in shards]).astype(dtype).tofile(out / f"{name}.bin")
    top = shards[0]["sorted"].shape[1]
    content = {"tokens": int(sum(map(len, groups))), "groups": int(counts[-1]), "top": top}
    (out / "scored.json").write_text(json.dumps(content, indent=1) + "\n")
    return {"scored_tokens": content["tokens"], "groups": content["groups"]}


class Likelihoods:
    """The finished likelihoods of a teacher, memory-mapped, beside the corpus whose tokens they are of."""

    def __init__(self, folder: Path, corpus: Tokens):
        content = json.loads((folder / "scored.json").read_text())
        self.corpus, self.tokens, self.top = corpus, content["tokens"], content["top"]
        self._groups = np.memmap(folder / "groups.bin", "<i4", mode="r")
        self._values = np.memmap(folder / "scores.bin", "<f4", mode="r")
        if self.top:
            self._sorted = np.memmap(folder / "sorted.bin", "<f2", mode="r").reshape(-1, self.top)

    def parts(self, training: Training, step: int) -> dict[str, np.ndarray]:
        """The batch of a step, each with rows first.

        input_ids, labels: (B, T). groups: (B, T) int64, the group of each label counted within its row, -1
        where there is none, the window cuts it, or the teacher has no likelihood. likelihoods: (B, T) fp32,
        the teacher's log-likelihood of that group. sorted: (B, T, top) fp32, the teacher's sorted
        probabilities of what follows input t, all zero where no group ends there.
        """
        context = training.context
        starts = self.corpus.starts(training.seed, step, training.batch, context, limit=self.tokens)
        around = starts[:, None] + np.arange(context + 2)
        rows = self.corpus.array("train")[around[:, :-1]].astype(np.int64)
        groups = np.where(around < self.tokens, self._groups[np.minimum(around, self.tokens - 1)], -1)
        labels = groups[:, 1:-1].astype(np.int64)
        cut = (labels == groups[:, :1]) | (labels == groups[:, -1:])
        values = self._values[np.maximum(labels, 0)]
        kept = (labels >= 0) & ~cut & np.isfinite(values)
        first = np.where(kept, labels, np.iinfo(np.int64).max).min(1, keepdims=True)
        found = {
            "input_ids": rows[:, :-1],
            "labels": rows[:, 1:],
            "groups": np.where(kept, labels - first, -1),
            "likelihoods": np.where(kept, values, 0).astype(np.float32),
        }
        if self.top:
            before = groups[:, :-2]
            ends = (before >= 0) & (before != groups[:, 1:-1])
            found["sorted"] = self._sorted[np.maximum(before, 0)].astype(np.float32) * ends[:, :, None]
        return found

    def held_out(self, training: Training) -> HeldOut:
        """Plain text: what the points of every curve are measured on."""
        return HeldOut.of(self.corpus, "validation", training.evaluation_tokens, training.context)
