"""The errors of falx, one family. Each kind says what becomes of the work it stopped.

A message names the field, file or UID concerned and the remedy, and never holds patient data.
"""

from __future__ import annotations


class FalxError(Exception):
    """Root of all errors that falx raises on purpose."""

    exit_code = 1


class Misconfigured(FalxError):
    """The configuration cannot work: do not start."""

    exit_code = 2


class Rejected(FalxError):
    """The input is not acceptable and never will be: record it, do not retry."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Corrupt(FalxError):
    """Bytes that cannot be understood: keep them in quarantine."""


class Transient(FalxError):
    """Something outside failed for now: try again later."""
