"""Findings: tables -> small tables that a reader can check, and what the scorecard judges. No torch.

A module an experiment, named like it: its small tables, the rows of the scorecard that it measures (`ROWS`),
and what its notebook predicted before the runs (`PREDICTIONS`: words -> what measures it, and the rule that
judges). They are found by name.
"""

from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules

from cbd.report import results
from cbd.report.verdicts import SIGN, Facts, Words

MODULES = {module.name: import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)}

ROWS = {
    id: entry if entry.needs is not None else replace(entry, needs=(name,))
    for name, module in MODULES.items()
    for id, entry in getattr(module, "ROWS", {}).items()
}
"""The scorecard's rows: id -> what measures and judges it."""

PREDICTED = Words("held", "failed", "failed", none_is_no=True)


def predictions(scale: str, name: str) -> None:
    """Prints what an experiment's notebook predicted: held or failed, by which rule, with the numbers."""
    here = results.names(scale)
    tables = {table: results.read_table(scale, table) for table in (name, "chain") if table in here}
    for words, (measure, rule) in MODULES[name].PREDICTIONS.items():
        found = measure(tables)
        side = "" if isinstance(rule, Facts) else f", all {SIGN[rule.side]} {rule.bound(rule.side):g}"
        print(f"{rule.verdict(found, PREDICTED)}: {words}")
        print(f"    {rule.what}{side}. {rule.told(found)}")
