"""The network for abnormality on T2 head MRI: a slice encoder that looks at neighbours, and attention over slices.

Every slice gets a logit and a weight for each output, and the study's logit is the weighted sum of the slices' logits
(additive multiple-instance learning: Javed et al., NeurIPS 2022). So the evidence shown for a slice is the evidence
used, not an afterthought.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.labels import PUBLISHED_LABELS
from inference.layers import block, with_mirrored

OUTPUTS = PUBLISHED_LABELS  # abnormal first, then the seven categories
CHANNELS = 4  # previous, own, next slice; mask
MAP_STRIDE = 2
TISSUES = 5  # white matter, grey matter, fluid, everything else, lesion: learned beside, where they are known


def neighbours(lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Index of the slice below and above each slice when studies are laid end to end; at an end the slice itself."""
    before, after, start = [], [], 0
    for length in lengths:
        own = torch.arange(start, start + length)
        before.append((own - 1).clamp(min=start))
        after.append((own + 1).clamp(max=start + length - 1))
        start += length
    return torch.cat(before), torch.cat(after)


def slice_channels(image: Tensor, mask: Tensor, lengths: Sequence[int]) -> Tensor:
    """Stack ``[n, 4, y, x]`` from slices ``[n, y, x]`` and masks of studies laid end to end."""
    before, after = neighbours(lengths)
    return torch.stack([image[before], image, image[after], mask], dim=1)


class AbnormalityNetwork(nn.Module):
    """A small U-shaped slice network with pooling over slices. See :meth:`forward`.

    ``width``: channels of the finest level; ``features``: of a slice's vector; ``mirror``: compare the two sides.
    """

    def __init__(self, width: int = 16, features: int = 64, *, mirror: bool = False) -> None:
        super().__init__()
        w, k = width, len(OUTPUTS)
        self.mirror1, self.mirror2 = (nn.Conv2d(2 * n, n, 1) if mirror else None for n in (2 * w, 4 * w))
        self.stem = block(CHANNELS * 4, w)
        self.fine = block(w, w)
        self.down1 = nn.Sequential(block(w, 2 * w, 2), block(2 * w, 2 * w))
        self.down2 = nn.Sequential(block(2 * w, 4 * w, 2), block(4 * w, 4 * w))
        self.down3 = nn.Sequential(block(4 * w, 6 * w, 2), block(6 * w, 6 * w))
        self.across = nn.Conv2d(3 * 6 * w, 6 * w, 1)
        self.up2 = nn.Conv2d(6 * w, 4 * w, 1)
        self.mix2 = block(4 * w, 2 * w)
        self.mix1 = block(2 * w, w)
        self.mix0 = block(w, w)
        self.map = nn.Conv2d(w, k, 1)
        self.tissue = nn.Conv2d(w, TISSUES, 1)
        self.reduce = nn.Sequential(nn.Linear(12 * w + 2 * w + 3 * k, features), nn.ReLU(inplace=True))
        self.context = nn.Sequential(nn.Linear(3 * features, features), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout(0.2)
        self.slice = nn.Linear(2 * features + 3 * k, k)
        self.weight = nn.Linear(2 * features + 3 * k, k)
        # a slice starts as suspicious as its map's peak, and a study as a soft maximum of its slices
        self.peak = nn.Parameter(torch.tensor([float(name != "atrophy") for name in OUTPUTS]))  # atrophy has no outline
        self.trust = nn.Parameter(torch.ones(k))

    def forward(self, x: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Judge studies laid end to end.

        Parameters
        ----------
        x
            ``[n, 4, y, x]`` from :func:`slice_channels`.
        lengths
            Slices of each study; their sum is ``n``.

        Returns
        -------
        tuple
            Map logits ``[n, 8, y/2, x/2]``, slice logits ``[n, 8]``, weights ``[n, 8]`` (they sum to 1 over a study's
            slices), study logits ``[studies, 8]``.
        """
        beside = _beside(x, lengths)
        a, c, d = self._features(x, beside)
        return self._judge(x, lengths, beside, self.map(a), c, d)

    def with_tissue(self, x: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What :meth:`forward` gives, and tissue logits ``[n, 5, y/2, x/2]``: knowing normal anatomy, in training."""
        beside = _beside(x, lengths)
        a, c, d = self._features(x, beside)
        return (*self._judge(x, lengths, beside, self.map(a), c, d), self.tissue(a))

    def _features(self, x: Tensor, beside: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        before, after = beside
        a = self.fine(self.stem(functional.pixel_unshuffle(x, 2)))
        b = with_mirrored(self.down1(a), self.mirror1)
        c = with_mirrored(self.down2(b), self.mirror2)
        d = self.down3(c)
        d = d + self.across(torch.cat([d[before], d, d[after]], dim=1))
        c = self.mix2(c + functional.interpolate(self.up2(d), size=c.shape[2:], mode="nearest"))
        b = self.mix1(b + functional.interpolate(c, size=b.shape[2:], mode="nearest"))
        a = self.mix0(a + functional.interpolate(b, size=a.shape[2:], mode="nearest"))
        return a, c, d

    def _judge(
        self, x: Tensor, lengths: Sequence[int], beside: tuple[Tensor, Tensor], maps: Tensor, c: Tensor, d: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        before, after = beside
        inside = functional.max_pool2d(x[:, -1:], MAP_STRIDE)
        pooled = _pool_maps(maps.float(), inside)
        own = self.reduce(torch.cat([d.mean((2, 3)), d.amax((2, 3)), c.amax((2, 3)), pooled], dim=1))
        around = self.context(torch.cat([own[before], own, own[after]], dim=1))
        vector = self.dropout(torch.cat([own, around, pooled], dim=1))
        logits = self.slice(vector) + self.peak * 4.0 * pooled[:, : len(OUTPUTS)]
        energy = self.weight(vector) + self.trust * logits
        weights = torch.cat([e.softmax(dim=0) for e in energy.split(list(lengths))])
        study = torch.stack([part.sum(dim=0) for part in (weights * logits).split(list(lengths))])
        return maps, logits, weights, study


def _beside(x: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    before, after = neighbours(lengths)
    return before.to(x.device), after.to(x.device)


def _pool_maps(maps: Tensor, inside: Tensor) -> Tensor:
    """Per map and slice: the peak, the mean of the 40 highest pixels, and a soft area, inside the mask; ``[n, 24]``."""
    gated = torch.where(inside > 0.5, maps, torch.full_like(maps, -12.0)).flatten(2)
    top = gated.topk(40, dim=2).values
    area = torch.log1p(torch.sigmoid(gated).sum(dim=2))
    return torch.cat([top[:, :, :4].mean(2).clamp(-8, 8) / 4, top.mean(2).clamp(-8, 8) / 4, area / 2], dim=1)


def network_of(architecture: Mapping[str, Any]) -> AbnormalityNetwork:
    """Build the network that a model's metadata describes; before version 1.2.0 none compared the two sides."""
    width, features = int(architecture["width"]), int(architecture["features"])
    return AbnormalityNetwork(width, features, mirror=bool(architecture.get("mirror", False)))


def fast_layout(network: AbnormalityNetwork) -> AbnormalityNetwork:
    """Channels last: twice as fast on a CPU."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
