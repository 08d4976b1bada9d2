"""Findings: tables -> small tables and sentences that a reader can check, every number from results. No
torch.
"""

from __future__ import annotations

import pandas as pd

from cbd.errors import CbdError
from cbd.report import headline, results, stats
from cbd.report.names import CBD, LARGER, RAW, RAW_COMPUTE, SMALLER, SOURCE, STEPWISE


def sizes(table: pd.DataFrame) -> dict[str, int]:
    """Parameters of each spec of a table, from small to large."""
    rows = table.dropna(subset=["parameters"]).drop_duplicates("spec").sort_values("parameters")
    return {spec: int(n) for spec, n in zip(rows["spec"], rows["parameters"], strict=True)}


def step_zero(table: pd.DataFrame) -> pd.DataFrame:
    """Mean step-zero loss (nats per token), a row a target size, a column a method."""
    rows = table[(table["metric"] == "loss") & (table["tokens"] == 0)]
    wide = rows.pivot_table(index="spec", columns="method", values="value", aggfunc="mean")
    return wide.loc[list(sizes(rows))]


def against(table: pd.DataFrame, baseline: str, metric: str = "loss") -> pd.DataFrame:
    """Paired differences to `baseline` in each size, with interval and verdict.

    table: one row for each (spec, method, seed). Columns: spec, method, point, low, high (nats per token,
    negative: better than the baseline), n, verdict ("lower", "higher", or "undecided" where the interval
        holds zero).
    """
    rows = table[table["metric"] == metric]
    found = stats.paired(rows, ["spec"], baseline=baseline)
    order = list(sizes(rows))
    found = found.sort_values(["spec", "method"], key=lambda c: c.map(order.index) if c.name == "spec" else c)
    return found.assign(
        verdict=[stats.verdict(low, high) for low, high in zip(found.low, found.high, strict=True)]
    )


def final(table: pd.DataFrame) -> pd.DataFrame:
    """The last point of every curve: one row for each (method, spec, budget, seed)."""
    rows = table[table["metric"] == "loss"]
    return rows[rows["tokens"] == rows.groupby("recipe")["tokens"].transform("max")]


def nearest(table: pd.DataFrame) -> pd.DataFrame:
    """Step-zero rows in which the two single anchors are replaced by the better one and the nearer one.

    "best single anchor" is the lower of the two losses of each size and seed: a control that knows the
    answer.
    """
    rows = table[(table["metric"] == "loss") & (table["tokens"] == 0)]
    singles = rows[rows["method"].isin([SMALLER, LARGER])]
    best = singles.loc[singles.groupby(["spec", "seed"])["value"].idxmin()].assign(
        method="best single anchor"
    )
    return pd.concat([rows[~rows["method"].isin([SMALLER, LARGER])], best])


def alpha_optima(table: pd.DataFrame) -> pd.DataFrame:
    """For each curve of the alpha experiment (mean over seeds) its best alpha and what it gains over both
    ends.

    Columns: method (kind of anchors), mixing, operator, spec, best alpha, interior, gain (nats per token),
    seeds interior ("2/3": in how many seeds alone the optimum is interior), rule (alpha of the parameter
    distance).
    """
    losses = table[table["metric"] == "loss"]
    rule = table[table["metric"] == "rule_alpha"].groupby("spec")["value"].mean()
    rows = []
    for (method, mixing, operator, spec), curve in losses.groupby(["method", "mixing", "operator", "spec"]):
        mean = curve.groupby("alpha")["value"].mean()
        best = stats.best_alpha(list(mean.index), list(mean))
        single = [
            stats.best_alpha(list(c["alpha"]), list(c["value"])).interior for _, c in curve.groupby("seed")
        ]
        rows.append(
            {
                "anchors": method,
                "mixing": mixing,
                "expansion": operator,
                "spec": spec,
                "best alpha": best.alpha,
            }
            | {
                "interior": best.interior,
                "gain": best.advantage,
                "seeds interior": f"{sum(single)}/{len(single)}",
            }
            | {"rule": rule[spec]}
        )
    order = list(sizes(losses))
    keys = ["anchors", "mixing", "expansion"]
    return pd.DataFrame(rows).sort_values(
        [*keys, "spec"], key=lambda c: c.map(order.index) if c.name == "spec" else c
    )


