"""cbd: an open replication of Chain-based Distillation (arXiv 2605.07783).

    from cbd import SCALES, run, show

    table = run("alpha", SCALES["laptop"])    # the committed table, or a new run
    show("laptop", "alpha")                   # its figure, also saved

The public face: `SCALES`, `run`, `show`, `plan` (what an experiment needs, as text), `realize` (a recipe to
its folder) and `init_checkpoint` (a model of a new size from two others). Each is loaded when it is first
asked for, so that `import cbd` is quick and needs no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "SCALES": "cbd.experiments.scales",
    "run": "cbd.experiments.run",
    "show": "cbd.report.figures",
    "plan": "cbd.experiments.run",
    "init_checkpoint": "cbd.commands.init",
}
__all__ = ["SCALES", "init_checkpoint", "plan", "realize", "run", "show"]


def __getattr__(name: str) -> Any:
    if name == "realize":
        return import_module("cbd.realize")  # the package, which is called like the function in it
    if name not in _PLACES:
        raise AttributeError(f"module 'cbd' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
