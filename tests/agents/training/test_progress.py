"""A bar on a terminal, and in a log no more than a line a minute."""

import io

from agents.training.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def drawn(stream, steps=500):
    with progress_bar(steps, "prior", "step", stream=stream) as bar:
        for step in range(steps):
            bar.update()
            bar.tell(f"loss {step}")
    return stream.getvalue()


def test_a_log_holds_lines_and_few_of_them():
    log = drawn(io.StringIO())
    assert "\r" not in log and len(log.splitlines()) == 2, "the first state and the last one"
    assert log.splitlines()[-1].startswith("prior 500/500 [") and log.isascii()


def test_a_terminal_shows_a_bar_that_is_drawn_over():
    shown = drawn(Terminal())
    assert shown.count("\r") >= 2 and "500/500" in shown


def test_a_bar_without_a_name_is_not_shown():
    stream = io.StringIO()
    with progress_bar(3, "", "step", stream=stream) as bar:
        bar.update()
        bar.tell("loss 1")
    assert not stream.getvalue()
