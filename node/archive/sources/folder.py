"""Archives that are folders of files: which files there are, and what becomes of one that cannot be read."""

from __future__ import annotations

import gzip
import io
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, TextIO

from node.config import ArchiveSettings
from node.errors import Misconfigured
from node.store.labels_values import Flagged, Part, Report

_ESCAPED = re.compile(r"\\u(dc[89a-f][0-9a-f])")


class FolderSource(ABC):
    """Each file is a part; the position in it is the number of records read. Subclasses read one file."""

    suffixes: ClassVar[tuple[str, ...]]
    unreadable: ClassVar[tuple[type[Exception], ...]] = (OSError, EOFError, UnicodeError)

    def __init__(self, archive: ArchiveSettings, location: Path | None = None) -> None:
        self.archive = archive
        self.location = location or Path(archive.location)

    def check(self) -> None:
        """Raise Misconfigured when the folder is missing."""
        if not self.location.exists():
            raise Misconfigured(f"archives.{self.archive.name}.location: {self.location} does not exist")

    def parts(self) -> Iterator[Part]:
        """List the files in the order of their names."""
        for path in self.files():
            try:
                state = path.stat()
            except FileNotFoundError:
                continue  # taken away while listing
            yield Part(key=self.key(path), fingerprint=f"{state.st_size}:{state.st_mtime_ns}")

    def files(self) -> Iterator[Path]:
        """All files of the kind, folder by folder; names that begin with a point are not finished yet."""
        if self.location.is_file():
            yield self.location
            return
        for folder, names, files in os.walk(self.location):
            names.sort()
            for name in sorted(files):
                if not name.startswith(".") and name.lower().endswith(self.suffixes):
                    yield Path(folder) / name

    def key(self, path: Path) -> str:
        """The name of a file in messages and in the label store; bytes of it that are no UTF-8 as ``\\udcff``."""
        name = path.name if path == self.location else path.relative_to(self.location).as_posix()
        return name.encode("utf-8", "backslashreplace").decode("utf-8")

    def path(self, key: str) -> Path:
        """The file of a key."""
        if self.location.is_file():
            return self.location
        path = self.location / key
        return path if path.exists() else self.location / _ESCAPED.sub(lambda m: chr(int(m.group(1), 16)), key)

    def read(self, part: Part, position: str | None) -> Iterator[tuple[str, Report | Flagged]]:
        """Read a file's records after ``position``; what stops the reading comes as a Flagged that ends the part."""
        path = self.path(part.key)
        done = int(position or 0)
        number = 0
        try:
            for number, record in enumerate(self.records(path, part.key), start=1):
                if number > done:
                    yield str(number), record
        except self.unreadable as error:
            yield str(max(number, done) + 1), self.broken(part.key, number, error)

    def broken(self, key: str, number: int, error: Exception) -> Flagged:
        """The flag of a file that cannot be read (on)."""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return Flagged(
            source_position=key,
            code="unreadable_file",
            text=f"cannot be read after record {number}: {reason}; it is tried again at the next run",
            ends_part=True,
        )

    @abstractmethod
    def records(self, path: Path, key: str) -> Iterator[Report | Flagged]:
        """Read one file from its beginning."""


def open_text(path: Path, encoding: str = "") -> TextIO:
    """Open a text file, gzip too, so that no byte is lost: UTF-8 (or 16 by its mark), other bytes as surrogates."""
    raw: Any = gzip.GzipFile(path, "rb") if path.suffix == ".gz" else path.open("rb")
    stream = io.BufferedReader(raw)
    mark = stream.peek(4)[:4]
    if not encoding:
        encoding = "utf-16" if mark[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape", newline="")
