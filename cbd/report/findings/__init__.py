"""Findings: tables -> small tables and sentences that a reader can check, every number from results.

A module an experiment, named like it: its small tables, its sentences (`SENTENCES`: title, function of the
table), and the rows of the scorecard that it judges (`ROWS`). They are found by name. No torch.
"""

from importlib import import_module
from pkgutil import iter_modules

_MODULES = {module.name: import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)}

ROWS = {id: entry for module in _MODULES.values() for id, entry in getattr(module, "ROWS", {}).items()}
"""The scorecard's rows: id -> what measures and judges it."""

SENTENCES = [
    (name, title, sentence)
    for name, module in _MODULES.items()
    for title, sentence in getattr(module, "SENTENCES", ())
]
"""(experiment, title, function of its table) of all sentences."""
