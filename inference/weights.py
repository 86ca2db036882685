"""A model on disk: a folder with ``model.safetensors`` and ``metadata.json``, held together by a SHA-256.

The metadata is the model's identity card: what it is for, how it was trained, its calibration and its operating
points. Weights are safetensors, never pickle; weights whose hash is not the metadata's are never loaded.
Reading the metadata does not import torch, so that ``falx doctor`` can check every model folder at once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.calibration import Calibration
from inference.result import ModelId

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.safetensors"
METADATA = "metadata.json"
NOTICE = "RESEARCH USE ONLY"


class WrongModel(ValueError):
    """A model folder that must not be used; the message names the folder and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """One threshold on the calibrated probability: present means probability >= threshold.

    ``measured`` says how it was chosen and what it achieved on the validation set (target, prevalence, ppv,
    sensitivity, specificity).
    """

    threshold: float
    measured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What ``metadata.json`` holds.

    Attributes
    ----------
    name, version, purpose
        Purpose is ``ct_haemorrhage``, ``mr_abnormality``, ``slice_level``.
    sha256
        Of ``model.safetensors``; filled in by :func:`save_model`.
    architecture
        Settings the network is rebuilt from; its own class knows their meaning.
    operating_points, default_operating_point
        By name (``alert``, ``triage`` ...).
    calibration
        From the network's logit to a probability.
    training
        Record: seed, data hash, commit, versions, ``synthetic`` (true: trained on synthetic heads alone), evaluation.
    intended_use, notice
        Shown wherever the model speaks.
    """

    name: str
    version: str
    purpose: str
    architecture: Mapping[str, Any]
    operating_points: Mapping[str, OperatingPoint]
    default_operating_point: str
    calibration: Calibration
    training: Mapping[str, Any]
    intended_use: str
    notice: str = NOTICE
    sha256: str = ""

    @property
    def model_id(self) -> ModelId:
        """The identity that goes into every result."""
        return ModelId(name=self.name, version=self.version, weights_sha256=self.sha256)

    def operating_point(self, name: str | None = None) -> tuple[str, OperatingPoint]:
        """Return name and values of an operating point, the default one for None; raise WrongModel when unknown."""
        chosen = name or self.default_operating_point
        if chosen not in self.operating_points:
            known = ", ".join(sorted(self.operating_points))
            raise WrongModel(f"model {self.name} has no operating point {chosen!r}; choose one of: {known}")
        return chosen, self.operating_points[chosen]


def shipped(purpose: str) -> Path:
    """Folder of the model that falx ships for a purpose (it need not exist)."""
    return Path(__file__).parent / "models" / purpose


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_metadata(folder: Path) -> Metadata:
    """Read and check ``metadata.json`` without touching the weights.

    Raises
    ------
    WrongModel
        When the file is absent, is no JSON, or lacks a field.
    """
    path = folder / METADATA
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        points = {k: OperatingPoint(**v) for k, v in document.pop("operating_points").items()}
        calibration = Calibration(**document.pop("calibration"))
        metadata = Metadata(operating_points=points, calibration=calibration, **document)
    except FileNotFoundError:
        raise WrongModel(
            f"no model in {folder}: {METADATA} is missing; train one or set models.<name>.folder"
        ) from None
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise WrongModel(f"{path} is not a falx model description: {error}") from error
    metadata.operating_point()
    return metadata


def verify(folder: Path) -> Metadata:
    """Check that a folder's weights are the ones its metadata names.

    Raises
    ------
    WrongModel
        When a file is missing or the hash differs.
    """
    metadata = read_metadata(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise WrongModel(f"no weights in {folder}: {WEIGHTS} is missing; copy the model folder again")
    found = sha256_of(path)
    if found != metadata.sha256:
        raise WrongModel(
            f"{path} has SHA-256 {found[:12]}..., {METADATA} says {metadata.sha256[:12]}...: "
            "the weights were changed or damaged; copy the model folder again"
        )
    return metadata


def load_weights(folder: Path) -> tuple[Metadata, dict[str, torch.Tensor]]:
    """Verify a model folder and return its metadata and its tensors by name, on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    metadata = verify(folder)
    try:
        return metadata, load((folder / WEIGHTS).read_bytes())
    except SafetensorError as error:
        raise WrongModel(f"{folder / WEIGHTS} is not a safetensors file: {error}") from error


def save_model(folder: Path, tensors: Mapping[str, torch.Tensor], metadata: Metadata) -> Metadata:
    """Write a model folder (weights first, metadata with their hash last, each by rename); return the metadata."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    document = asdict(metadata) | {"sha256": hashlib.sha256(data).hexdigest()}
    _replace(folder / WEIGHTS, data)
    _replace(folder / METADATA, (json.dumps(document, indent=2, sort_keys=True) + "\n").encode())
    return read_metadata(folder)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
