"""Signals stop what goes on at a good moment, a second one at once; ignored ones stay ignored."""

import signal
import threading

import pytest

from agents.training.processes import Processes
from agents.training.signals import ASKING, StopSignals, telling_of_stops

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("heeded_signals")]


@pytest.mark.parametrize("number", ASKING)
def test_the_first_signal_is_noted_and_the_handlers_are_put_back(number):
    before = {each: signal.getsignal(each) for each in ASKING}
    with StopSignals() as signals:
        assert not signals.came(Processes())
        signal.raise_signal(number)
        assert signals.came(Processes()) and signals.received == number
        assert {each: signal.getsignal(each) for each in ASKING} == before, "a second acts at once"
    assert {each: signal.getsignal(each) for each in ASKING} == before


def test_a_second_ctrl_c_stops_at_once():
    with StopSignals():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", ASKING)
def test_a_signal_that_was_ignored_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.raise_signal(number)
            assert signals.received is None
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", ASKING)
def test_a_command_ends_with_the_conventional_status_and_one_line(number, capsys):
    with pytest.raises(SystemExit) as end, telling_of_stops("all is kept"):
        signal.raise_signal(number)
    assert end.value.code == 128 + number
    assert capsys.readouterr().out == f"stopped by {signal.Signals(number).name}: all is kept\n"


def test_other_ends_of_a_command_are_left_as_they_are(capsys):
    with pytest.raises(SystemExit) as end, telling_of_stops("all is kept"):
        raise SystemExit(2)
    assert end.value.code == 2 and not capsys.readouterr().out


def test_outside_the_main_thread_nothing_happens():
    found = []

    def work():
        with StopSignals() as signals:
            found.append(signals.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]
