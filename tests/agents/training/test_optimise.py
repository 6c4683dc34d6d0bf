"""One training routine: cut runs go on exactly, parts and processes add up to the same update."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from agents.training import fit, optimise
from agents.training.discriminator import Adversary, DiscriminatorTraining
from agents.training.fit import PriorTraining
from agents.training.optimise import FREE, Training, examples
from agents.training.processes import Processes
from pretrain import vqvae
from pretrain.vqvae import VQVAETraining
from ral_env.files import DiskError
from ral_env.nets import PatchGAN, PatchGANConfig, PixelCNN, PixelCNNConfig, VQVAEConfig


class Cut(Exception):
    pass


def cut_at(step: int):
    """A log that ends the run, as Ctrl-C would, at the validation of that step."""

    def log(rows, net):
        if rows[-1]["step"] == step:
            raise Cut

    return log


def fit_prior(checkpoint=None, log=None, **changes):
    """A prior with dropout on random codes: (weights, rows)."""
    settings = {"steps": 14, "batch": 8, "ema": 0.9, "validate_every": 4, "checkpoint_every": 5}
    codes = torch.randint(5, (30, 4, 4), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    prior = PixelCNN(PixelCNNConfig((4, 4), 5, 8, 8, 2, dropout=0.2, output_layers=1))
    rows = fit.fit_prior(
        prior, codes[:20], codes[20:], PriorTraining(**(settings | changes)),
        seed=3, checkpoint=checkpoint, log=log,
    )  # fmt: skip
    return prior.state_dict(), rows


def fit_prior_to_noisy_contexts(checkpoint=None, log=None):
    return fit_prior(checkpoint, log, context_noise=0.5)


def fit_vqvae(checkpoint=None, log=None, **changes):
    """Two levels, shifted images, k-means start and revival: (weights, rows)."""
    settings = {"steps": 14, "batch": 8, "ema": 0.9, "validate_every": 4, "checkpoint_every": 5}
    images = torch.randint(
        256, (30, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    config = VQVAEConfig(16, 8, 4, layers=1, num_codes=8, code_dim=3, levels=2)
    net, rows = vqvae.fit(
        config, images[:20], images[20:], VQVAETraining(shift=1, **(settings | changes)),
        seed=3, checkpoint=checkpoint, log=log,
    )  # fmt: skip
    return net.state_dict(), rows


def same(a, b, exactly=True):
    (weights, rows), (others, other_rows) = a, b
    for name, value in weights.items():
        if exactly:
            assert torch.equal(value, others[name]), name
        else:
            torch.testing.assert_close(value, others[name], atol=1e-6, rtol=1e-5)
    for row, other in zip(rows, other_rows, strict=True):
        for name in row.keys() - {"seconds"}:
            assert row[name] == (other[name] if exactly else pytest.approx(other[name], rel=1e-4))


@pytest.mark.faults
@pytest.mark.parametrize("fit", [fit_prior, fit_prior_to_noisy_contexts, fit_vqvae])
@pytest.mark.parametrize("step", [8, 12])
def test_a_cut_run_goes_on_as_if_it_had_not_been(fit, step, tmp_path):
    file = tmp_path / "run" / "state.pt"
    with pytest.raises(Cut):
        fit(file, cut_at(step))
    assert file.exists()
    same(fit(file), fit())
    assert [f.name for f in file.parent.iterdir()] == ["state.pt"], "nothing else is left behind"


@pytest.mark.faults
@pytest.mark.parametrize("fit", [fit_prior, fit_vqvae])
def test_a_run_cut_before_its_first_update_has_a_checkpoint_and_goes_on(fit, tmp_path):
    file = tmp_path / "state.pt"
    with pytest.raises(Cut):
        fit(file, cut_at(0))
    assert torch.load(file, weights_only=True)["state"]["step"] == 0
    same(fit(file), fit())


def test_a_disk_that_takes_no_checkpoint_is_told_before_the_first_update(tmp_path):
    (tmp_path / "a file").touch()
    seen = []
    with pytest.raises(DiskError, match="cannot write .*state.pt"):
        fit_prior(tmp_path / "a file" / "state.pt", lambda rows, net: seen.append(rows))
    assert not seen


@pytest.mark.usefixtures("heeded_signals")
@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_stopped_run_is_saved_at_the_end_of_its_update_and_goes_on(number, end, tmp_path):
    def stop(rows, net):
        if rows[-1]["step"] == 8:
            signal.raise_signal(number)

    file = tmp_path / "state.pt"
    with pytest.raises(end):
        fit_prior(file, stop, checkpoint_every=1000)
    assert torch.load(file, weights_only=True)["state"]["step"] == 9
    same(fit_prior(file, checkpoint_every=1000), fit_prior())


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = fit_prior(tmp_path / "state.pt")
    start = time.perf_counter()
    same(fit_prior(tmp_path / "state.pt"), first)
    assert time.perf_counter() - start < 5


@pytest.mark.faults
def test_a_run_killed_without_warning_goes_on_exactly(tmp_path):
    """kill -9, in a process of its own."""
    code = (
        "import sys, pathlib, torch, test_optimise\n"
        "torch.set_num_threads(1)\n"
        "def log(rows, net):\n"
        "    print(int(rows[-1]['step']), flush=True)\n"
        "    if rows[-1]['step'] == 12: sys.stdin.read()\n"
        f"test_optimise.fit_prior(pathlib.Path({str(tmp_path / 'state.pt')!r}), log)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    assert child.stdout is not None and child.stdin is not None
    for line in child.stdout:
        if line.strip() == "12":
            child.send_signal(signal.SIGKILL)
            break
    assert child.wait() == -signal.SIGKILL
    child.stdin.close()
    child.stdout.close()
    same(fit_prior(tmp_path / "state.pt"), fit_prior())


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    fit_prior(tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"other settings \(batch: 8 there, 10 asked for\)"):
        fit_prior(tmp_path / "state.pt", batch=10)


def test_a_checkpoint_without_a_later_setting_is_of_what_was_done_without_it(tmp_path):
    file = tmp_path / "state.pt"
    with pytest.raises(Cut):
        fit_prior(file, cut_at(8))
    older = torch.load(file, weights_only=True)
    del older["settings"]["context_noise"]
    torch.save(older, file)
    with pytest.raises(ValueError, match=r"\(context_noise: 0.0 there, 0.5 asked for\)"):
        fit_prior_to_noisy_contexts(file)
    same(fit_prior(file), fit_prior())


@pytest.mark.faults
def test_a_cut_checkpoint_is_named(tmp_path):
    fit_prior(tmp_path / "state.pt")
    whole = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"state.pt cannot be read.*remove it"):
        fit_prior(tmp_path / "state.pt")


@pytest.mark.parametrize("batch", [3, 7, 20])
def test_every_epoch_sees_every_example_once(batch):
    seen = torch.cat([examples(7, batch, seed=1, step=step) for step in range(7)])
    for epoch in seen[: len(seen) // 7 * 7].split(7):
        assert sorted(epoch.tolist()) == list(range(7))
    assert not torch.equal(seen[:7], examples(7, 7, seed=2, step=0))
    assert len(examples(7, batch, seed=1, step=0)) == batch


def test_a_batch_in_parts_makes_the_same_update():
    whole = fit_prior(steps=6, patience=0, accumulate=1, **{"validate_every": 6})
    # Dropout differs between parts, so compare a prior without it.
    assert whole[1][-1]["step"] == 6

    def plain(accumulate):
        codes = torch.randint(5, (30, 4, 4), generator=torch.Generator().manual_seed(0))
        torch.manual_seed(1)
        prior = PixelCNN(PixelCNNConfig((4, 4), 5, 8, 8, 2, dropout=0.0, output_layers=1))
        settings = PriorTraining(steps=5, batch=8, accumulate=accumulate, clip=0.5)
        return prior.state_dict(), fit.fit_prior(prior, codes[:20], codes[20:], settings)

    same(plain(1), plain(4), exactly=False)
    with pytest.raises(ValueError, match="batch=8 cannot be shared.*multiple of 3"):
        plain(3)


def test_examples_loaded_ahead_are_the_same():
    same(fit_prior(), fit_prior(workers=1))


def test_a_loss_that_is_not_finite_stops_the_run():
    net = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"update 1's loss is not finite: \{'broken': nan\}"):
        optimise.optimise(
            net,
            lambda batch: {"broken": net(batch).sum() * float("nan")},
            lambda index: index[:, None].float(),
            4,
            lambda net: {"figure": 0.0},
            Training(steps=2, batch=2),
        )


def test_mixed_precision_learns_and_keeps_float32_weights():
    weights, rows = fit_prior(precision="bfloat16")
    assert all(value.dtype == torch.float32 for value in weights.values())
    exact = fit_prior()[1]
    assert rows[-1]["train_nats_per_code"] == pytest.approx(
        exact[-1]["train_nats_per_code"], rel=0.02
    )
    assert rows[-1]["train_nats_per_code"] != exact[-1]["train_nats_per_code"]


def test_the_learning_rate_follows_its_schedule():
    cosine = Training(steps=100, learning_rate=2.0, final_rate=0.1, warmup=10)
    assert cosine.rate(0) == pytest.approx(0.2)
    assert cosine.rate(50) == pytest.approx(2 * 0.55)
    assert cosine.rate(100) == pytest.approx(0.2)
    assert Training(learning_rate=2.0, schedule="constant").rate(10**9) == 2.0


# --- several processes ---

# What each process runs: a few updates from a checkpoint, without dropout, then the weights.
WORKER = """
import sys, pathlib, torch, dataclasses
torch.set_num_threads(1)
import test_optimise
kind, checkpoint, out = sys.argv[1:]
weights, rows = test_optimise.PLAIN[kind](pathlib.Path(checkpoint))
from agents.training.processes import Processes, leave
if Processes().rank == 0:
    torch.save((weights, rows), out)
