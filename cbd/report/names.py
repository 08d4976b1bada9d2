"""The methods' names that tables hold and figures show, with their looks. No torch.

The starts are those of `cbd.recipes.starts`; here are the other methods, and metrics named after another one.
"""

from typing import Any

from cbd.recipes import starts
from cbd.recipes.starts import RIVALS, STARTS

# where a model's weights come from
CBD, SMALLER, LARGER, RANDOM, LITERAL = (
    STARTS[key].label for key in ("union", "grown", "cut", "random", "literal")
)
LEARNGENE = RIVALS["learngene"].label
BRIDGED = "CBD (bridged)"
BOOMERANG = "boomerang"
# blocks of the larger anchor chosen by the loss (`recipes.models.Pruned`): it alone, or mixed in
PRUNED, CHOSEN = "larger anchor, blocks by loss", "CBD (blocks by loss)"
# and by other scores: how far the logits move, alone or with the norms corrected; a rival's put back by KL
BY_SCORE = {"kl": "larger anchor, blocks by KL", "logits": "larger anchor, blocks by logits"}
CORRECTED = "larger anchor, blocks by logits, corrected"
BOOMERANG_KL = "boomerang, blocks by KL"
SOURCE = "source"
# ways down to an anchor, in chain
STEPWISE, DIRECT_COMPUTE, DIRECT_TOKENS = "stepwise", "direct, equal compute", "direct, equal tokens"
ALONE = "cross-entropy alone"  # the control: no teacher
# whom an anchor is compared with, in theorem
ONE_STEP, FROM_SOURCE = "its teacher", "the source"
# what a step of the chain minimises, in distillers; cross-entropy alone is above
REVERSE, FORWARD, JSD = "reverse KL", "forward KL", "Jensen-Shannon"
PURE, STATES = "reverse KL without cross-entropy", "reverse KL and hidden states"
ATTENTION = "reverse KL and attention"
SEQKD = "cross-entropy on the teacher's text"
ON_POLICY, MINILLM = "on its own text (GKD)", "MiniLLM"
# chains by their density
ANCHORS = ("1 anchor", "2 anchors", "3 anchors", "4 anchors")
NESTED = "slice of a nested run"
# alphas that are learned, by what has one of its own
FITTED = {
    "model": "CBD (one learned alpha)",
    "block": "CBD (an alpha a block)",
    "tensor": "CBD (an alpha a tensor)",
}
# what an anchor's slices are taken from, and when it is measured, in basis
SORTED, AXES = "important channels", "principal axes"
SLICED, DISTILLED = "sliced", "distilled"
BETWEEN = ("union", "grown", "cut")  # keys of the starts of a size in between
# ways to a set of models, in paper_map
CHAIN, DIRECT, SCRATCH = "chain (CBD)", "direct distillation", "scratch"
FIRST_BLOCKS = "its first blocks"  # in decisions
REACH = "reach"  # a metric: the share of the sizes between two anchors that a method makes exactly
CLONED, STACKED = RIVALS["hypercloning"].label, RIVALS["stacking"].label
# ways to anchor zero, in bridge
SEQUENCE, ALM, ULD = "sequence-level", "likelihoods (ALM)", "likelihoods (ULD)"
RAW, RAW_COMPUTE = "no bridge, equal tokens", "no bridge, equal compute"
AS_IS = "no bridge, no training"  # of a proxy that is a public checkpoint

_OURS, _SECOND, _THIRD, _PLAIN = (
    (starts.BLUE, "o", starts.SOLID),
    (starts.ORANGE, "s", starts.DASHED),
    (starts.GREEN, "^", starts.DASHDOT),
    (starts.GREY, "X", starts.DOTTED),
)
LOOKS: dict[str, tuple[str, str, Any]] = {
    **{s.label: (s.color, s.marker, s.line) for s in (STARTS | RIVALS).values() if s.label != RANDOM},
    CHAIN: _OURS,
    STEPWISE: _OURS,
    SEQUENCE: _OURS,
    ALONE: _PLAIN,
    ONE_STEP: _OURS,
    FROM_SOURCE: _SECOND,
    REVERSE: _OURS,
    FORWARD: _SECOND,
    JSD: (starts.GREEN, "^", starts.DASHDOT),
    PURE: (starts.SKY, "<", starts.DASHED),
    STATES: (starts.RED, "D", starts.LONG),
    ATTENTION: (starts.RED, "d", starts.DOTTED),
    SEQKD: (starts.PINK, "P", starts.FINE),
    ON_POLICY: (starts.BROWN, "v", starts.DASHED),
    MINILLM: ("#7570b3", "h", starts.DOTTED),
    DIRECT_COMPUTE: _SECOND,
    DIRECT: _SECOND,
    ALM: _SECOND,
    DIRECT_TOKENS: _THIRD,
    ULD: (starts.PINK, "P", starts.FINE),
    RAW: _PLAIN,
    **dict(zip(ANCHORS, (_THIRD, _SECOND, _PLAIN, _OURS), strict=True)),
    NESTED: (starts.PINK, "P", starts.LONG),
    FITTED["model"]: (starts.SKY, "<", starts.SOLID),
    FITTED["block"]: (starts.PINK, "P", starts.FINE),
    FITTED["tensor"]: (starts.RED, "D", starts.LONG),
    AXES: _OURS,
    SORTED: _SECOND,
    RAW_COMPUTE: _THIRD,
    AS_IS: (starts.BROWN, "v", starts.DASHED),
    BRIDGED: (starts.ORANGE, "h", starts.DASHDOT),
    f"{BRIDGED}: meta-llama/Meta-Llama-3-8B": (starts.ORANGE, "h", starts.DASHDOT),
    f"{BRIDGED}: Qwen/Qwen3-4B": (starts.PINK, "d", starts.LONG),
    BOOMERANG: (starts.GREY, "h", starts.LONG),
    PRUNED: (starts.GREEN, "v", starts.FINE),
    CHOSEN: (starts.BLUE, "D", starts.DASHED),
    BY_SCORE["kl"]: (starts.GREEN, "<", starts.DASHED),
    BY_SCORE["logits"]: (starts.GREEN, "*", starts.DASHDOT),
    CORRECTED: (starts.GREEN, "p", starts.LONG),
    BOOMERANG_KL: (starts.GREY, "*", starts.DASHED),
    FIRST_BLOCKS: _OURS,
    SOURCE: ("#000000", "*", starts.SOLID),
    RANDOM: _PLAIN,
    SCRATCH: _PLAIN,
}
"""(colour, marker, line style) of each method, in the order in which legends name them."""

CHAIN_TOKENS = "chain_tokens"  # a metric: training tokens of random weights for the FLOPs of a start

CURVE = "validation_loss"  # a metric: a training's curve, where "loss" is that of the test split
AVERAGE = "average"  # of the tasks' main metrics, in points of 100


def anchors_named(count: int) -> str:
    """A chain by its number of anchors, the source not counted."""
    return ANCHORS[count - 1]


def rate_named(times: float) -> str:
    """A learning rate, by how many times the chain's own it is."""
    return f"{times:g} x rate"


SIMILARITY = "similarity at "  # a metric: how alike two models' states are after this share of their blocks


def loss_on(text: str) -> str:
    """The metric that holds the loss on another text than the scale's own."""
    return f"loss on {text}"


def chance(metric: str) -> str:
    """The metric that holds what guessing gets."""
    return f"{metric} chance"


def minus_random(metric: str, end: str = "") -> str:
    """A metric for a method's gap to random weights, or the `end` ("low", "high") of its interval."""
    return f"{metric} minus random {end}".rstrip()
