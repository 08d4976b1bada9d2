"""The searches for rates and warm-ups, as the run records have them. No torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def searches(records: list[dict[str, Any]]) -> pd.DataFrame:
    """What each search found, what it cost, and how much hangs on it; a row a search.

    Columns: spec, start ("Random", "Interpolated", "Transferred from 4x96"), tokens (of each run), lr and
    warmup (the best, in tokens), loss (its mean over the seeds, in nats per token), next (by how much the
    second of the two that all seeds ran is worse), spread (standard deviation of the loss over the seeds),
    runs, search_tokens and search_flops (of all runs). Empty where nothing was searched.
    """
    runs = {record["key"]: record for record in records}
    rows = [_found(record, runs) for record in records if record.get("recipe") == "Search"]
    if not rows:
        return pd.DataFrame()
    return pd.DataFrame(rows).sort_values(["spec", "start", "tokens"], ignore_index=True)


def _found(search: dict[str, Any], runs: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    tried = pd.DataFrame(search["tried"]).fillna({"loss": np.inf})
    seeds = tried["seed"].nunique()
    points = tried.groupby(["lr", "warmup_tokens"])["loss"].agg(["mean", "std", "size"])
    means = points[points["size"] == seeds]["mean"].sort_values()
    best = search["best"]
    at = points.loc[(best["lr"], best["warmup_tokens"])]
    return {
        "spec": search["spec"],
        "start": _start(search, runs),
        "tokens": search["tokens"] // len(tried),
        "lr": best["lr"],
        "warmup": best["warmup_tokens"],
        "loss": at["mean"],
        "next": means.drop((best["lr"], best["warmup_tokens"])).min() - at["mean"],
        "spread": at["std"],
        "runs": len(tried),
        "search_tokens": search["tokens"],
        "search_flops": search["flops"],
    }


def _start(run: dict[str, Any], runs: Mapping[str, dict[str, Any]]) -> str:
    start = runs[run["fields"]["start"]]
    anchor, trans = (start["fields"].get(name) for name in ("model", "trans"))
    how = f" ({', '.join(trans.values())})" if trans else ""
    return start["recipe"] + how + (f" from {runs[anchor]['spec']}" if anchor else "")
