"""Trainings run side by side, and come back in order."""

import os

import pytest

from benchmarks.workers import workers


def test_one_job_runs_here_and_several_elsewhere():
    with workers(1) as run:
        assert list(run(divmod, [7, 9], [4, 4])) == [(1, 3), (2, 1)]
        assert set(run(_process, range(2))) == {os.getpid()}
    with workers(2) as run:
        assert list(run(divmod, [7, 9], [4, 4])) == [(1, 3), (2, 1)]
        assert os.getpid() not in set(run(_process, range(2)))
    with pytest.raises(ValueError, match="jobs=0"), workers(0):
        pass


def _process(_: int) -> int:
    return os.getpid()
