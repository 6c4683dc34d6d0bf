"""``ral bench start``: medians, differences to torch in the same run, a process's own figures."""

import pytest

from benchmarks import start
from ral_env import cli


def test_a_fresh_process_tells_its_own_time_and_memory():
    seconds, mb, torch = start.measure("pass")
    busy_seconds, busy_mb, _ = start.measure(
        "import time\nheld = bytearray(10**8)\nwhile time.process_time() < 0.3: pass"
    )
    assert not torch
    assert busy_mb - mb == pytest.approx(1e8 / 2**20, abs=5)
    assert busy_seconds > 0.3 > seconds


def test_rows_are_medians_beyond_torch_in_the_same_run(monkeypatch):
    figures = {
        start.TORCH: iter([(2.0, 500.0, True), (9.0, 900.0, True), (2.2, 510.0, True)]),
        "RALFaces32-v0": iter([(2.5, 520.0, True), (2.4, 530.0, True), (8.0, 540.0, True)]),
    }

    def measure(code: str) -> tuple[float, float, bool]:
        for name, found in figures.items():
            if name in code:
                return next(found)
        return 0.2, 40.0, False

    monkeypatch.setattr(start, "measure", measure)
    rows = {row["what"]: row for row in start.start(["RALFaces32-v0"], 3)}
    assert rows["import torch"] == {"what": "import torch", "seconds": "2.20", "MB": "510"}
    assert rows["ral envs"]["seconds"] == "0.20" and rows["ral envs"]["goal"] == "0.6 s"
    row = rows["RALFaces32-v0, first step"]
    assert (row["seconds"], row["+ s"], row["times torch"]) == ("2.50", "+0.30", "1.14")
    assert (row["MB"], row["+ MB"], row["goal"]) == ("530", "+20", "+0.6 s, +50 MB")


def test_it_says_so_where_torch_is_loaded_after_all(monkeypatch):
    monkeypatch.setattr(start, "measure", lambda code: (1.0, 1.0, True))
    with pytest.raises(RuntimeError, match="'import ral_env' has loaded torch"):
        start.start([], 1)


def test_an_unknown_id_is_refused(capsys):
    assert cli.main(["bench", "start", "--envs", '["RALNothing-v0"]']) == 1
    assert "expected ids that `ral envs` lists" in capsys.readouterr().err
