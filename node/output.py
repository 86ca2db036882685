"""What commands print: JSON to a file or standard output, progress to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

STDOUT = "-"


def write_json(document: Any, target: str) -> None:
    """Write JSON to a file, or to standard output for ``-``."""
    text = json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n"
    if target == STDOUT:
        sys.stdout.write(text)
    else:
        Path(target).write_text(text, encoding="utf-8")


@contextmanager
def json_array(target: str) -> Iterator[Callable[[Any], None]]:
    """Write a JSON array item by item, in bounded memory: give the function that appends one.

    A file gets its name when the array is complete; before that it is ``<name>.part``.
    """
    unfinished = Path(f"{target}.part")
    stream = sys.stdout if target == STDOUT else unfinished.open("w", encoding="utf-8")
    try:
        separator = "[\n"

        def append(item: Any) -> None:
            nonlocal separator
            stream.write(separator + json.dumps(item, ensure_ascii=False, default=str))
            separator = ",\n"

        yield append
        stream.write("[]\n" if separator == "[\n" else "\n]\n")
    finally:
        if target != STDOUT:
            stream.close()
    if target != STDOUT:
        unfinished.rename(target)


def console(json_target: str = "") -> Console:
    """Where people read: standard output, or standard error when JSON goes to standard output."""
    wide = None if sys.stdout.isatty() else 160  # a log or a pipe has no width of its own
    return Console(stderr=json_target == STDOUT, width=wide)


def progress() -> Progress:
    """A progress bar on standard error, shown only on a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
