"""The paper's experiments: one module each, scale and seed -> recipes -> tidy rows.

Every module here is an experiment, but for the `HELPERS` that they share. Nothing is imported to know their
names, so that the command line needs neither pandas nor torch.
"""

from pkgutil import iter_modules

from cbd.report.claims import claims

HELPERS = ("earlier", "run", "starts", "tasks")
EXPERIMENTS = tuple(
    module.name for module in iter_modules(__path__) if not module.ispkg and module.name not in HELPERS
)
"""Names of all experiments, each that of its module."""

PAPER = {claim.id: claim.experiment for claim in claims() if claim.experiment and not claim.is_question}
"""The paper's experiments (E1 to E16 of arXiv 2605.07783, numbered by us) -> the one that answers each."""

__all__ = ["EXPERIMENTS", "PAPER"]
