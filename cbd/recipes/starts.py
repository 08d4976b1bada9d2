"""The starts that are compared: every way here to initialise a model of any size, in one table.

Experiments, figures and the command line read it: a new start is one entry, and its operator where it mixes
two anchors. No torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from cbd.recipes.base import Recipe
from cbd.recipes.data import Corpus
from cbd.recipes.models import Factorised, Interpolated, Learngene, Pruned, Random, Rotated, Transferred
from cbd.recipes.operators import OPERATORS, STITCH, UNION, Operator, Trans
from cbd.recipes.specs import ModelSpec

# seaborn's colour-blind palette, by name, so that no figure's library is needed here
BLUE, ORANGE, GREEN, RED, PINK, BROWN = "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161"
SKY, GREY = "#56b4e9", "#555555"
SOLID = "-"
DOTTED, DASHED, LONG, FINE = (0, (1, 1.3)), (0, (4, 1.6)), (0, (8, 2)), (0, (2, 1))
DASHDOT = (0, (5, 1.5, 1, 1.5))

CONTEXT = 128  # tokens of a row of the text that some rivals measure a model on, where it has the positions


@dataclass(frozen=True)
class Start:
    """A way to initialise a model between two anchors.

    label: the method's name in tables and figures. color, marker, line: its look in every figure. operator:
    how two anchors are mixed; None for a start that mixes none, which `alone` then makes.
    """

    key: str
    label: str
    color: str
    marker: Any
    line: Any
    operator: Operator | None = None
    alone: Callable[..., Recipe] | None = None

    def recipe(
        self,
        small: Recipe,
        large: Recipe,
        spec: ModelSpec,
        corpus: Corpus,
        seed: int = 0,
        alpha: float | Literal["distance"] = "distance",
    ) -> Recipe:
        """The initialised model of shape `spec` between two anchors.

        alpha: the smaller anchor's share in a mixture. corpus, seed: tokenizer and draw of random weights.
        """
        if self.operator is not None:
            return Interpolated(small, large, spec, alpha, self.operator)
        return self.alone(small=small, large=large, spec=spec, corpus=corpus, seed=seed)


def _mixed(key: str, color: str, marker: str, line: Any) -> Start:
    return Start(key, f"CBD ({key})", color, marker, line, OPERATORS[key])


def _grown(small: Recipe, spec: ModelSpec, **_: Any) -> Recipe:
    return Transferred(small, spec, UNION.trans)


def _cut(large: Recipe, spec: ModelSpec, **_: Any) -> Recipe:
    return Transferred(large, spec, UNION.trans)


def _random(spec: ModelSpec, corpus: Corpus, seed: int, **_: Any) -> Recipe:
    return Random(spec, corpus, seed)


def _hypercloned(small: Recipe, spec: ModelSpec, **_: Any) -> Recipe:
    """HyperCloning (arXiv 2409.12903); what whole copies leave over is padded, and depth is grown by ours."""
    return Transferred(small, spec, Trans(grow_width="duplicate"))


def _stacked(small: Recipe, spec: ModelSpec, **_: Any) -> Recipe:
    """G_stack (arXiv 2405.15319) in depth; its width is HyperCloning's."""
    return Transferred(small, spec, Trans("stack", "duplicate"))


def _first_blocks(large: Recipe, spec: ModelSpec, **_: Any) -> Recipe:
    """Inheritune (arXiv 2404.08634): the first blocks; its width, which it keeps, is cut by ours."""
    return Transferred(large, spec, Trans(cut_layers="prefix"))


def _subcloned(large: Recipe, spec: ModelSpec, corpus: Corpus, **_: Any) -> Recipe:
    """Weight subcloning (arXiv 2312.09299): the units that are most active on a text, and the outer blocks.

    Ours: by the root mean square, where the paper has the mean magnitude, and the scale of what is left is
    kept in the norms' gains.
    """
    read = Rotated(large, corpus, context=min(CONTEXT, spec.positions), axes=False)
    return Transferred(read, spec, UNION.trans)


def _learngene(large: Recipe, spec: ModelSpec, corpus: Corpus, seed: int, **_: Any) -> Recipe:
    return Learngene(large, spec, corpus, seed)


def _least_disrupted(large: Recipe, spec: ModelSpec, corpus: Corpus, **_: Any) -> Recipe:
    """Blocks by the Logit Disruption Score, the norms behind corrected (`Pruned`); width by ours."""
    how = {"context": min(CONTEXT, spec.positions), "score": "logits", "corrected": True}
    return Transferred(Pruned(large, spec.layers, corpus, **how), spec, UNION.trans)


def _stitched(small: Recipe, large: Recipe, spec: ModelSpec, **_: Any) -> Recipe:
    """Learngene Pool (arXiv 2312.05743): blocks of a small instance below those of a larger one.

    Its learned matrix between the two is what a plain checkpoint has no place for; here both are brought to
    one width by Trans, in the basis that inherited anchors share, and it is the identity. Where they meet is
    ours: as alpha says.
    """
    return Interpolated(small, large, spec, operator=STITCH)


def _factorised(large: Recipe, spec: ModelSpec, **_: Any) -> Recipe:
    """A size-free initialiser in the manner of FINE (arXiv 2409.19289): see `Factorised`."""
    return Transferred(Factorised(large, spec.layers), spec, UNION.trans)


_ALL = (
    _mixed("union", BLUE, "o", SOLID),
    _mixed("literal", RED, "D", LONG),
    _mixed("duplicate", PINK, "P", FINE),
    _mixed("lossy", BROWN, "v", DASHED),
    _mixed("tile", SKY, "<", DASHDOT),
    Start("grown", "smaller anchor, grown", ORANGE, "s", DASHED, alone=_grown),
    Start("cut", "larger anchor, pruned", GREEN, "^", DASHDOT, alone=_cut),
    Start("random", "random", GREY, "X", DOTTED, alone=_random),
)
STARTS = {start.key: start for start in _ALL}
"""Key -> start, in the order in which legends name them."""

RIVALS = {
    start.key: start
    for start in (
        Start("hypercloning", "HyperCloning", "#a6761d", "H", DASHED, alone=_hypercloned),
        Start("stacking", "stacking", "#7570b3", "8", DASHDOT, alone=_stacked),
        Start("inheritune", "Inheritune", "#66a61e", ">", FINE, alone=_first_blocks),
        Start("learngene", "Learngene", "#e7298a", "d", LONG, alone=_learngene),
        Start("subcloning", "weight subcloning", "#1b9e77", "p", DASHED, alone=_subcloned),
        Start("disruption", "logit disruption", "#666666", "*", DASHDOT, alone=_least_disrupted),
        Start("stitching", "Learngene Pool", "#d95f02", "h", LONG, alone=_stitched),
        Start("factorised", "shared factors", "#e6ab02", (4, 1, 0), FINE, alone=_factorised),
    )
}
"""Other papers' ways to initialise a model of any size, with which CBD is compared (`experiments.rivals`)."""

MIXED = "mixed"


def alone() -> list[str]:
    """The starts from one model alone: what `cbd init --start` takes beside `MIXED`."""
    return [key for key, start in STARTS.items() if start.operator is None and key != "random"]