# No thread of the group outlives it: while Python ends, one would abort the process.
leave()
if sys.platform == "linux":
    tasks = pathlib.Path("/proc/self/task").iterdir()
    names = [task.joinpath("comm").read_text() for task in tasks]
    assert not any("gloo" in name for name in names), names
"""


def plain_prior(checkpoint, steps=9):
    codes = torch.randint(5, (30, 4, 4), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    prior = PixelCNN(PixelCNNConfig((4, 4), 5, 8, 8, 2, dropout=0.0, output_layers=1))
    settings = PriorTraining(steps=9, batch=8, validate_every=3, checkpoint_every=3, accumulate=2)
    rows = fit.fit_prior(
        prior, codes[:20], codes[20:], settings, checkpoint=checkpoint,
        log=None if steps == 9 else cut_at(steps),
    )  # fmt: skip
    return prior.state_dict(), rows


def plain_vqvae(checkpoint, steps=9):
    images = torch.randint(
        256, (30, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    config = VQVAEConfig(16, 8, 4, layers=1, num_codes=8, code_dim=3, levels=2)
    settings = VQVAETraining(steps=9, batch=8, validate_every=3, checkpoint_every=3, revive_below=0)
    net, rows = vqvae.fit(
        config, images[:20], images[20:], settings, checkpoint=checkpoint,
        log=None if steps == 9 else cut_at(steps),
    )  # fmt: skip
    return net.state_dict(), rows


def plain_discriminator(checkpoint, steps=9):
    """Three updates of WGAN-GP, with augmentation; what is drawn is drawn for the whole batch."""
    processes = Processes()
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 3, 8, 3, 8, 8, generator=generator)
    torch.manual_seed(1)
    net = PatchGAN(PatchGANConfig(hidden=4, layers=1))
    training = DiscriminatorTraining(learning_rate=1e-2, shift=1, drop=0.1)
    trainer = Adversary(net, training, processes=processes)
    rows = []
    for step in range(3 if steps == 9 else 0):
        losses = trainer.update(processes.shard(real[step]), processes.shard(fake[step]))
        rows.append(processes.mean(losses))
    if steps != 9:
        checkpoint.write_bytes(b"")
        raise Cut
    return net.state_dict(), rows


PLAIN = {"prior": plain_prior, "vqvae": plain_vqvae, "wgan-gp": plain_discriminator}


@pytest.mark.parametrize("kind", PLAIN)
def test_two_processes_make_the_update_of_one(kind, tmp_path):
    """The codebook's averages and the gradient penalty's double backward included. Trainings go on
    from the same checkpoint."""
    pytest.importorskip("accelerate")
    with pytest.raises(Cut):
        PLAIN[kind](tmp_path / "two.pt", steps=6)
    (tmp_path / "one.pt").write_bytes((tmp_path / "two.pt").read_bytes())
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(script), kind, str(tmp_path / "two.pt"), str(tmp_path / "weights.pt")],
        capture_output=True, text=True, timeout=200, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    weights, rows = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert json.dumps(rows)
    same(PLAIN[kind](tmp_path / "one.pt"), (weights, rows), exactly=False)


def test_settings_are_all_in_the_checkpoint(tmp_path):
    fit_prior(tmp_path / "state.pt")
    stored = torch.load(tmp_path / "state.pt", weights_only=True)["settings"]
    assert {f.name for f in dataclasses.fields(PriorTraining)} - set(FREE) <= stored.keys()
