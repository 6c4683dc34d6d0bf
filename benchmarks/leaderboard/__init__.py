"""Algorithms against each other: one budget, one measurement, results as CSV files, a page."""

from benchmarks.leaderboard.entries import ENTRIES, Contender, Entry
from benchmarks.leaderboard.protocol import Task, run

__all__ = ["ENTRIES", "Contender", "Entry", "Task", "run"]
