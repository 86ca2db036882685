"""Errors of the readers in this package; the node turns them into coded reasons."""

from __future__ import annotations


class Unreadable(Exception):
    """The files hold no volume that a model can read: ``code`` for machines, ``text`` for people (no patient data)."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
