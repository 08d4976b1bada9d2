"""The one dial: every number that an experiment uses, at every scale, without torch.

The paper (arXiv 2605.07783) is quoted beside a number where it gives one; "ours" marks what it leaves open.
"""

from cbd.errors import require
from cbd.experiments.scales.base import Scale
from cbd.experiments.scales.gpu import gpu
from cbd.experiments.scales.laptop import laptop
from cbd.experiments.scales.paper import paper
from cbd.experiments.scales.smoke import smoke
from cbd.experiments.scales.smollm import smollm

SCALES = {scale.name: scale for scale in (smoke(), laptop(), smollm(), gpu(), paper())}

NOTHING_SHOWN = "smoke"
"""The scale that checks that everything runs: its numbers mean nothing."""


def scale_named(name: str) -> Scale:
    """The scale of that name. Raises `CbdError` with the choices."""
    require(name in SCALES, f"no scale {name!r}; choose one of {', '.join(SCALES)}")
    return SCALES[name]
