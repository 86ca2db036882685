"""The Ray engine gives the local engine's answers, and refuses what it refuses."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from fixtures_training import phantom
from test_abnormality import PURPOSE, save

from inference.engine import Engine
from inference.engine_ray import RayEngine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_ray_answers_like_the_local_engine(tmp_path):
    save(tmp_path)
    head = phantom(1, lesion=True)[0]
    local = Engine({PURPOSE: tmp_path}, device="cpu").analyse(PURPOSE, head)
    engine = RayEngine({PURPOSE: tmp_path}, device="cpu", threads=1)
    try:
        engine.warm_up()
        remote, again = engine.analyse_many([(PURPOSE, head), (PURPOSE, head)])
        assert engine.model_id(PURPOSE) == local.model
    finally:
        engine.close()
    assert remote.findings[0].probability == pytest.approx(local.findings[0].probability, abs=1e-5)
    assert again.findings == remote.findings
