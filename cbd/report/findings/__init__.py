"""Findings: tables -> small tables that a reader can check, and what the scorecard judges. No torch.

A module an experiment, named like it: its small tables, and the rows of the scorecard that it measures
(`ROWS`). They are found by name.
"""

from importlib import import_module
from pkgutil import iter_modules

MODULES = {module.name: import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)}

ROWS = {id: entry for module in MODULES.values() for id, entry in getattr(module, "ROWS", {}).items()}
"""The scorecard's rows: id -> what measures and judges it."""
