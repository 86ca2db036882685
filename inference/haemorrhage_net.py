"""The network for haemorrhage on head CT: a slice encoder, and an attention BiLSTM over slices (Wu et al., 2024).

The encoder sees one slice with its neighbours; it gives a map of blood at half resolution, a logit for any
haemorrhage and for each kind, and a feature vector. The study network weighs the slices: padding never enters its
softmax (the public code this follows lets zero-padded slices take part).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.labels import HAEMORRHAGE_KINDS
from inference.layers import block, with_mirrored

OUTPUTS = 1 + len(HAEMORRHAGE_KINDS)  # any haemorrhage, then the kinds
CHANNELS = 6
WINDOWS_HU = {"brain": (0.0, 80.0), "subdural": (-20.0, 180.0), "bone": (100.0, 1100.0)}


def slice_channels(hu: Tensor, mask: Tensor, previous_hu: Tensor, next_hu: Tensor) -> Tensor:
    """Stack a slice's input ``[n, 6, y, x]``: brain window of it and its neighbours, subdural, bone, mask.

    Parameters
    ----------
    hu, previous_hu, next_hu
        ``[n, y, x]`` in HU, shifted so that the median brain is 33.
    mask
        ``[n, y, x]`` 0..1. Everything farther than 4 pixels outside the mask is set to zero, so that face, scalp and
        head holder cannot speak.
    """

    def window(x: Tensor, name: str) -> Tensor:
        low, high = WINDOWS_HU[name]
        return ((x - low) / (high - low)).clamp(0, 1)

    near = functional.max_pool2d(mask[:, None], 9, 1, 4)[:, 0]
    stacked = torch.stack(
        [
            window(hu, "brain"),
            window(previous_hu, "brain"),
            window(next_hu, "brain"),
            window(hu, "subdural"),
            window(hu, "bone"),
            mask,
        ],
        dim=1,
    )
    return stacked * near[:, None]


class SliceEncoder(nn.Module):
    """A small U-shaped network. Input ``[n, 6, y, x]``; see :meth:`forward` for what it gives.

    ``width``: channels of the finest level; ``features``: of a slice's vector; ``mirror``: compare the two sides.
    """

    def __init__(self, width: int = 16, features: int = 48, *, mirror: bool = False) -> None:
        super().__init__()
        w = width
        self.mirror1, self.mirror2 = (nn.Conv2d(2 * n, n, 1) if mirror else None for n in (2 * w, 4 * w))
        self.stem = block(CHANNELS * 4, w)
        self.fine = block(w, w)
        self.down1 = nn.Sequential(block(w, 2 * w, 2), block(2 * w, 2 * w))
        self.down2 = nn.Sequential(block(2 * w, 4 * w, 2), block(4 * w, 4 * w))
        self.down3 = nn.Sequential(block(4 * w, 6 * w, 2), block(6 * w, 6 * w))
        self.up2 = nn.Conv2d(6 * w, 4 * w, 1)
        self.mix2 = block(4 * w, 2 * w)
        self.mix1 = block(2 * w, w)
        self.mix0 = block(w, w)
        self.blood = nn.Conv2d(w, OUTPUTS, 1)
        self.reduce = nn.Sequential(nn.Linear(6 * w + 2 * w + 3 * OUTPUTS, features), nn.ReLU(inplace=True))
        self.slice = nn.Linear(features + 3 * OUTPUTS, OUTPUTS)
        self.feature_size = features + OUTPUTS

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return blood logits ``[n, 6, y/2, x/2]``, slice logits ``[n, 6]`` and features ``[n, feature_size]``."""
        inside = functional.max_pool2d(x[:, -1:], 2)
        a = self.fine(self.stem(functional.pixel_unshuffle(x, 2)))
        b = with_mirrored(self.down1(a), self.mirror1)
        c = with_mirrored(self.down2(b), self.mirror2)
        d = self.down3(c)
        c = self.mix2(c + functional.interpolate(self.up2(d), size=c.shape[2:], mode="nearest"))
        b = self.mix1(b + functional.interpolate(c, size=b.shape[2:], mode="nearest"))
        a = self.mix0(a + functional.interpolate(b, size=a.shape[2:], mode="nearest"))
        blood = self.blood(a)
        pooled = _pool_logits(blood.float(), inside)
        features = self.reduce(torch.cat([d.mean((2, 3)), c.amax((2, 3)), pooled], dim=1))
        logits = self.slice(torch.cat([features, pooled], dim=1))
        return blood, logits, torch.cat([features, logits], dim=1)


