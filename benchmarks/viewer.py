"""How soon the viewer's page shows a picture, and how fast it paints.

    ral bench viewer

Headless Chromium opens what a fresh `ral view` serves. Beside the page's own clock stand processor
seconds, of the server and of all the browser's processes together: what they need on a core that
they have for themselves, also where others keep it busy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from ral_env.ranges import COUNT, check_values
from ral_env.tables import markdown_table
from ral_env.tasks import TASKS

GOAL_SECONDS = 1.5  # from the beginning of the page's load to its first picture
GOAL_CODES = 30  # a second, of an image of PAINTED pixels a side
PAINTED = 32
FASTEST = 120  # codes a second, which the page's slider ends at
PATIENCE = 600_000  # milliseconds

# Tells of the first picture, and of each step that is drawn, with seconds of the page's clock. To
# look for them over and over would itself keep the browser busy.
CLOCK = """
new MutationObserver((changes) => {
  for (const { target, attributeName } of changes) {
    const name = attributeName === "data-painted" ? "painted" : target.dataset.drawn;
    console.debug(name, performance.now() / 1000);
  }
}).observe(document, {
  subtree: true, attributes: true, attributeFilter: ["data-painted", "data-drawn"],
});
"""


def chromium() -> str | None:
    """The path of a Chromium: ``$CHROMIUM``, or one that is installed; None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def processor_seconds(without: Sequence[str] = ("node",)) -> float:
    """What the processes that this one has started have used so far, and those that they started.

    Args:
        without: names of those that are not counted, such as playwright's own.
    """
    found: dict[int, tuple[str, int, float]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = file.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue  # it has ended
        fields = rest.split()
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        found[int(file.parent.name)] = name, int(fields[1]), used

    def is_ours(pid: int) -> bool:
        parent = found[pid][1] if pid in found else 0
        return parent == os.getpid() or (parent > 1 and is_ours(parent))

    return sum(
        used for pid, (name, _, used) in found.items() if name not in without and is_ours(pid)
    )


@contextmanager
def served(env: str) -> Iterator[str]:
    """The address of a page that a fresh process serves."""
    words = ["view", "--env", env, "--port", "0", "--browser", "none"]
    command = [sys.executable, "-W", "ignore", "-m", "ral_env", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def visit(browser: Any, address: str, codes: int) -> dict[str, float]:
    """Open the page, and have ``codes`` codes painted as fast as it can, none for 0.

    Returns:
        ``seconds`` and ``processor`` up to the first picture; ``codes`` painted a second, and a
        second of the ``painter``: of the processor, from the first picture on.
    """
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.add_init_script(CLOCK)

    def after(act: Callable[[], Any], name: str) -> float:
        """The page's clock when it tells of ``name`` for the first time after an act."""
        with page.expect_console_message(lambda told: told.text.split()[0] == name) as told:
            act()
        return float(told.value.text.split()[1])

    before = processor_seconds()
    seconds = after(lambda: page.goto(f"{address}&speed={FASTEST}"), "painted")
    opened = processor_seconds()
    found = {"seconds": seconds, "processor": opened - before}
    if codes:
        after(page.get_by_role("button", name="To the start").click, "0")
        begun = page.evaluate("performance.now() / 1000")
        ended = after(page.get_by_role("button", name="Play").click, str(codes))
        found["codes"] = codes / (ended - begun)
        found["painter"] = codes / (processor_seconds() - opened)
    context.close()
    return found


def viewer(envs: Sequence[str], rounds: int) -> list[dict[str, str]]:
    """A row for each id: medians over ``rounds`` visits of a page that a fresh process serves."""
    from playwright.sync_api import sync_playwright

    rows = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for env in envs:
            task = TASKS[env]
            paints = task.image_size == PAINTED
            codes = sum(h * w for h, w in task.levels) if paints else 0
            with served(env) as address:
                visits = [visit(browser, address, codes) for _ in range(rounds)]
            middle = {name: median(one[name] for one in visits) for name in visits[0]}
            row = {
                "page": env,
                "first picture, s": f"{middle['seconds']:.2f}",
                "processor s": f"{middle['processor']:.2f}",
                "of the first visit": f"{visits[0]['processor']:.2f}",
                "goal, s": str(GOAL_SECONDS),
            }
            if paints:
                row["codes/s"] = f"{middle['codes']:.0f}"
                row["codes a processor s"] = f"{middle['painter']:.0f}"
                row["goal, codes/s"] = str(GOAL_CODES)
            rows.append(row)
        browser.close()
    return rows


def command(envs: Sequence[str] = tuple(TASKS), rounds: int = 5) -> None:
    """Measure how soon the viewer's page shows a picture, and how fast it paints. Needs Linux.

    Args:
        envs: Ids of the environments whose pages are opened; those of 32 pixels are painted, too.
        rounds: Number of visits to each page; figures are their medians.
    """
    check_values(locals(), rounds=COUNT)
    if chromium() is None:
        raise ValueError("no Chromium was found: install one, or name it by CHROMIUM=PATH")
    if unknown := [id for id in envs if id not in TASKS]:
        raise ValueError(f"envs={unknown}, expected ids that `ral envs` lists")
    rows = viewer(envs, rounds)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"Medians of {rounds} visits; load of the machine at the end: {load}\n")
    print(markdown_table(rows, list(dict.fromkeys(name for row in rows for name in row))))


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments of ``ral bench viewer`` and run it."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral bench viewer", as_positional=False)


if __name__ == "__main__":
    main()
