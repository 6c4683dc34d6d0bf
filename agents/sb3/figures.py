"""The rows of figures of a run of SB3's, which go on where the run goes on."""

from __future__ import annotations

import csv
from pathlib import Path

from stable_baselines3.common.logger import (
    CSVOutputFormat,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
)

from agents.training.files import write_rows

STEPS = "time/total_timesteps"  # SB3's column


class _Appended(CSVOutputFormat):
    """A CSV that is there already, and goes on."""

    def __init__(self, file: Path):
        self.file = file.open("r+", encoding="utf-8")
        self.keys = self.file.readline().strip().split(",")
        self.separator, self.quotechar = ",", '"'
        self.file.seek(0, 2)


def logger(folder: Path, steps: int) -> Logger:
    """SB3's logger to progress.csv and TensorBoard.

    Args:
        folder: the run's.
        steps: that the run has made already; rows beyond them are removed.
    """
    file = folder / "progress.csv"
    rows = []
    if steps and file.exists():
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if float(row[STEPS] or 0) <= steps]
        write_rows(file, rows)
    figures: KVWriter = _Appended(file) if rows else CSVOutputFormat(str(file))
    return Logger(str(folder), [figures, TensorBoardOutputFormat(str(folder))])
