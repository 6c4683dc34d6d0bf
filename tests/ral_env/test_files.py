"""Files are there whole or not at all; one holder a lock; a disk's faults in one sentence."""

import errno
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ral_env import files
from ral_env.files import DiskError, Lock, check_room, check_writable, leftovers, write_bytes

pytestmark = pytest.mark.faults


def raises(number):
    def write(fresh: Path) -> None:
        fresh.write_bytes(b"a part of it")
        raise OSError(number, os.strerror(number))

    return write


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no room left to write {file}"),
        (errno.EDQUOT, "no room left to write {file}"),
        (errno.EROFS, "cannot write {file}: Read-only file system"),
    ],
)
def test_a_file_that_cannot_be_written_stays_as_it_was(number, words, tmp_path):
    file = tmp_path / "film.gif"
    file.write_bytes(b"before")
    with pytest.raises(DiskError) as error:
        files.write_whole(file, raises(number))
    assert str(error.value) == words.format(file=file)
    assert [each.name for each in tmp_path.iterdir()] == ["film.gif"]
    assert file.read_bytes() == b"before"


def test_whatever_ends_the_writing_nothing_is_left(tmp_path):
    def write(fresh: Path) -> None:
        fresh.write_bytes(b"a part of it")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_whole(tmp_path / "film.gif", write)
    assert not list(tmp_path.iterdir())


def test_too_little_room_is_told_before_anything_is_written(tmp_path):
    message = f"no room for the bundle in {tmp_path}: it needs 1e.06 TB, and .*B are free"
    with pytest.raises(DiskError, match=message):
        check_room(tmp_path, 10**18, "the bundle")
    check_room(tmp_path, 1, "the bundle")


def test_sizes_are_told_in_units_that_people_use():
    told = [files.size_in_words(size) for size in (0, 999, 1000, 3_219_000, 1.5e9, 2e12)]
    assert told == ["0 bytes", "999 bytes", "1 kB", "3.22 MB", "1.5 GB", "2 TB"]


def test_a_file_that_could_not_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "a file").touch()
    with pytest.raises(DiskError, match="cannot write .*film.gif: "):
        check_writable(tmp_path / "a file" / "film.gif")
    check_writable(tmp_path / "new" / "film.gif")
    assert not list((tmp_path / "new").iterdir())
    with pytest.raises(DiskError, match="cannot write .*new: it is a folder"):
        check_writable(tmp_path / "new")
    check_writable(tmp_path / "new", folder=True)


def test_a_picture_is_there_whole_or_not_at_all(tmp_path):
    file = tmp_path / "made" / "picture.png"
    files.write_stream(file, lambda stream: stream.write(b"all of it"))

    def half(stream):
        stream.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_stream(file, half)
    assert file.read_bytes() == b"all of it" and len(list(file.parent.iterdir())) == 1


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_follow_the_umask(mask, tmp_path):
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "a", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_leftovers_are_what_dead_writers_leave(tmp_path):
    left = {".checkpoint.pt.0a1b2c3d", ".checkpoint.pt.4711", ".codes.npy.json.00000000"}
    for name in left | {"checkpoint.pt", ".lock", ".notes.txt", "codes.npy.json"}:
        (tmp_path / name).touch()
    assert {file.name for file in leftovers(tmp_path)} == left


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_one_holds_a_lock_at_a_time(kind, tmp_path):
    path = tmp_path / ".lock" if kind == "file" else tmp_path
    first, second = Lock(path), Lock(path)
    assert first.take() and not second.take()
    if kind == "file":
        assert second.holder().startswith(f"process {os.getpid()} on ")
    first.release()
    assert second.take()


def test_a_lock_is_free_when_its_holder_was_killed(tmp_path):
    code = (
        "import pathlib, sys, ral_env.files as files\n"
        f"lock = files.Lock(pathlib.Path({str(tmp_path / '.lock')!r}))\n"
        "print(lock.take(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    lock = Lock(tmp_path / ".lock")
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "True\n"
        assert not lock.take() and f"process {child.pid} " in lock.holder()
        child.kill()
    deadline = time.monotonic() + 10
    while not lock.take():
        assert time.monotonic() < deadline
