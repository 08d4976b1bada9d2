"""The names that experiments write into tables and that findings and figures look for. No torch."""

# methods: where a model's weights come from
CBD, SMALLER, LARGER, RANDOM = "CBD (union)", "smaller anchor, grown", "larger anchor, pruned", "random"
BRIDGED = "CBD (bridged)"
SOURCE = "source"
# ways down to an anchor, in chain
STEPWISE, DIRECT_COMPUTE, DIRECT_TOKENS = "stepwise", "direct, equal compute", "direct, equal tokens"
# ways to a set of models, in paper_map
CHAIN, DIRECT, SCRATCH = "chain (CBD)", "direct distillation", "scratch"
# ways to anchor zero, in bridge
SEQUENCE, ALM, ULD = "sequence-level", "likelihoods (ALM)", "likelihoods (ULD)"
RAW, RAW_COMPUTE = "no bridge, equal tokens", "no bridge, equal compute"
CHAIN_TOKENS = "chain_tokens"  # a metric: training tokens of random weights for the FLOPs of a start


def chance(metric: str) -> str:
    """The metric that holds what guessing gets."""
    return f"{metric} chance"


def minus_random(metric: str, end: str = "") -> str:
    """A metric for a method's gap to random weights, or the `end` ("low", "high") of its interval."""
    return f"{metric} minus random {end}".rstrip()
