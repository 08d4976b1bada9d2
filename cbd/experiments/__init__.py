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
    "scratch_vs_cbd": "cbd.experiments.scratch_vs_cbd",
    "equal_budget": "cbd.experiments.equal_budget",
}
# the paper's experiments (E1 to E16 of arXiv 2605.07783, numbered by us) -> the one that answers each
PAPER = {
    "E1": "chain",
    "E2": "initialise",
    "E3": "scratch_vs_cbd",
    "E4": "equal_budget",
    "E5": "convergence",
    "E6": "chain",
    "E7": "alpha",
    "E8": "scratch_vs_cbd",
    "E10": "initialise",
    "E12": "convergence",
    "E13": "equal_budget",
    "E15": "bridge",
    "E16": "paper_map",
}
NEEDS_HUB = ("public_checkpoints",)  # left out of "all": it is asked for by name


def __getattr__(name: str) -> Any:
    """`run` and `design_of`, loaded when they are first asked for."""
    if name not in ("run", "design_of"):
        raise AttributeError(name)
    from cbd.experiments import run as core

    return getattr(core, name)


__all__ = ["EXPERIMENTS", "NEEDS_HUB", "PAPER", "design_of", "run"]