def lossy_hypothesis(table: pd.DataFrame) -> str:
    """The verdict on "the paper's interior optimum measures a lossy expansion", by a rule.

    Supported when, with inherited anchors and the literal formula, every target's best alpha is interior
    under the lossy expansion and at alpha = 1 under the preserving one; partly when this holds for some; else
    not.
    """
    optima = alpha_optima(table)
    curves = optima[(optima["anchors"] == "inherited") & (optima["mixing"] == "literal")].set_index(
        ["expansion", "spec"]
    )
    specs = list(sizes(table[table["metric"] == "loss"]))
    lossy = [bool(curves.loc[("lossy", s), "interior"]) for s in specs]
    preserving = [curves.loc[("preserving", s), "best alpha"] == 1.0 for s in specs]
    both = sum(a and b for a, b in zip(lossy, preserving, strict=True))
    word = "supported" if both == len(specs) else "partly supported" if both else "not supported"
    return (
        f"{word}: with inherited anchors and the literal formula the best alpha is interior for "
        f"{sum(lossy)} of "
        f"{len(specs)} targets under the lossy expansion, and alpha = 1 is best for {sum(preserving)} of "
        f"{len(specs)} under "
        f"the preserving one"
    )


def advantage(table: pd.DataFrame) -> str:
    """The step-zero advantage of CBD (union) over the better single anchor, or its absence, in a sentence."""
    found = against(nearest(table), "best single anchor")
    cbd = found[found["method"] == CBD]
    return (
        f"CBD (union) against the better single anchor, of {len(cbd)} sizes: {stats.tally(cbd['verdict'])}. "
        f"Difference in nats per token with interval over {int(cbd['n'].max())} seeds: "
        f"{_differences(cbd, 'spec')}."
    )


def _differences(found: pd.DataFrame, by: str) -> str:
    """Each row's difference with its interval, named by one column."""
    rows = zip(found[by], found["point"], found["low"], found["high"], strict=True)
    return "; ".join(f"{name} {point:+.3f} [{low:+.3f}, {high:+.3f}]" for name, point, low, high in rows)


def recovered(table: pd.DataFrame) -> str:
    """The same after recovery training: CBD (union) minus the better single anchor at each budget, one
    sentence.
    """
    ends = final(table)
    parts = []
    for budget, rows in ends.groupby("budget"):
        singles = rows[rows["method"].isin([SMALLER, LARGER])]
        if singles.empty:
            continue
        best = singles.loc[singles.groupby(["spec", "seed"])["value"].idxmin()].assign(
            method="best single anchor"
        )
        both = pd.concat([rows[rows["method"] == CBD], best])
        found = against(both, "best single anchor")
        after = f"After {budget:,} tokens ({stats.tally(found['verdict'])})"
        parts.append(f"{after}: {_differences(found, 'spec')}")
    return f"CBD (union) minus the better single anchor, nats per token. {'. '.join(parts)}."


