"""Layers that the slice networks for CT and MR share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution with batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def with_mirrored(features: Tensor, compare: nn.Module | None) -> Tensor:
    """Features beside those of the other side of the head (the grid lies over its middle), where they are compared."""
    return features if compare is None else features + compare(torch.cat([features, features.flip(3)], dim=1))
