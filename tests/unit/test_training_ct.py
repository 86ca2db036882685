"""Training the haemorrhage model: it learns, resumes after a kill, uses the labels there are, writes a folder."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from inference.haemorrhage import HaemorrhageModel
from inference.haemorrhage_net import HaemorrhageNetwork
from inference.training import ct_cache, train_ct
from inference.training.ct_augment import augment, gather, slice_index
from inference.training.ct_cache import PreparedStudy, fill_cache, generator_hash, load_prepared
from inference.training.ct_widen import widened
from inference.training.fit_ct import fit_ct
from inference.training.make_ct import STAGES
from inference.training.records import RunRecord
from inference.training.train_ct import CtSettings, slice_loss, train_slices, train_study
from inference.weights import load_weights, verify

TINY = {"width": 4, "features": 8, "hidden": 4}
SETTINGS = CtSettings(seed=1, width=4, steps=8, batch=6, epochs=3, study_batch=4, save_every=4)


def disc(bleeding, slices=3, seed=0, masked=True):
    """A round head of few slices; when it bleeds, a bright square on its middle slice."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:192, :160]
    inside = np.hypot(y - 96, (x - 80) * 1.2) < 80
    hu = np.where(inside, 33, 1000)[None].repeat(slices, 0) + rng.normal(0, 2, (slices, 192, 160))
    mask = inside[None].repeat(slices, 0)
    blood = np.zeros((slices, 192, 160), np.uint8)
    labels = np.zeros((slices, 6), np.float32)
    if bleeding:
        top, left = rng.integers(60, 110), rng.integers(55, 85)
        blood[1, top : top + 20, left : left + 20] = 1
        hu[blood > 0] = 65
        labels[1, :2] = 1
    return PreparedStudy(
        hu=hu.astype(np.int16),
        mask=mask,
        blood=blood if masked else None,
        slice_labels=labels,
        labels=labels.max(axis=0),
    )


@pytest.fixture(scope="module")
def studies():
    return [disc(n % 2 == 0, seed=n) for n in range(8)]


def state_of(network):
    return {k: v.clone() for k, v in network.state_dict().items()}


def test_a_widened_network_answers_as_the_narrow_one_and_goes_on_learning(studies):
    torch.manual_seed(2)
    narrow = HaemorrhageNetwork(**TINY)
    narrow.train()
    x = torch.rand(6, 6, 192, 160)
    for _ in range(3):
        narrow.encoder(x)  # statistics of batch normalisation that are not its first ones
    wide = widened(narrow, seed=1, noise=0.0)
    narrow.eval(), wide.eval()
    with torch.no_grad():
        for old, new in zip(narrow.encoder(x), wide.encoder(x), strict=True):
            assert torch.allclose(old, new, atol=1e-4)
    noisy = widened(narrow, seed=1)
    batch = augment(gather(studies, [(0, 1), (1, 1)]), np.random.default_rng(0))
    slice_loss(noisy, batch, torch.device("cpu")).backward()
    one, other = noisy.encoder.blood.weight.grad.chunk(2, dim=1)
    assert not torch.allclose(one, other)  # twins part
    assert noisy.encoder.mirror1.weight.grad.abs().max() > 0


def test_training_from_a_narrower_model_widens_it(studies, tmp_path):
    record = RunRecord(purpose="ct_haemorrhage", synthetic=True, data="discs", data_sha256="0", seed=1, settings={})
    fit = {"record": record, "version": "0", "image_level": studies, "show_progress": False}
    fit_ct(studies, studies, tmp_path / "narrow", settings=SETTINGS, **fit)
    settings = replace(SETTINGS, width=8)
    fit_ct([], studies, tmp_path / "wide", settings=settings, start=tmp_path / "narrow", **fit)
    architecture = verify(tmp_path / "wide").architecture
    old, new = (load_weights(tmp_path / name)[1] for name in ("narrow", "wide"))
    for name in old:
        if name.startswith("study."):  # no studies for stage 2: it stays as it was
            assert torch.equal(old[name], new[name])
    assert (architecture["width"], architecture["mirror"], architecture["features"]) == (8, True, 48)
    HaemorrhageModel.load(tmp_path / "wide", device=torch.device("cpu")).warm_up()


def test_a_killed_stage_1_ends_where_an_unbroken_one_does(studies, tmp_path, monkeypatch):
    def fresh():
        torch.manual_seed(0)
        return HaemorrhageNetwork(**TINY)

    whole = fresh()
    train_slices(whole, studies, SETTINGS, tmp_path / "whole.pt")
    real, calls = train_ct.slice_loss, []

    def dies_at_the_seventh(*arguments):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(train_ct, "slice_loss", dies_at_the_seventh)
    with pytest.raises(KeyboardInterrupt):
        train_slices(fresh(), studies, SETTINGS, tmp_path / "broken.pt")
    monkeypatch.setattr(train_ct, "slice_loss", real)
    resumed = fresh()
    train_slices(resumed, studies, SETTINGS, tmp_path / "broken.pt")
    for name, value in state_of(whole).items():
        assert torch.allclose(value, resumed.state_dict()[name], atol=1e-5), name


