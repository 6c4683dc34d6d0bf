"""``ral``: a list of commands at once, each command's own help, errors without a traceback."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec

from ral_env import cli

ROOT = Path(__file__).parent.parent


def plant(monkeypatch: pytest.MonkeyPatch, command: Callable, module: str = "benchmarks.x") -> None:
    """Make ``ral planted`` call ``command`` as though it were defined in ``module``."""
    source = types.ModuleType(module)
    source.main = types.FunctionType(  # type: ignore[attr-defined]
        command.__code__, vars(source), closure=command.__closure__
    )
    monkeypatch.setitem(vars(source), "__builtins__", __builtins__)
    monkeypatch.setitem(sys.modules, module, source)
    monkeypatch.setitem(cli.COMMANDS, "planted", (f"{module}:main", "for a test"))


def test_help_lists_every_subcommand_and_imports_no_torch():
    code = (
        "import sys; from ral_env.cli import main; status = main(['--help']); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert listed == list(cli.COMMANDS)


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_subcommand_has_its_own_help(name: str, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: ral {name} " in capsys.readouterr().out


def test_a_subcommand_gets_what_follows_it_and_gives_the_exit_status(monkeypatch):
    got = []
    plant(monkeypatch, lambda argv: got.append(argv) or len(argv))
    assert cli.main(["planted", "--env", "x", "--help"]) == 3
    assert got == [["--env", "x", "--help"]]
    plant(monkeypatch, lambda argv: None)
    assert cli.main(["planted"]) == 0


def test_without_arguments_the_process_s_own_are_used(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ral", "--version"])
    assert cli.main() == 0
    assert capsys.readouterr().out == f"ral-env {cli.ral_env.__version__}\n"


@pytest.mark.parametrize(("name", "hint"), [("evns", "did you mean envs?"), ("x", "known: envs")])
def test_an_unknown_subcommand_names_near_matches(name: str, hint: str, capsys):
    assert cli.main([name]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ral: error: no subcommand {name!r}") and hint in error


def test_bad_input_is_one_line_and_raises_only_when_debugging(monkeypatch, capsys):
    def bad(argv):
        raise ValueError("3 rows, expected at least 4")

    plant(monkeypatch, bad)
    assert cli.main(["planted"]) == 1
    assert capsys.readouterr().err == "ral: error: 3 rows, expected at least 4\n"
    monkeypatch.setenv("RAL_DEBUG", "1")
    with pytest.raises(ValueError, match="3 rows"):
        cli.main(["planted"])


def test_a_misspelt_environment_is_one_line(monkeypatch, capsys):
    def bad(argv):
        import gymnasium

        gymnasium.make("RALDigit-v0")

    plant(monkeypatch, bad)
    assert cli.main(["planted"]) == 1
    assert "Did you mean: `RALDigits`?" in capsys.readouterr().err


def test_a_library_s_error_keeps_its_traceback(monkeypatch):
    def bad(argv):
        raise ValueError("setting an array element with a sequence")

    plant(monkeypatch, bad, module="numpy_like")
    with pytest.raises(ValueError, match="setting an array"):
        cli.main(["planted"])


def test_a_missing_extra_is_named(monkeypatch, capsys):
    def needs(argv):
        import vector_quantize_pytorch  # noqa: F401

    plant(monkeypatch, needs)
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    assert cli.main(["planted"]) == 1
    assert "pip install 'ral-env[pretrain]'" in capsys.readouterr().err


def test_any_other_missing_module_is_a_bug(monkeypatch):
    def needs(argv):
        import no_such_module_at_all  # type: ignore # noqa: F401

    plant(monkeypatch, needs)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["planted"])


def test_envs_tells_where_each_bundle_is(monkeypatch, capsys, tiny):
    for name, where in {"RALTiny-v0": str(tiny), "RALNowhere-v0": "nowhere-at-all"}.items():
        spec = EnvSpec(name, entry_point="ral_env.env:LatentCanvasEnv", kwargs={"bundle": where})
        monkeypatch.setitem(gymnasium.registry, name, spec)
    assert cli.main(["envs"]) == 0
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head == ["id", "image", "grids", "codes", "dataset", "bundle"]
    table = {row[0]: row[1:] for row in rows}
    assert set(cli.ral_env.ENVIRONMENTS) <= set(table) and "CartPole-v1" not in table
    assert table["RALTiny-v0"] == ["32", "8x8", "16", "noise", str(tiny)]
    assert table["RALNowhere-v0"] == ["-", "-", "-", "-", "missing"]


def test_envs_tells_of_a_bundle_that_cannot_be_read(monkeypatch, capsys, tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    spec = EnvSpec("RALCut-v0", entry_point="ral_env.env:x", kwargs={"bundle": str(tmp_path)})
    monkeypatch.setitem(gymnasium.registry, "RALCut-v0", spec)
    assert cli.main(["envs"]) == 0
    row = next(r for r in capsys.readouterr().out.splitlines() if r.startswith("RALCut-v0"))
    assert "unreadable" in row and str(tmp_path / "manifest.json") in row
