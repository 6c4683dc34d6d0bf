"""The leaderboard's runs: every algorithm gets the same seconds and is measured alike.

    ral bench algorithms --envs '["RALMNIST-v0"]' --seeds 5      # all entries; goes on if cut
    ral bench algorithms --trials true                           # first: settings, on `tuning`
    ral bench algorithms --entries '["rounds"]' --seeds 1        # any row again
    ral bench algorithms --envs '["RALDigits-v0"]' --bundles '["runs/fold-0", "runs/fold-1"]'

Results are lines of ``OUT/ENV.csv``; docs/make_leaderboard.py makes the page of those in
benchmarks/results. What an entry does is in benchmarks/leaderboard/entries.py, how all are measured
in protocol.py beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.demo import load_bundle
from benchmarks.leaderboard.entries import ENTRIES
from benchmarks.leaderboard.page import table
from benchmarks.leaderboard.protocol import SAMPLES, Task, run, try_settings
from benchmarks.leaderboard.results import Results, best_settings
from benchmarks.workers import workers
from ral_env.files import check_writable
from ral_env.ranges import COUNT, check_values


def tasks(
    env: str, entries: Sequence[str], bundles: Sequence[str | None], seconds: float,
    trials: Results, samples: int, judges: int,
) -> list[Task]:  # fmt: skip
    """The runs, seed by seed, each on its bundle, by the best settings of each entry's trials."""
    return [
        Task(
            env, entry, seed, seconds, best_settings(trials, entry, edition), samples, judges, name
        )
        for seed, name in enumerate(bundles)
        for edition in [load_bundle(env, name).edition]
        for entry in entries
    ]


def all_trials(env: str, entries: Sequence[str], seconds: float, samples: int) -> list[Task]:
    """A run for each settings of each entry that learns, all with seed 0."""
    return [
        Task(env, entry, 0, seconds, settings, samples, judges=0)
        for entry in entries
        if ENTRIES[entry].learns
        for settings in ENTRIES[entry].trials
    ]


def command(
    envs: Sequence[str] = ("RALMNIST-v0", "RALOracle-v0"),
    entries: Sequence[str] = (),
    seeds: int = 1,
    bundles: Sequence[str] = (),
    seconds: float = 140.0,
    trials: bool = False,
    samples: int = SAMPLES,
    judges: int = 5,
    jobs: int = 2,
    out: str = "runs/algorithms",
) -> None:
    """Run algorithms and measure them. Runs that are in the results already are left out.

    Args:
        envs: Ids of the environments.
        entries: Names of the entries; all if none are given.
        seeds: Number of runs of each entry.
        bundles: Names or paths of bundles that fit the environment, a run of each entry on each,
            seed 0 on the first; in place of ``seeds`` runs on the environment's own.
        seconds: Processor seconds of training for each run, its discriminator's included.
        trials: Try each entry's settings instead, with one seed, on the tuning split; later runs in
            the same folder take the best.
        samples: Number of samples of each run that are measured.
        judges: Number of judges of each run, 2 or more; 0 leaves them out.
        jobs: Number of runs side by side, each on one thread.
        out: Folder of the results.
    """
    check_values(locals(), seeds=COUNT, seconds="(0, inf)", samples="[20, inf)", jobs=COUNT)
    unknown = [name for name in entries if name not in ENTRIES]
    if unknown:
        raise ValueError(f"entries={unknown}, expected some of {list(ENTRIES)}")
    names = list(entries) or list(ENTRIES)
    for env in envs:
        tried = Results(Path(out, f"trials-{env}.csv"))
        results = tried if trials else Results(Path(out, f"{env}.csv"))
        check_writable(results.file)
        wanted = (
            all_trials(env, names, seconds, samples)
            if trials
            else tasks(env, names, bundles or [None] * seeds, seconds, tried, samples, judges)
        )
        editions = {name: load_bundle(env, name).edition for name in {t.bundle for t in wanted}}
        left = [task for task in wanted if not results.has(task.key, editions[task.bundle])]
        print(f"{env}: {len(left)} runs of {len(wanted)}, {jobs} at a time", flush=True)
        with workers(jobs) as apply:
            for record in apply(try_settings if trials else run, left):
                results.add(record)
                print(f"  {record['entry']}, seed {record['seed']:.0f}: FD "
                      f"{record.get('fd', record.get('tuning_fd', float('nan'))):.2f}, "
                      f"{record['seconds']:.0f} s", flush=True)  # fmt: skip
        if not trials:
            print(f"\n{table(results.records)}\n\nresults: {results.file}")


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments of ``ral bench algorithms`` and run it."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral bench algorithms", as_positional=False)


if __name__ == "__main__":
    main()
