"""``ral view``: serve the page, and open it."""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
import webbrowser
from inspect import signature
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from ral_env import bundle as bundles
from ral_env import film
from ral_env.ranges import THREADS, check_values
from ral_env.tasks import expect_ours
from ral_env.viewer.sources import Library

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def command(
    env: str = "RALFaces32-v0",
    bundle: str | None = None,
    run: str | None = None,
    folder: str = "runs",
    host: str = "127.0.0.1",
    port: int = 8321,
    browser: Literal["auto", "none"] = "auto",
    threads: int = 1,
) -> None:
    """Watch, complete, compare and play on a page in the browser; Ctrl-C ends it.

    With `--window` priors paint in a window instead: `ral view --window --help`.

    Args:
        env: Id of the environment that the page opens with.
        bundle: Name or path of a bundle that it opens with instead.
        run: Folder of a run that it opens with instead.
        folder: Folder whose runs and bundles, at any of three depths, the page offers; it opens no
            others.
        host: Address that is listened at. At another than the default, other machines can see the
            page and open what it offers.
        port: Port that is listened at; 0 takes a free one.
        browser: Whether to open the page in the browser: auto, where there is one, or none.
        threads: Number of torch's threads; small nets want one.
    """
    import torch
    import uvicorn

    from ral_env.viewer.server import app

    expect_ours(env)
    check_values(locals(), port="[0, 65535]", threads=THREADS)
    torch.set_num_threads(threads)
    chosen = run or bundle or env
    if bundle:
        bundles.find(bundle)  # says what else there is
    library = Library(Path(folder), [path for path in (run, bundle) if path])
    opened = library.open(chosen)  # what cannot be opened is said here, and the page need not wait
    with listening(host, port) as listener:
        at = listener.getsockname()[1]
        open_to_others = not _is_loopback(host)
        shown = f"[{host}]" if ":" in host else host
        name = "127.0.0.1" if host in ("0.0.0.0", "::") else shown
        address = f"http://{name}:{at}/#source={quote(chosen, safe='')}"
        print(f"{address}\n{opened.bundle.dataset}; Ctrl-C ends it", flush=True)
        if open_to_others:
            print(
                f"ral: warning: {host} can be reached from other machines: whoever sees them can "
                f"open the runs and bundles below {folder!r}, and keep this processor busy",
                file=sys.stderr,
            )
        if browser == "auto":
            threading.Timer(0.5, webbrowser.open, [address]).start()
        hosts = ["*"] if open_to_others else [*LOOPBACK, "[::1]"]
        server = uvicorn.Server(
            uvicorn.Config(app(library, hosts), log_level="warning", timeout_graceful_shutdown=2)
        )
        server.run([listener])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        ValueError: if it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ValueError(
            f"host={host!r}, port={port} cannot be listened at ({error.strerror or error}): choose "
            "another with --port, 0 takes a free one"
        ) from error
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main(argv: list[str] | None = None) -> None:
    """``ral view``; ``argv`` None takes the arguments of the process."""
    from jsonargparse import auto_cli

    argv = sys.argv[1:] if argv is None else argv
    if "--window" in argv:
        film.window([word for word in argv if word != "--window"])
        return
    of_window = {*signature(film.watch).parameters} - {*signature(command).parameters}
    for option in (word.partition("=")[0] for word in argv):
        if option.removeprefix("--") in of_window:
            raise ValueError(f"{option} is for the window: `ral view --window {' '.join(argv)}`")
    auto_cli(command, args=argv, prog="ral view", as_positional=False)


if __name__ == "__main__":
    main()
