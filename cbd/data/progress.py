"""How far a loop is: a bar in a terminal or a notebook, now and then a plain line in a log."""

import os
import sys
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, redirect_stderr
from io import StringIO
from typing import Any, TextIO

from tqdm.std import tqdm as plain_tqdm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a notebook without ipywidgets gets the terminal's bar, as it should
    from tqdm.auto import tqdm

EVERY = 10  # seconds between two lines of a log

line: int | None = None
"""The line of the terminal on which this process draws, where several share one; set by a worker."""


def lively(stream: TextIO | None = None) -> bool:
    """Whether what is written there can be drawn over: it is a terminal or a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return (stream or sys.stderr).isatty() or (shell is not None and "IPKernelApp" in shell.config)


def quiet() -> AbstractContextManager:
    """Around a library that draws bars of its own: in a log they are left out."""
    return nullcontext() if lively() else redirect_stderr(StringIO())


def silent() -> bool:
    """Whether this is one of the processes of a launch that leave the showing to the first."""
    return os.environ.get("RANK", "0") != "0"


def bar(items: Iterable | None = None, title: str = "", **options: Any) -> plain_tqdm:
    """`items` with a bar that vanishes at the end, or, without them, a bar to `update`.

    options: tqdm's; `file` is standard error where it is not given.
    """
    kind = tqdm if lively(options.get("file")) else Lines
    defaults = {"leave": False, "delay": 1, "dynamic_ncols": True, "position": line, "disable": silent()}
    return kind(items, title, **defaults | options)


class Lines(plain_tqdm):
    """tqdm for a log: a line every ten seconds, none for what takes less, nothing ever drawn over."""

    def __init__(self, *args: Any, **options: Any):
        pace = {"mininterval": EVERY, "delay": EVERY, "miniters": 1, "dynamic_ncols": False, "position": None}
        super().__init__(*args, **options | pace)
        known = "{desc}: {n_fmt} of {total_fmt}{unit}, {remaining} left{postfix}"
        self.bar_format = known if self.total else "{desc}: {n_fmt}{unit}{postfix}"

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        self.fp.write(f"{self}\n")
        self.fp.flush()

    def clear(self, nolock: bool = False) -> None:
        """Nothing: what a log says stays."""

    def close(self) -> None:
        if not self.disable:
            self.disable = True
            self._decr_instances(self)