def test_loss_falls_on_what_is_easy(studies):
    torch.manual_seed(0)
    network = HaemorrhageNetwork(**TINY)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    batch = gather(studies, [(n, 1) for n in range(8)])
    losses = []
    for _ in range(40):
        loss = slice_loss(network, batch, torch.device("cpu"))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_unknown_labels_and_masks_are_left_out(studies):
    network = HaemorrhageNetwork(**TINY).eval()
    known = slice_loss(network, gather(studies[:1], [(0, 1)]), torch.device("cpu"))
    bare = disc(True, masked=False)
    bare.slice_labels[:, 1:] = np.nan
    partly = slice_loss(network, gather([bare], [(0, 1)]), torch.device("cpu"))
    assert torch.isfinite(partly)
    assert partly < known  # no term for masks it does not know
    bare.slice_labels[:] = np.nan
    assert float(slice_loss(network, gather([bare], [(0, 1)]), torch.device("cpu"))) == 0.0


def test_augmentation_moves_mask_and_blood_with_the_image_and_is_repeatable(studies):
    batch = gather(studies, [(0, 1)] * 6)
    one, two = (augment(batch, np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(one.hu, two.hu)
    assert not torch.equal(one.hu, batch.hu)
    for n in range(6):
        inside = one.mask[n] > 0
        blood = one.blood[n] > 0
        assert one.hu[n, 0][blood].median() > one.hu[n, 0][inside & ~blood].median() + 10


def test_batches_are_half_blood(studies):
    drawn = slice_index(studies, np.random.default_rng(0), 40)
    positive = [studies[n].slice_labels[z, 0] > 0 for n, z in drawn]
    assert 0.4 < np.mean(positive) < 0.6


def test_stage_2_learns_from_study_labels_alone():
    torch.manual_seed(0)
    network = HaemorrhageNetwork(**TINY)
    rng = np.random.default_rng(0)
    size = network.encoder.feature_size
    features, labels = [], np.full((24, 6), np.nan, np.float32)
    for n in range(24):
        labels[n, 0] = n % 2
        study = rng.normal(0, 0.3, (int(rng.integers(4, 9)), size)).astype(np.float32)
        if n % 2:
            study[int(rng.integers(len(study)))] += 2.0
        features.append([torch.from_numpy(study)])
    curve = train_study(
        network, features, labels, CtSettings(seed=0, epochs=30, study_batch=8, study_learning_rate=0.02)
    )
    assert curve[-1] < 0.6 * curve[0]
    with torch.no_grad():
        _, attention = network.study(features[1][0][None], torch.tensor([len(features[1][0])]))
    assert int(attention[0].argmax()) == int(features[1][0].mean(dim=1).argmax())


def test_fit_writes_a_verified_model_and_can_start_from_it(studies, tmp_path):
    record = RunRecord(purpose="ct_haemorrhage", synthetic=True, data="discs", data_sha256="0", seed=1, settings={})
    more = {"record": record, "settings": SETTINGS, "show_progress": False}
    with pytest.raises(ValueError, match="without a model to start from"):
        fit_ct(studies[:4], studies[4:], tmp_path / "none", version="1", **more)
    first = fit_ct(studies[:4], studies[4:], tmp_path / "a", version="1", image_level=studies[:4], **more)
    assert verify(tmp_path / "a") == first
    assert set(first.operating_points) == {"alert", "triage"}
    assert first.training["synthetic"] is True
    assert first.training["validation"]["studies"] == 4
    assert (tmp_path / "a" / "run.json").exists()
    HaemorrhageModel.load(tmp_path / "a", device=torch.device("cpu")).warm_up()
    second = fit_ct(studies[:4], studies[4:], tmp_path / "b", version="2", start=tmp_path / "a", **more)
    assert second.architecture["width"] == first.architecture["width"]
    assert second.sha256 != first.sha256


def test_the_cache_keeps_what_was_drawn_and_draws_only_what_is_missing(tmp_path, monkeypatch):
    folder = tmp_path / generator_hash()
    assert fill_cache(folder, [8], processes=1) == [8]
    before = load_prepared(folder, 8)
    assert before.hu.shape[1:] == (192, 160)
    assert before.labels[0] == before.slice_labels[:, 0].max()
    assert (before.blood > 0).any(axis=(1, 2)).sum() >= before.slice_labels[:, 0].sum() - 1
    monkeypatch.setattr(ct_cache, "_draw_one", lambda job: pytest.fail("drawn again"))
    assert fill_cache(folder, [8], processes=1) == [8]


def test_the_stages_share_no_seed():
    spans = sorted(STAGES.values(), key=lambda seeds: seeds.start)
    assert all(one.stop <= two.start for one, two in pairwise(spans))
    assert spans[-1].stop <= 100_000  # cohorts written by `falx cohort` begin there
