"""The engine on a Ray cluster: the same calls, answered by actors that each hold the warm models.

``models.engine: ray`` in config.yaml. Model folders must lie at the same path on every machine. Ray is optional:
``pip install 'falx[ray]'``.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from inference.result import InferenceResult, ModelId
from inference.volume import Volume
from inference.weights import read_metadata


class RayEngine:
    """Looks like :class:`inference.engine.Engine`; ``replicas`` actors share the requests in turn."""

    def __init__(
        self,
        folders: Mapping[str, Path],
        *,
        device: str = "auto",
        threads: int = 0,
        operating_points: Mapping[str, str] | None = None,
        replicas: int = 1,
        address: str | None = None,
    ) -> None:
        try:
            ray: Any = importlib.import_module("ray")
        except ModuleNotFoundError:
            raise ValueError("engine: ray needs Ray: pip install 'falx[ray]'") from None
        from inference.engine import Engine

        if not ray.is_initialized():
            ray.init(address=address, include_dashboard=False, log_to_driver=False, configure_logging=False)
        self._ray = ray
        self._folders = dict(folders)
        gpus = 1 if device == "cuda" else 0
        actor = ray.remote(num_cpus=max(1, threads), num_gpus=gpus, max_restarts=2, max_task_retries=2)(Engine)
        options = {"device": device, "threads": threads, "operating_points": dict(operating_points or {})}
        self._actors = [actor.remote(self._folders, **options) for _ in range(replicas)]
        self._turn = itertools.cycle(self._actors)

    def model_id(self, purpose: str) -> ModelId:
        """Return which weights answer for a purpose."""
        if purpose not in self._folders:
            raise ValueError(
                f"no model is loaded for {purpose!r}; loaded: {', '.join(sorted(self._folders)) or 'none'}"
            )
        return read_metadata(self._folders[purpose]).model_id

    def warm_up(self) -> None:
        """Wait until every actor has loaded, verified and warmed its models; raise ValueError when one cannot."""
        try:
            self._ray.get([actor.warm_up.remote() for actor in self._actors])
        except self._ray.exceptions.RayActorError as error:
            raise ValueError(f"an inference actor did not start: {error}") from error

    def analyse(self, purpose: str, volume: Volume) -> InferenceResult:
        """Return the model's answer for one volume."""
        return cast(InferenceResult, self._ray.get(next(self._turn).analyse.remote(purpose, volume)))

    def analyse_many(self, requests: Sequence[tuple[str, Volume]]) -> list[InferenceResult]:
        """Answer several requests, in their order, spread over the actors."""
        return list(self._ray.get([next(self._turn).analyse.remote(*request) for request in requests]))

    def close(self) -> None:
        """End the actors; a cluster that others use stays up."""
        for actor in self._actors:
            self._ray.kill(actor)
