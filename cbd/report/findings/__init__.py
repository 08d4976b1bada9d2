"""Findings: tables -> small tables and sentences that a reader can check, every number from results.

A module an experiment, named like it: its small tables, its sentences (`SENTENCES`: title, function of the
table), the rows of the scorecard that it judges (`ROWS`), and what its notebook predicted before the runs
(`PREDICTIONS`: words -> what measures it, and the rule that judges). They are found by name. No torch.
"""

from importlib import import_module
from pkgutil import iter_modules

from cbd.report import results
from cbd.report.verdicts import SIGN, Facts, Words

_MODULES = {module.name: import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)}

ROWS = {id: entry for module in _MODULES.values() for id, entry in getattr(module, "ROWS", {}).items()}
"""The scorecard's rows: id -> what measures and judges it."""

SENTENCES = [
    (name, title, sentence)
    for name, module in _MODULES.items()
    for title, sentence in getattr(module, "SENTENCES", ())
]
"""(experiment, title, function of its table) of all sentences."""

PREDICTED = Words("held", "failed", "failed", none_is_no=True)


def predictions(scale: str, name: str) -> None:
    """Prints what an experiment's notebook predicted: held or failed, by which rule, with the numbers."""
    here = results.names(scale)
    tables = {table: results.read_table(scale, table) for table in (name, "chain") if table in here}
    for words, (measure, rule) in _MODULES[name].PREDICTIONS.items():
        found = measure(tables)
        side = "" if isinstance(rule, Facts) else f", all {SIGN[rule.side]} {rule.line:g}"
        print(f"{rule.verdict(found, PREDICTED)}: {words}")
        print(f"    {rule.what}{side}. {rule.told(found)}")
