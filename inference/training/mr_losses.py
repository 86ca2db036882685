"""What the MR network is held against: study and slice labels, lesion outlines, and the tissues beside them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from inference.abnormality_net import OUTPUTS

MAP_WEIGHT = torch.tensor([1.0] + [0.25] * (len(OUTPUTS) - 1)).view(1, -1, 1, 1)
STUDY_WEIGHT = torch.tensor([3.0] + [1.0] * (len(OUTPUTS) - 1))


def known_bce(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy over the known labels (NaN: unknown), weighted per output."""
    known = ~labels.isnan()
    loss = functional.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    scale = known.float() if weight is None else known.float() * weight.to(logits.device)
    mean: Tensor = (loss * scale).sum() / scale.sum().clamp(min=1.0)
    return mean


def map_loss(maps: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Cross-entropy inside the brain, lesions weighing more since they are rare, and soft Dice of "anything"."""
    weight = MAP_WEIGHT.to(maps.device) * (1.0 + 14.0 * target) * inside
    entropy = functional.binary_cross_entropy_with_logits(maps, target, reduction="none")
    probability, truth = maps[:, 0].sigmoid() * inside[:, 0], target[:, 0]
    overlap = (2 * (probability * truth).sum() + 20.0) / (probability.sum() + truth.sum() + 20.0)
    combined: Tensor = 2.0 * (entropy * weight).sum() / inside.sum().clamp(min=1.0) + 0.5 * (1.0 - overlap)
    return combined


def tissue_loss(logits: Tensor, shares: Tensor, inside: Tensor) -> Tensor:
    """Cross-entropy of the tissue shares inside the brain, lesions weighing more since they are rare."""
    target = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-3)
    weight = (1.0 + 6.0 * shares[:, -1:]) * inside
    entropy = -(target * functional.log_softmax(logits, dim=1)).sum(dim=1, keepdim=True)
    mean: Tensor = (entropy * weight).sum() / weight.sum().clamp(min=1.0)
    return mean
