"""Models that a site has deployed: versions side by side, ``current`` and ``previous`` as links, a locked test set.

``<storage>/models/<purpose>/versions/<12 digits>/`` holds a model, named by the hash of its metadata.json, which pins
weights and calibration; ``current`` points at the one workers load (they fall back to the shipped model when there is
none), ``previous`` at the one before.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from inference.training.evaluation import auc, delta_auc
from inference.weights import METADATA, WEIGHTS, Metadata, WrongModel, sha256_of, verify
from node.config import Settings
from node.errors import Misconfigured, Rejected
from node.local_studies import PURPOSES, find_studies
from node.model_evaluation import Run, load_one, run_model
from node.model_folders import current_folder, model_home

LOCK = "test_set.json"
CURRENT, PREVIOUS, VERSIONS = "current", "previous", "versions"
TOLERANCE = 0.005  # AUC; below this two models are as good as each other on any test set a site has


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSet:
    """The site's locked test set. ``data_sha256`` pins files and labels; empty until first evaluated."""

    studies: str
    labels: tuple[str, ...]
    data_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the comparison said: the AUC of the candidate less the current model's, with its paired interval."""

    accepted: bool
    candidate_auc: float
    current_auc: float
    delta_auc: float
    ci: tuple[float, float]
    n: int
    why: str


def checked(folder: Path) -> Metadata:
    """Verify a model folder; raise Misconfigured when it must not be used."""
    try:
        return verify(folder)
    except WrongModel as error:
        raise Misconfigured(str(error)) from error


def read_lock(home: Path) -> TestSet | None:
    """Return the locked test set, None when there is none yet."""
    path = home / LOCK
    if not path.exists():
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    return TestSet(studies=document["studies"], labels=tuple(document["labels"]), data_sha256=document["data_sha256"])


def lock(home: Path, test_set: TestSet) -> None:
    """Write down which studies and labels decide about deployments from now on."""
    home.mkdir(parents=True, exist_ok=True)
    (home / LOCK).write_text(json.dumps(asdict(test_set), indent=2) + "\n", encoding="utf-8")


def compare(candidate: Run, current: Run) -> Verdict:
    """Judge a candidate against the current model on the same cases: no worse by more than 0.005 AUC.

    Studies that only one of the two answers are not compared; a candidate that declines more of them is refused.
    """

    def own(run: Run) -> float:
        answered = [(c.label, c.probability) for c in run.cases if c.probability is not None]
        return auc([label for label, _ in answered], [p for _, p in answered])

    found = delta_auc(candidate.cases, current.cases)
    delta, ci, n = float(str(found["delta_auc"])), found["ci"], int(str(found["n"]))
    declined, declined_now = sum(candidate.declined.values()), sum(current.declined.values())
    silent = declined_now == len(current.cases)
    accepted = declined <= declined_now and (delta >= -TOLERANCE or (silent and declined < declined_now))
    why = "no worse than the current model on the locked test set"
    if declined > declined_now:
        why = f"declines {declined} studies, the current model {declined_now}"
    elif silent and accepted:
        why = "the current model answers for none of the test studies"
    elif not accepted:
        why = f"AUC is {-delta:.3f} lower than the current model's"
    low, high = ci if isinstance(ci, tuple) else (float("nan"), float("nan"))
    return Verdict(
        accepted=accepted,
        candidate_auc=own(candidate),
        current_auc=own(current),
        delta_auc=delta,
        ci=(low, high),
        n=n,
        why=why,
    )


def install(home: Path, folder: Path) -> Path:
    """Copy a verified model beside the others and let ``current`` point at it; the old one becomes ``previous``."""
    checked(folder)
    target = home / VERSIONS / sha256_of(folder / METADATA)[:12]
    if not target.exists():
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name in (WEIGHTS, METADATA):
            shutil.copyfile(folder / name, partial / name)
        partial.rename(target)
    checked(target)
    if (home / CURRENT).is_symlink():
        if os.readlink(home / CURRENT) == str(target.relative_to(home)):
            return target
        _point(home / PREVIOUS, os.readlink(home / CURRENT))
    _point(home / CURRENT, str(target.relative_to(home)))
    return target


def which_deployed(storage: Path, purpose: str) -> str:
    """Return ``purpose``, or the only purpose with a deployed model when it is empty.

    Raises
    ------
    Rejected
        When none is deployed, or several are and none is named.
    """
    if purpose:
        return purpose
    deployed = sorted(p for p, _ in PURPOSES.values() if (model_home(storage, p) / CURRENT).is_symlink())
    if len(deployed) == 1:
        return deployed[0]
    if not deployed:
        raise Rejected("nothing_deployed", f"{storage / 'models'} holds no deployed model; the shipped ones serve")
    raise Rejected("name_the_purpose", f"several models are deployed; name one of: {', '.join(deployed)}")


def roll_back(storage: Path, purpose: str) -> Path:
    """Let the model before serve again (the shipped one, when the current one is the first); return its folder.

    Raises
    ------
    Rejected
        When nothing is deployed.
    """
    home = model_home(storage, purpose)
    if not (home / CURRENT).is_symlink():
        raise Rejected("nothing_deployed", f"{home} holds no deployed model; the shipped one serves")
    if (home / PREVIOUS).is_symlink():
        old, new = os.readlink(home / CURRENT), os.readlink(home / PREVIOUS)
        _point(home / CURRENT, new)
        _point(home / PREVIOUS, old)
    else:
        (home / CURRENT).unlink()
    return current_folder(storage, purpose)


def _point(link: Path, target: str) -> None:
    """Make or replace a symbolic link in one step."""
    temporary = link.with_name(link.name + ".new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def deploy_model(settings: Settings, folder: Path, studies: Path | None, labels: Sequence[Path]) -> dict[str, object]:
    """Hold a candidate against the current model on the locked test set; install it when it is no worse."""
    metadata = checked(folder)
    home = model_home(settings.storage.folder, metadata.purpose)
    modality = next(m for m, (purpose, _) in PURPOSES.items() if purpose == metadata.purpose)
    locked = read_lock(home)
    if studies is not None and labels:
        wanted = TestSet(studies=str(studies.resolve()), labels=tuple(str(p.resolve()) for p in labels))
        if locked is not None and (locked.studies, locked.labels) != (wanted.studies, wanted.labels):
            raise Rejected("test_set_locked", f"{home / LOCK} locks another test set; remove that file to begin anew")
        locked = locked or wanted
    if locked is None:
        raise Misconfigured("no test set is locked yet: give --studies and --labels at the first deployment")
    local = find_studies(Path(locked.studies), [Path(p) for p in locked.labels], modality, settings.models)
    local.need(2)
    candidate, current = (
        run_model(local, modality, load_one(settings, metadata.purpose, chosen, ""), baselines=False)
        for chosen in (folder, current_folder(settings.storage.folder, metadata.purpose))
    )
    if locked.data_sha256 and locked.data_sha256 != current.data_sha256:
        raise Rejected("test_set_changed", f"the files or labels of the test set locked in {home / LOCK} have changed")
    lock(home, replace(locked, data_sha256=current.data_sha256))
    verdict = compare(candidate, current)
    if verdict.accepted:
        install(home, folder)
    return asdict(verdict) | {
        "purpose": metadata.purpose,
        "model_sha256": metadata.sha256,
        "replaced_sha256": current.model_sha256,
        "data_sha256": current.data_sha256,
        "note": "RESEARCH USE ONLY",
    }
