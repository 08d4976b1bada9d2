"""Numbers as people read them. No torch."""


def si(number: float) -> str:
    """A count in three digits with k, M, G or T: 150000 -> "150k"."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size * 0.9995:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"
