"""The record of a training run: what went in (data hash, seed, commit, versions), what came out, and the curves."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

RECORD = "run.json"
CURVES = "curves.png"
PACKAGES = ("falx", "torch", "numpy", "scipy", "SimpleITK", "pydicom", "nilearn")


def now() -> str:
    """Return this moment, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def source_commit() -> str:
    """Return the commit of the source tree, with ``+`` when it has changes; empty outside a checkout."""
    found = _git("rev-parse", "--short=12", "HEAD")
    return found + ("+" if found and _git("status", "--porcelain", ".") else "")


def _git(*arguments: str) -> str:
    here = Path(__file__).parent
    done = subprocess.run(["git", *arguments], check=False, cwd=here, capture_output=True, text=True)
    return "" if done.returncode else done.stdout.strip()


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the outcome."""
    installed = {d.name.lower(): d.version for d in importlib.metadata.distributions() if d.name}
    found = {name: installed[name.lower()] for name in PACKAGES if name.lower() in installed}
    return {"python": platform.python_version()} | found


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What ``run.json`` holds, and what a model's metadata keeps of its training.

    ``synthetic`` is true when no patient was trained on. ``data`` describes the training data in words, ``data_sha256``
    pins it; ``history`` holds the figures of each epoch, ``evaluation`` those of the held-out data.
    """

    purpose: str
    synthetic: bool
    data: str
    data_sha256: str
    seed: int
    settings: dict[str, object]
    started: str = field(default_factory=now)
    finished: str = ""
    commit: str = field(default_factory=source_commit)
    versions: dict[str, str] = field(default_factory=package_versions)
    history: list[dict[str, float]] = field(default_factory=list)
    evaluation: dict[str, object] = field(default_factory=dict)

    def summary(self) -> dict[str, object]:
        """The record without its curves, for ``metadata.json``."""
        return {k: v for k, v in asdict(self).items() if k != "history"} | {"epochs": len(self.history)}

    def write(self, folder: Path) -> None:
        """Write ``run.json``, and ``curves.png`` when there are epochs."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).write_text(json.dumps(asdict(self), indent=2, default=str) + "\n", encoding="utf-8")
        if self.history:
            plot_curves(self.history, folder / CURVES, title=f"{self.purpose}, seed {self.seed} - RESEARCH USE ONLY")


def hash_of_files(paths: Iterable[Path]) -> str:
    """SHA-256 over the contents of files, in the order of their names (folders do not count)."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda p: (p.name, str(p))):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def plot_curves(history: Sequence[dict[str, float]], path: Path, *, title: str) -> None:
    """Draw every figure of the history over the epochs: losses on the left, scores on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    names = [name for name in history[-1] if name != "epoch"]
    epochs = [row["epoch"] for row in history]
    for name in names:
        axis = left if "loss" in name else right
        axis.plot(epochs, [row.get(name, float("nan")) for row in history], marker="o", markersize=3, label=name)
    for axis, label in ((left, "loss"), (right, "score")):
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.grid(visible=True, alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)