def _pool_logits(blood: Tensor, inside: Tensor) -> Tensor:
    """Per map: the peak, the mean of the 30 highest pixels, and a soft area, all inside the mask; ``[n, 18]``."""
    gated = torch.where(inside > 0.5, blood, torch.full_like(blood, -12.0)).flatten(2)
    top = gated.topk(30, dim=2).values
    area = torch.log1p(torch.sigmoid(gated).sum(dim=2))
    return torch.cat([top[:, :, :3].mean(2).clamp(-8, 8) / 4, top.mean(2).clamp(-8, 8) / 4, area / 2], dim=1)


class StudyNetwork(nn.Module):
    """Attention-based bidirectional LSTM over the slices of a study.

    It starts as a soft maximum of the encoder's own slice logits and learns what to correct, so that few studies
    suffice and the slices' evidence is what the study's score is made of.
    """

    def __init__(self, feature_size: int, hidden: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.normalise = nn.LayerNorm(feature_size)
        self.lstm = nn.LSTM(feature_size, hidden, batch_first=True, bidirectional=True)
        self.score = nn.Sequential(nn.Linear(2 * hidden + OUTPUTS, 24), nn.Tanh(), nn.Linear(24, 1))
        self.study = nn.Linear(2 * hidden + OUTPUTS, OUTPUTS)
        self.trust = nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.study.weight)
        nn.init.zeros_(self.study.bias)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh slices.

        Parameters
        ----------
        features
            ``[studies, slices, feature_size]``, padded at the end.
        lengths
            ``[studies]`` number of true slices (on the CPU).

        Returns
        -------
        tuple
            Study logits ``[studies, 6]``, and attention ``[studies, slices]`` that sums to 1 over the true slices.
        """
        x = self.dropout(self.normalise(features))
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])
        slice_logits = features[:, :, -OUTPUTS:]
        states = torch.cat([states, slice_logits], dim=2)
        energy = self.score(states).squeeze(2) + self.trust * slice_logits[:, :, 0]
        padding = torch.arange(x.shape[1], device=x.device)[None] >= lengths.to(x.device)[:, None]
        attention = energy.masked_fill(padding, float("-inf")).softmax(dim=1)
        context = (attention[:, :, None] * states).sum(dim=1)
        pooled = (attention[:, :, None] * slice_logits).sum(dim=1)
        return cast(Tensor, self.study(self.dropout(context))) + pooled, attention


def fast_layout(module: nn.Module, device: torch.device) -> None:
    """Move a module to a device, its weights laid out channels-last (a third faster on CPUs)."""
    module.to(device)
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


class HaemorrhageNetwork(nn.Module):
    """Both parts together, as they are stored."""

    def __init__(self, width: int = 16, features: int = 48, hidden: int = 32, *, mirror: bool = False) -> None:
        super().__init__()
        self.encoder = SliceEncoder(width, features, mirror=mirror)
        self.study = StudyNetwork(self.encoder.feature_size, hidden)


def network_of(architecture: Mapping[str, Any]) -> HaemorrhageNetwork:
    """Build the network that a model's metadata describes; before version 1.4.0 none compared the two sides."""
    width, features, hidden = (int(architecture[name]) for name in ("width", "features", "hidden"))
    return HaemorrhageNetwork(width, features, hidden, mirror=bool(architecture.get("mirror", False)))
