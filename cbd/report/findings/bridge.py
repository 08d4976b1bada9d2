"""E15, Q10: a chain from a source of another architecture, by each bridge and without one."""

from collections.abc import Sequence
from itertools import product

import pandas as pd

from cbd.report import stats
from cbd.report.findings.shared import generative, paired, units, with_verdict
from cbd.report.names import ALM, AS_IS, BRIDGED, CBD, RAW, RAW_COMPUTE, SEQUENCE, SOURCE, ULD
from cbd.report.verdicts import BITS, MARGIN_BITS, Control, Entry, Facts, Tables, less, listed, more

OWN = "bits_per_byte"


def differences(table: pd.DataFrame, baseline: str = RAW, metric: str = OWN) -> pd.DataFrame:
    """Bits per byte of each way to a proxy minus the baseline's, a row a source, stage and method."""
    rows = table[(table["metric"] == metric) & (table["stage"] != SOURCE)]
    found = with_verdict(stats.paired(rows, ["source", "stage"], baseline=baseline))
    order = {name: i for column in ("source", "stage") for i, name in enumerate(rows[column].unique())}
    place = lambda column: column if column.name == "method" else column.map(order)  # noqa: E731
    return found.sort_values(["source", "stage", "method"], key=place, ignore_index=True)


def _ways(tables: Tables, stage: str, methods: Sequence[str], baseline: str = RAW) -> pd.DataFrame:
    """These ways minus the baseline in a stage, as units, on every text that no model here wrote.

    The scale's own counts where there is no other: a proxy's own writing would favour what leaves it alone.
    """
    table, parts = tables["bridge"], []
    others = [metric for metric in table["metric"].unique() if metric.startswith(f"{OWN} on ")]
    for metric in others or [OWN]:
        found = differences(table, baseline, metric).query("stage == @stage and method in @methods")
        named = units(found, "{method}, {source}" if found["source"].nunique() > 1 else "{method}")
        parts.append(named.assign(unit=named["unit"] + metric.removeprefix(OWN)))
    return pd.concat(parts, ignore_index=True)


def _by_text(tables: Tables) -> pd.DataFrame:
    """By generated text minus every chain without a bridge."""
    parts, known = [], set(tables["bridge"]["method"])
    for baseline in [name for name in (RAW, RAW_COMPUTE, AS_IS) if name in known]:
        found = _ways(tables, "SLM", [SEQUENCE], baseline)
        parts.append(found.assign(unit=found["unit"] + " against " + baseline.split(", ")[1]))
    return pd.concat(parts, ignore_index=True)


def _generation(tables: Tables) -> str:
    """On Rouge-L, the chain from the GPT-2 source minus the bridged one, once scratch_vs_cbd has run."""
    table = tables.get("scratch_vs_cbd", pd.DataFrame({"metric": [], "method": []}))
    told = []
    for metric, name in product(generative(table), sorted(set(table["method"]))):
        if name.startswith(BRIDGED):
            told.append(f"{metric}, CBD minus {name}: {listed(paired(table, CBD, name, metric))}")
    return "; ".join(told)


ROWS = {
    "E15": Entry(
        _by_text,
        less("SLM of a chain bridged by generated text minus one of a chain without a bridge", BITS),
        _generation,
        control=Control("no bridge, equal tokens and equal compute", "fair"),
    ),
    "Q10": Entry(
        lambda tables: _ways(tables, "SLM", [SEQUENCE, ALM, ULD]),
        less("SLM of a chain: each bridge minus no bridge", BITS),
        control=Control("no bridge, equal tokens", "fair"),
    ),
}


PREDICTIONS = {
    "the sequence-level proxy is worse than one from as much raw text": (
        lambda tables: _ways(tables, "proxy", [SEQUENCE]),
        more("Proxy minus no bridge at equal tokens", BITS),
    ),
    "matching likelihoods is at least as good as the raw corpus": (
        lambda tables: _ways(tables, "proxy", [ALM, ULD]),
        Facts(
            f"Proxy minus no bridge at equal tokens: interval not above {MARGIN_BITS:g}",
            lambda r: r.low <= MARGIN_BITS,
            "+.3f",
        ),
    ),
    "with equal compute the raw corpus wins": (
        lambda tables: units(differences(tables["bridge"], RAW_COMPUTE), "{method}, {stage}"),
        more("Every other way minus no bridge at equal compute, each stage", BITS),
    ),
}
