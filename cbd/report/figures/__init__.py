"""Figures: tables and intervals -> pictures. No torch, no training, and nothing that pops up by itself.

A module an experiment, named like it, and in it `FIGURES`: figure name -> function from the experiment's
table alone to a `Figure`. They are found by name. Intervals come from `cbd.report.stats`; `drawing` and
`tasks` hold what figures share.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from matplotlib.figure import Figure

from cbd.errors import require
from cbd.files import write_bytes
from cbd.report import results
from cbd.report.figures.drawing import file_bytes

_FOUND = {
    name: (module.name, draw)
    for module in iter_modules(__path__)
    for name, draw in getattr(import_module(f"{__name__}.{module.name}"), "FIGURES", {}).items()
}

FIGURES: dict[str, Callable[..., Figure]] = {name: draw for name, (_, draw) in _FOUND.items()}
"""Figure name -> function of (table, scale=None, date=None)."""

TABLES = {name: experiment for name, (experiment, _) in _FOUND.items()}
"""Figure name -> the experiment whose table it reads."""


def draw(scale: str, name: str) -> Figure:
    """A figure from the table and records on disk; the caption's date is that of the newest finished run.

    Raises `CbdError` for an unknown name, or as `results.read_table` does.
    """
    require(name in FIGURES, f"there is no figure {name!r}; choose one of {', '.join(FIGURES)}")
    experiment = TABLES[name]
    table = results.read_table(scale, experiment)
    return FIGURES[name](table, scale=scale, date=results.newest(scale, experiment))


def save(figure: Figure, scale: str, name: str) -> list[Path]:
    """Writes figures/<scale>/<name>.png (150 dpi) and .svg, equal bytes for equal figures; returns both."""
    folder = results.figures_folder(scale)
    return [write_bytes(folder / f"{name}.{kind}", file_bytes(figure, kind, name)) for kind in ("png", "svg")]


def show(scale: str, name: str) -> Figure:
    """Draws a figure, saves it as `save` does and returns it, for the last line of a notebook's cell."""
    figure = draw(scale, name)
    save(figure, scale, name)
    return figure


def draw_all(scale: str) -> list[Path]:
    """Draws and saves every figure whose table exists at this scale; returns the paths written."""
    present = [name for name, experiment in TABLES.items() if experiment in results.names(scale)]
    return [path for name in present for path in save(draw(scale, name), scale, name)]
