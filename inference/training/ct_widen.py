"""A wider slice encoder that begins where a narrower one has come (Net2Net: Chen, Goodfellow and Shlens, ICLR 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from inference.haemorrhage_net import OUTPUTS, HaemorrhageNetwork

NOISE = 0.05  # of a weight's spread: twins that are exactly alike would learn alike
UNEVEN = 0.2  # twins share what reads them unevenly, for the same reason


def widened(network: HaemorrhageNetwork, seed: int, *, noise: float = NOISE) -> HaemorrhageNetwork:
    """Give each channel of the encoder a twin, and a comparison of the two sides that says nothing yet.

    What the network answers stays the same but for the noise; the study network is taken over as it is.
    """
    old, encoder = network.state_dict(), network.encoder
    width, hidden = encoder.blood.in_channels, network.study.lstm.hidden_size
    wide = HaemorrhageNetwork(2 * width, encoder.feature_size - OUTPUTS, hidden, mirror=True)
    generator = torch.Generator().manual_seed(seed)
    state = wide.state_dict()
    for name, target in state.items():
        if name not in old:
            target.zero_()
        elif target.shape == old[name].shape:
            target.copy_(old[name])
        elif name == "encoder.reduce.0.weight":  # it reads two levels (6 w and 2 w), and what is not doubled
            parts = old[name].split([6 * width, 2 * width, old[name].shape[1] - 8 * width], dim=1)
            target.copy_(torch.cat([_shared(parts[0], generator), _shared(parts[1], generator), parts[2]], dim=1))
        else:
            target.copy_(_twins(old[name], target.shape, noise, generator))
    wide.load_state_dict(state)
    return wide


def _twins(old: Tensor, shape: torch.Size, noise: float, generator: torch.Generator) -> Tensor:
    if old.dim() == 1:
        return torch.cat([old, old])
    new = _shared(old, generator) if shape[1] == 2 * old.shape[1] else old
    if shape[0] == old.shape[0]:
        return new
    new = torch.cat([new, new])
    return new + noise * new.std() * torch.randn(new.shape, generator=generator)


def _shared(old: Tensor, generator: torch.Generator) -> Tensor:
    """Weights for twin inputs, whose sum is the weight for the one input there was."""
    share = 0.5 + UNEVEN * (torch.rand(old.shape[1], generator=generator) - 0.5)
    share = share.view(1, -1, *[1] * (old.dim() - 2))
    return torch.cat([old * share, old * (1 - share)], dim=1)
