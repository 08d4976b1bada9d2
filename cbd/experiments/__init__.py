"""The paper's experiments: one module each, scale and seed -> recipes -> tidy rows."""

from typing import Any

# name -> module; the notebook of the same number shows it. Here, so that the command line needs no pandas.
EXPERIMENTS = {
    "paper_map": "cbd.experiments.paper_map",
    "chain": "cbd.experiments.chain",
    "initialise": "cbd.experiments.initialise",
    "alpha": "cbd.experiments.alpha",
    "convergence": "cbd.experiments.convergence",
    "bridge": "cbd.experiments.bridge",
    "families": "cbd.experiments.families",
    "public_checkpoints": "cbd.experiments.public_checkpoints",
}
NEEDS_HUB = ("public_checkpoints",)  # left out of "all": it is asked for by name


def __getattr__(name: str) -> Any:
    """`run` and `design_of`, loaded when they are first asked for."""
    if name not in ("run", "design_of"):
        raise AttributeError(name)
    from cbd.experiments import core

    return getattr(core, name)


__all__ = ["EXPERIMENTS", "NEEDS_HUB", "design_of", "run"]
