"""What a command prints may be read by nobody, or by a terminal that lacks some letters."""

import io
import os
import sys

import pytest

from ral_env import cli
from ral_env.streams import LastingStream


def test_when_its_reader_goes_away_a_stream_drops_what_is_written():
    read, write = os.pipe()
    with os.fdopen(write, "w") as pipe:
        stream = LastingStream(pipe)
        stream.write("a line\n")
        stream.flush()
        os.close(read)
        for _ in range(3):
            stream.write("a line that nobody reads\n" * 10_000)
            stream.flush()


def written(text: str, encoding: str) -> bytes:
    stored = io.BytesIO()
    stream = LastingStream(io.TextIOWrapper(stored, encoding))
    stream.write(text)
    stream.flush()
    return stored.getvalue()


def test_letters_that_an_encoding_lacks_are_written_plainly():
    assert written("Fréchet 学", "ascii") == b"Frechet ?"
    assert written("Fréchet 学", "latin-1") == "Fréchet ?".encode("latin-1").replace(b"\xe9", b"e")
    assert written("Fréchet 学", "utf-8") == "Fréchet 学".encode()


@pytest.mark.parametrize("command", ["pretrain", "evaluate", "train"])
def test_help_is_printed_in_an_ascii_locale(command, monkeypatch):
    stored = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stored, "ascii"))
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0 and stored.getvalue().startswith(b"usage: ral ")


def test_a_command_whose_reader_goes_away_comes_to_its_end(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert cli.main(["--help"]) == 0