def speedups(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and interval of each speed-up, a row a size and budget; `bound` marks lower bounds."""
    found = []
    for metric in ("speedup_to_random_final", "speedup_to_cbd_final"):
        rows = stats.with_lower_bounds(table, metric)
        summary = stats.summarise(rows, ["spec", "budget"]).assign(metric=metric)
        bounds = rows.groupby(["spec", "budget"])["bound"].any().rename("bound").reset_index()
        found.append(summary.merge(bounds, on=["spec", "budget"]))
    return pd.concat(found)[["metric", "spec", "budget", "point", "low", "high", "n", "bound"]]


def steps_lost(table: pd.DataFrame) -> pd.DataFrame:
    """Q4: what each step of the chain loses and what is lost since the source, nats with interval."""
    rows = table[table["metric"].isin(["lost", "lost_since_source"])]
    found = stats.summarise(rows, ["metric", "spec"])
    order = list(reversed(sizes(rows)))
    return found.sort_values(["metric", "spec"], key=lambda c: c.map(order.index) if c.name == "spec" else c)


def stepwise_or_direct(table: pd.DataFrame) -> pd.DataFrame:
    """E1, E6b: the smallest anchor, direct minus stepwise: final loss and noise of training, with verdict."""
    smallest = min(sizes(table).items(), key=lambda item: item[1])[0]
    rows = table[table["spec"] == smallest]
    parts = [against(rows, STEPWISE, metric).assign(metric=metric) for metric in ("final_loss", "loss_noise")]
    return pd.concat(parts)[["metric", "spec", "method", "point", "low", "high", "n", "verdict"]]


README_SCALE = "laptop"
START, END = "<!-- findings: written by `make figures` -->", "<!-- end of findings -->"


def summary(scale: str) -> str:
    """The findings of one scale as Markdown: what README.md shows between its markers."""
    lines = []
    for name, title, sentence in _SENTENCES:
        ran = results.table_path(scale, name).exists()
        words = sentence(results.read_table(scale, name)) if ran else "Not yet run at this scale."
        lines.append(f"- **{title}.** {words}")
    return "\n".join(lines)


def _hypothesis(table: pd.DataFrame) -> str:
    claim = "The hypothesis that the paper's interior optimum measures a lossy expansion is"
    return f"{claim} {lossy_hypothesis(table)}."


def _direct(table: pd.DataFrame) -> str:
    found = stepwise_or_direct(table)
    words = _differences(found[found["metric"] == "final_loss"], "method")
    return f"Smallest anchor, direct minus stepwise distillation, final loss in nats per token: {words}."


def bridged(table: pd.DataFrame, baseline: str = RAW) -> pd.DataFrame:
    """Bits per byte of each way to a proxy minus the baseline's, a row a source, stage and method."""
    models = table[(table["metric"] == "bits_per_byte") & (table["stage"] != SOURCE)]
    parts = []
    for (source, stage), rows in models.groupby(["source", "stage"], sort=False):
        found = against(rows.assign(spec=stage), baseline, "bits_per_byte")
        parts.append(found.rename(columns={"spec": "stage"}).assign(source=source))
    return pd.concat(parts)[["source", "stage", "method", "point", "low", "high", "n", "verdict"]]


def family_optima(table: pd.DataFrame) -> pd.DataFrame:
    """Where each family's mean curve over alpha has its minimum, in bits per byte, beside its two ends.

    Columns: family, spec, mixing, operator, best_alpha, bits_per_byte, small (alpha 1), large (alpha 0),
    rule_alpha, interior.
    """
    rows = table[(table["metric"] == "bits_per_byte") & (table["method"] == "CBD")]
    mean = rows.groupby(["family", "spec", "mixing", "operator", "alpha"], sort=False)["value"].mean()
    rule = table[table["metric"] == "rule_alpha"].groupby(["family", "spec"])["value"].first()
    found = []
    for (family, spec, mixing, operator), curve in mean.groupby(level=[0, 1, 2, 3], sort=False):
        curve = curve.droplevel([0, 1, 2, 3])
        best = stats.best_alpha(list(curve.index), list(curve))
        found.append(
            {"family": family, "spec": spec, "mixing": mixing, "operator": operator}
            | {"best_alpha": best.alpha, "bits_per_byte": best.loss}
            | {"small": curve.get(1.0), "large": curve.get(0.0), "rule_alpha": rule.get((family, spec))}
            | {"interior": best.interior}
        )
    return pd.DataFrame(found)


def _families(table: pd.DataFrame) -> str:
    found = family_optima(table)
    words = []
    for (mixing, operator), rows in found.groupby(["mixing", "operator"], sort=False):
        inside = rows.groupby("family", sort=False)["interior"].agg(["sum", "count"])
        each = ", ".join(f"{name} {row['sum']} of {row['count']}" for name, row in inside.iterrows())
        words.append(f"{mixing}, {operator}: {each}")
    return f"Targets whose best alpha lies inside the interval, by family: {'; '.join(words)}."


def _bridge(table: pd.DataFrame) -> str:
    found = bridged(table)
    sentences = []
    for stage in ("proxy", "SLM"):
        rows = found[found["stage"] == stage]
        bridges = rows[rows["method"] != RAW_COMPUTE]
        sentences.append(
            f"{stage} (bridges: {stats.tally(bridges['verdict'])}): {_differences(rows, 'method')}"
        )
    what = "Bits per byte of held-out text minus those without a bridge at equal tokens"
    return f"{what}. {'. '.join(sentences)}."


def against_random(table: pd.DataFrame) -> str:
    """How many times fewer tokens than random weights CBD needs, by both definitions, a sentence each."""
    found = speedups(table)

    def words(metric: str) -> str:
        rows = found[found["metric"] == metric].dropna(subset="point").itertuples()
        budget = lambda r: f"{r.budget:,}"  # noqa: E731
        return "; ".join(f"{r.spec}, {budget(r)}: {'at least ' * r.bound}{r.point:.3g}x" for r in rows)

    return (
        f"Tokens that random weights need to reach CBD's final loss, over CBD's own (size, budget): "
        f"{words('speedup_to_cbd_final')}. The other way round, the budget over the tokens with which CBD "
        f"reaches random's final loss, one optimiser step at least: {words('speedup_to_random_final')}. "
        f"Where CBD starts below that loss, this factor is the number of steps, whatever the method's worth."
    )


_SENTENCES = (
    ("initialise", "Step zero (E2, Q2)", advantage),
    ("convergence", "After recovery (E5, Q2)", recovered),
    ("convergence", "Against random weights (E5)", against_random),
    ("alpha", "Alpha (E7)", _hypothesis),
    ("chain", "Stepwise or direct (E1)", _direct),
    ("bridge", "The bridge (E15, Q10)", _bridge),
    ("families", "Other families (Q9)", _families),
    ("scratch_vs_cbd", "Scratch against CBD (E3)", headline.saved),
    ("equal_budget", "Equal budgets (E4, E13)", headline.equal),
)


def update_readme(text: str, scale: str) -> str:
    """README text with the block between the markers written anew. Raises `CbdError` when a marker is
    missing.
    """
    if START not in text or END not in text:
        raise CbdError(f"README.md needs the two lines {START} and {END}")
    before, rest = text.split(START, 1)
    return f"{before}{START}\n{summary(scale)}\n{END}{rest.split(END, 1)[1]}"
