"""The one exception that a user is meant to read."""


class CbdError(ValueError):
    """Bad input: the message is one line that says what is wrong and names the remedy."""
