"""Tiny report models and engines that hold them: ``pytest_plugins = ("fixtures_reports",)``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from inference.calibration import Calibration
from inference.labels import REPORT_LABELS
from inference.report_scoring import LabelPoint
from inference.weights import Metadata, OperatingPoint, save_model
from node.archive.engines import LocalEngine


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Folders of tiny report models with random weights; each seed gives another model."""
    made: dict[int, Path] = {}

    def folder(seed: int) -> Path:
        if seed not in made:
            made[seed] = tmp_path_factory.mktemp(f"tiny-report-model-{seed}")
            _save_tiny_model(made[seed], seed)
        return made[seed]

    return folder


def _save_tiny_model(folder: Path, seed: int) -> None:
    import torch

    from inference.report_net import ReportNet, ReportNetConfig

    torch.manual_seed(seed)
    sizes = ReportNetConfig(word_buckets=64, char_buckets=64, gram_buckets=64, word_size=8, width=8, layers=1, heads=2)
    tensors = {f"0.{name}": tensor for name, tensor in ReportNet(sizes).state_dict().items()}
    point = asdict(LabelPoint(low=0.5, high=0.5))
    architecture = {
        "kind": "compact",
        "net": sizes.as_dict(),
        "members": 1,
        "points": dict.fromkeys(REPORT_LABELS, point),
    }
    metadata = Metadata(
        name="tiny_reports",
        version=str(seed),
        purpose="report_labels",
        architecture=architecture,
        operating_points={"default": OperatingPoint(threshold=0.5)},
        default_operating_point="default",
        calibration=Calibration(),
        training={"synthetic": True},
        intended_use="tests",
    )
    save_model(folder, tensors, metadata)


@pytest.fixture(scope="session")
def label_engine(tiny_model: Callable[[int], Path]) -> Iterator[LocalEngine]:
    """Two worker processes with a tiny model."""
    engine = LocalEngine(tiny_model(1), 2)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def other_engine(tiny_model: Callable[[int], Path]) -> Iterator[LocalEngine]:
    """A worker process with another tiny model."""
    engine = LocalEngine(tiny_model(2), 1)
    yield engine
    engine.close()
