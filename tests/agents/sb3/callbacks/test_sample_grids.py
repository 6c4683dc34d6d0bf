"""Finished canvases are shown in TensorBoard."""

from __future__ import annotations

import pytest
from sb3_models import model_of
from stable_baselines3 import A2C
from stable_baselines3.common.logger import configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.sb3 import SampleGrids


def test_sample_grids_are_in_tensorboard(tiny, tmp_path):
    model = model_of(A2C, tiny)
    model.set_logger(configure(str(tmp_path), ["tensorboard", "csv", "json", "log"]))
    model.learn(5 * 256, callback=SampleGrids(every=2, count=3), log_interval=1)
    model.logger.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [image.step for image in events.Images("samples")] == [256, 768, 1280]
    assert events.Images("samples")[0].width > 64  # two images of 32 pixels, and a frame


def test_bad_bounds_of_pictures_are_refused():
    with pytest.raises(ValueError, match="every=0"):
        SampleGrids(0)
    with pytest.raises(ValueError, match="count=0"):
        SampleGrids(count=0)
