"""Who comes first: in the queue of tasks, and in the radiologist's worklist. Pure."""

from __future__ import annotations

from node.study import Priority

AGEING_S = 24 * 3600.0
_PRESENT_FLOOR = 0.5


def urgency(priority: Priority, modality: str) -> int:
    """Return the task's class in the queue, lower first: 0 STAT, 1 CT, 2 the rest; inside a class the oldest first."""
    if priority is Priority.STAT:
        return 0
    return 1 if modality == "CT" else 2


def priority_of(requested: str) -> Priority:
    """Map Requested Procedure Priority (0040,1003) to the two that falx tells apart; HIGH counts as STAT."""
    return Priority.STAT if requested.strip().upper() in {"STAT", "HIGH"} else Priority.ROUTINE


def worklist_score(probability: float | None, present: bool | None, waited_s: float, stat: bool) -> float:
    """Return the place in the worklist, higher first.

    Parameters
    ----------
    probability
        The model's, 0..1; None when there is none (not analysed, undetermined): ranked as an even chance, since silence
        must not push a study down.
    present
        Whether the model calls its finding present.
    waited_s
        Since the last instance. Waiting raises any study past any finding in time: after one day a negative study
        overtakes a fresh positive one, so that no wrong negative starves.
    stat
        Ordered as STAT: before everything that is not.

    Returns
    -------
    float
        0..1 by probability (at least 0.5 when present), plus 1 per day waited, plus 1000 for STAT.
    """
    chance = 0.5 if probability is None else min(max(probability, 0.0), 1.0)
    if present:
        chance = max(chance, _PRESENT_FLOOR)
    return chance + max(waited_s, 0.0) / AGEING_S + (1000.0 if stat else 0.0)
