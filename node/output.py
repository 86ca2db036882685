"""What commands print: JSON to a file or standard output, progress to standard error."""

from __future__ import annotations

import json
import sys
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
