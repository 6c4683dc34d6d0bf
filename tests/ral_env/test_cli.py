"""``ral``: a list of commands at once, each command's own help, errors without a traceback."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from ral_env import cli
from ral_env.tasks import TASKS

ROOT = Path(__file__).parents[2]


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


def test_a_tilde_is_the_home_folder_in_every_argument(monkeypatch):
    """Shells expand it only where a word begins with it and is not quoted."""
    monkeypatch.setenv("HOME", "/home/someone")
    got: list[list[str]] = []
    plant(monkeypatch, lambda argv: got.append(argv))
    cli.main(["planted", "--out=~/x", "--data", "~/y", "~", "--set=name=~/z", "a~/b", "~other/x"])
    full = ["--out=/home/someone/x", "--data", "/home/someone/y", "/home/someone"]
    assert got == [[*full, "--set=name=~/z", "a~/b", "~other/x"]]


def test_without_arguments_the_process_s_own_are_used(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ral", "--version"])
    assert cli.main() == 0
    assert capsys.readouterr().out == f"ral-env {cli.ral_env.__version__}\n"


@pytest.mark.parametrize(
    "command", [["-m", "ral_env"], ["-c", "from ral_env.cli import main; main()"]]
)
def test_without_a_subcommand_it_greets_with_commands_that_are_there(command):
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"ral-env {cli.ral_env.__version__}: ")
    tried = re.findall(r"^  ral (\w+)", done.stdout, re.MULTILINE)
    assert len(tried) >= 4 and set(tried) <= set(cli.COMMANDS)


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


def table(capsys) -> dict[str, list[str]]:
    """What `ral envs` prints: id -> the other columns."""
    assert cli.main(["envs"]) == 0
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    rows = [re.split(r"\s{2,}", line) for line in lines]
    assert rows[0] == ["id", "image", "grids", "codes", "named after", "bundle", "trained on"]
    return {row[0]: row[1:] for row in rows[1:]}


def test_envs_tells_which_bundles_are_real(monkeypatch, capsys, tiny, tmp_path):
    monkeypatch.setenv("RAL_ENV_HOME", str(tmp_path))
    rows = table(capsys)
    assert list(rows) == list(TASKS)
    digits = [
        "32",
        "8x8",
        "64",
        "handwritten digits",
        "digits",
        "scikit-learn's handwritten digits",
    ]
    assert rows["RALDigits-v0"] == digits
    assert rows["RALCelebA64-v0"][3:] == ["CelebA", "faces64 (stand-in)", "procedural faces, 64 px"]
    shutil.copytree(tiny, tmp_path / "bundles" / "celeba64")
    assert table(capsys)["RALCelebA64-v0"][3:] == ["CelebA", "celeba64", "noise"]


def test_envs_names_the_command_that_makes_the_real_bundles(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("RAL_ENV_HOME", str(tmp_path))
    cli.main(["envs"])
    note = capsys.readouterr().out.split("\n\n")[1]
    assert f"ral pretrain --recipe NAME --data FOLDER --out {tmp_path}" in note
    assert "celeba128" in note and "faces32" not in note


def test_envs_tells_of_a_bundle_that_cannot_be_read(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("RAL_ENV_HOME", str(tmp_path))
    cut = tmp_path / "bundles" / "celeba64" / "manifest.json"
    cut.parent.mkdir(parents=True)
    cut.write_text("{")
    assert table(capsys)["RALCelebA64-v0"][5].startswith(f"unreadable: bundle file {cut}")


# --- packages of other projects that have the names of ours ---


def run_among_others(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """``ral`` with a path on which the working folder comes first."""
    for name in ("agents", "pretrain", "benchmarks"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('the package of another')")
    code = "import sys; from ral_env.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([".", str(ROOT)])},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", ["train", "pretrain", "bench"])
def test_a_projects_own_folders_do_not_hide_our_packages(tmp_path, name):
    done = run_among_others(tmp_path, name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: ral {name}")


def test_a_package_that_lies_in_the_place_of_ours_is_named(monkeypatch, capsys):
    """As where another project's ``agents`` is installed over ours."""
    monkeypatch.setitem(cli.COMMANDS, "planted", ("agents.of_another:main", "for a test"))
    assert cli.main(["planted"]) == 1
    error = capsys.readouterr().err
    assert re.search(r"'agents' in \S+agents is not the package .* that belongs to ral-env", error)
