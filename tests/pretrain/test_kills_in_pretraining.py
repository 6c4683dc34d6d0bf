"""A pretraining that is killed in each of its stages goes on, and ends as one that was not."""

import dataclasses
from typing import Any

import pytest
from kills import killed_at
from short_recipes import short

from pretrain import run
from ral_env import bundle

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(3600),  # twenty processes, one after the other
    pytest.mark.filterwarnings("ignore:the codebook of level"),
]

# In the order of their first writes. With a number: that file is there, and is written once more.
MOMENTS = {
    "oracle": [
        "config.json", "vqvae.pt", "vqvae.csv", ("vqvae.pt", 2), "codes.npy.json", "codes.npy",
        ("codes.npy.json", 1), "features.pt", "selfsupervised.pt", "distance.pt", "oracle_0.pt",
        "oracle_0.csv", ("oracle_0.pt", 2), "oracle_codes.pt", "prior_0.pt", "prior_0.csv",
        ("prior_0.pt", 1), "discriminator.pt", "discriminator_image.pt", "metrics.json", "made",
    ],
    "faces128": [
        "vqvae.pt", "codes.npy", "prior_0.pt", ("prior_0.pt", 3), "prior_1.pt", "prior_1.csv",
        ("prior_1.pt", 2), "discriminator_codes.pt", "made",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", MOMENTS)
def test_a_run_that_is_killed_in_every_stage_ends_as_one_that_is_not(name, tmp_path):
    recipe = short(name)
    often: dict[str, Any] = {
        field: tuple(dataclasses.replace(t, checkpoint_every=1) for t in getattr(recipe, field))
        for field in ("prior_trainings", "oracle_trainings")
    }
    often["vqvae_training"] = dataclasses.replace(recipe.vqvae_training, checkpoint_every=1)
    recipe = dataclasses.replace(recipe, **often)
    work, made = tmp_path / "work", tmp_path / "made"
    for moment in MOMENTS[name]:
        file, times = moment if isinstance(moment, tuple) else (moment, 0)
        killed_at(file, lambda: run.pretrain(recipe, made, work=work), times)
        place = tmp_path if file == "made" else work
        assert (place / file).exists() == bool(times), f"it was another stage than that of {file}"
    run.pretrain(recipe, made, work=work)
    whole = run.pretrain(recipe, tmp_path / "whole")
    hashes = [bundle.load(path).manifest["files"] for path in (made, whole)]
    assert hashes[0] == hashes[1]
    left = [file.name for place in (tmp_path, work) for file in place.glob(".*")]
    assert left == [".lock"], "what the dead had begun to write is gone"
