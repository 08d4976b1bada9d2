"""The one exception that a user is meant to read."""


class CbdError(ValueError):
    """Bad input: the message is one line that says what is wrong and names the remedy."""


def si(number: float) -> str:
    """A count in three digits with k, M, G or T: 150000 -> "150k"."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size * 0.9995:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"
