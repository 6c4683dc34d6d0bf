"""Results as CSV files, one for each environment: a line for each run, or for each trial."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.training.files import write_rows
from benchmarks.leaderboard.entries import ENTRIES
from ral_env.files import check_writable, locked, number

Record = dict[str, Any]  # a run's line in the CSV file

TEXTS = ("env", "entry", "settings", "bundle", "versions", "commit", "date")
TRIAL = "tuning_fd"  # the figure of a trial


class Results:
    """The runs of one environment, in the order in which they were made.

    Args:
        file: The CSV file; it need not exist yet.

    Raises:
        ValueError: If the file holds something else.
    """

    def __init__(self, file: Path):
        self.file = file
        self.records = self._read()

    def _read(self) -> list[Record]:
        if not self.file.exists():
            return []
        with self.file.open(newline="", encoding="utf-8") as stream:
            return [self._record(row) for row in csv.DictReader(stream)]

    def _record(self, row: Mapping[str, str]) -> Record:
        try:
            return {
                name: cell if name in TEXTS else number(cell)
                for name, cell in row.items()
                if cell != ""
            }
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self.file} is no file of results ({error}): remove it, or choose another folder"
            ) from error

    def has(self, key: Mapping[str, Any], bundle: str) -> bool:
        """Whether this run was made on this edition of the bundle."""
        wanted = {**key, "bundle": bundle}
        return any(all(r.get(name) == v for name, v in wanted.items()) for r in self.records)

    def add(self, record: Record) -> None:
        """Add a run's line to what the file holds now: other processes may add to it, too."""
        check_writable(self.file)
        with locked(self.file.parent):
            self.records = [*self._read(), record]
            write_rows(self.file, self.records)


def best_settings(trials: Results, entry: str, bundle: str) -> Mapping[str, Any]:
    """Those of least FD on the tuning split, of the trials of this edition; else the first."""
    found = [r for r in trials.records if r["entry"] == entry and r["bundle"] == bundle]
    if not found:
        return ENTRIES[entry].trials[0]
    return json.loads(min(found, key=lambda record: record[TRIAL])["settings"])
