"""Which model folder serves a purpose, and where the deployed ones live."""

from __future__ import annotations

from pathlib import Path

from inference.weights import shipped
from node.config import Settings


def model_folder(settings: Settings, purpose: str) -> Path:
    """Which model folder serves a purpose: the configured one, else the deployed one, else the shipped one."""
    configured = settings.models.by_purpose[purpose].folder
    return configured if configured is not None else current_folder(settings.storage.folder, purpose)


def model_home(storage: Path, purpose: str) -> Path:
    """Where the deployed models of a purpose live."""
    return storage / "models" / purpose


def current_folder(storage: Path, purpose: str) -> Path:
    """The model that serves where none is configured: the deployed one, else the shipped one."""
    deployed = model_home(storage, purpose) / "current"
    return deployed if deployed.exists() else shipped(purpose)
