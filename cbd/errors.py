"""The one exception that a user is meant to read, and how errors and large numbers are said and read."""


class CbdError(ValueError):
    """Bad input: the message is one line that says what is wrong and names the remedy."""


class Diverged(CbdError):
    """A training whose loss is no longer a finite number."""


def require(holds: object, message: str) -> None:
    """Raise `CbdError` with the message unless the condition holds."""
    if not holds:
        raise CbdError(message)


def first_line(error: Exception) -> str:
    """What a library's error says, at its shortest."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def si(number: float, space: str = "") -> str:
    """A count in three digits with k, M, G, T, P or E, `space` between them: 150000 -> "150k"."""
    for power, letter in zip((18, 15, 12, 9, 6, 3), "EPTGMk", strict=True):
        if abs(number) >= 10**power * 0.9995:
            return f"{number / 10**power:.3g}{space}{letter}"
    return f"{number:.3g}"


def count(text: str, option: str, such: str = "60M") -> int:
    """A large number: "57300000", "57.3M", "1.2B", "1e20". Raises `CbdError` for anything else."""
    factor = {"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9}.get(text[-1:].upper())
    try:
        found = round(float(text[:-1]) * factor if factor else float(text))
    except (ValueError, OverflowError):
        found = 0
    require(found >= 1, f"{option} {text!r} is no large number: write {such}")
    return found
