"""The page's server: what it serves, what it refuses, and that it holds nothing of a tab."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ral_env import cli

uvicorn = pytest.importorskip("uvicorn", reason="the extra viewer is not installed")

from ral_env.viewer import command, server, sources  # noqa: E402
from ral_env.viewer.server import PAGE, app  # noqa: E402
from ral_env.viewer.sources import Library  # noqa: E402

JSON = "application/json"


@pytest.fixture(scope="module")
def served(tiny: Path) -> Iterator[tuple[str, Library]]:
    """The address of a server that offers a tiny bundle, and what it opens."""
    library = Library(tiny.parent)
    listener = command.listening("127.0.0.1", 0)
    config = uvicorn.Config(app(library, ["127.0.0.1"]), log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", library
    server.should_exit = True
    thread.join()
    listener.close()


def send(url: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
    """Status, headers and body of an answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, named)) as found:
            return found.status, found.headers, found.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def ask(served: Any, question: str, **given: Any) -> tuple[int, Any, bytes]:
    body = json.dumps(given).encode()
    return send(f"{served[0]}/ask/{question}", body, Content_Type=JSON)


def test_every_file_of_the_page_is_served_and_asks_for_nothing_elsewhere(served):
    files = sorted(file for file in PAGE.iterdir() if not file.name.startswith("."))
    assert {"index.html", "style.css", "main.js"} <= {file.name for file in files}
    for file in files:
        status, headers, body = send(f"{served[0]}/{file.name}")
        assert status == 200 and body == file.read_bytes()
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        # A namespace is a name; nobody asks for it.
        text = re.sub(r"(?m)//\s.*$", "", file.read_text(encoding="utf-8"))  # without comments
        addresses = re.findall(r"(?:https?:)?//[\w.]+", text)
        assert set(addresses) <= {"http://www.w3.org"}, file
    assert send(f"{served[0]}/")[2] == (PAGE / "index.html").read_bytes()
    assert send(f"{served[0]}/nothing.js")[0] == 404


def test_questions_are_answered_as_json_or_files(served, tiny):
    status, headers, body = ask(served, "painting", source=str(tiny), policy="mle", seed=3)
    assert status == 200 and headers["Content-Type"] == "application/json"
    codes = json.loads(body)["codes"]
    for question, given, kind in (
        ("picture", codes, "image/png"),
        ("gif", codes, "image/gif"),
        ("npy", [codes], "application/octet-stream"),
    ):
        status, headers, _ = ask(served, question, source=str(tiny), codes=given)
        assert status == 200 and headers["Content-Type"] == kind


def test_two_tabs_with_one_seed_see_one_picture(served, tiny):
    question = {"source": str(tiny), "policy": "mle", "seed": 8}
    first = ask(served, "painting", **question)[2]
    ask(served, "painting", **(question | {"seed": 9}))  # whatever others ask in between
    assert ask(served, "painting", **question)[2] == first


def test_a_bad_question_gets_words(served, tiny):
    for body, kind, message in (
        (b'{"source": "x"}', "application/json", "neither an id"),
        (b"{", "application/json", "is no JSON"),
        (b"[]", "application/json", "a question is a JSON object"),
        (b"{}", "text/plain", "a question of type 'text/plain'"),
    ):
        status, _, said = send(f"{served[0]}/ask/source", body, Content_Type=kind)
        assert status == 400 and message in json.loads(said)["error"]
    address = f"{served[0]}/ask/complete?source={json.dumps(str(tiny))}&name=%22cat.png%22"
    status, _, said = send(address, b"none", Content_Type="application/octet-stream")
    assert status == 400 and json.loads(said)["error"].startswith("cat.png cannot be read")


def test_what_is_too_large_is_refused(served, monkeypatch):
    monkeypatch.setattr("ral_env.viewer.server.MOST_BYTES", 2**20)
    status, _, said = send(
        f"{served[0]}/ask/source", b" " * (2**20 + 1), Content_Type="application/json"
    )
    assert status == 400 and "more than 1 MB" in json.loads(said)["error"]


def test_another_sites_name_for_this_machine_is_refused(served):
    assert send(served[0], Host="evil.example")[0] == 400
    assert send(f"{served[0]}/ask/sources", b"{}", Host="evil.example")[0] == 400


def test_the_server_keeps_a_few_sources_and_nothing_of_questions(served, tiny, monkeypatch):
    monkeypatch.setattr(sources, "KEPT", 2)
    _, library = served
    for name in ("digits", "oracle", "faces32", str(tiny)):
        assert ask(served, "source", source=name)[0] == 200
    assert [source.name for source in library._open.values()] == ["faces32", str(tiny)]
    before = {name: len(vars(source)) for name, source in library._open.items()}
    for seed in range(5):
        ask(served, "painting", source=str(tiny), policy="mle", seed=seed)
    assert {name: len(vars(source)) for name, source in library._open.items()} == before


def test_what_a_closed_tab_has_asked_for_is_not_computed(served, monkeypatch):
    begun, may_end = threading.Event(), threading.Event()
    computed = []

    def slow(library: Library, question: str, arguments: Any) -> dict[str, Any]:
        computed.append(arguments["source"])
        begun.set()
        may_end.wait()
        return {}

    monkeypatch.setattr(server, "answer", slow)
    others = [
        threading.Thread(target=ask, args=(served, "source"), kwargs={"source": name})
        for name in ("first", "last")
    ]
    others[0].start()
    begun.wait()
    closed = http.client.HTTPConnection(served[0].removeprefix("http://"))
    closed.request("POST", "/ask/source", b'{"source": "closed"}', {"Content-Type": JSON})
    closed.close()
    send(served[0])  # by when the server has seen both
    others[1].start()
    may_end.set()
    for other in others:
        other.join()
    assert computed == ["first", "last"]


def test_the_command_says_where_it_listens_and_warns_of_others(tiny, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: ran.append(sockets))
    words = ["view", "--bundle", str(tiny), "--browser", "none", "--port", "0"]
    assert cli.main(words) == 0
    told = capsys.readouterr()
    assert re.match(r"http://127\.0\.0\.1:\d+/#source=\S+tiny\n", told.out)
    assert "noise; Ctrl-C ends it" in told.out and not told.err
    assert cli.main([*words, "--host", "0.0.0.0"]) == 0
    told = capsys.readouterr()
    assert "warning: 0.0.0.0 can be reached from other machines" in told.err
    assert told.out.startswith("http://127.0.0.1:") and len(ran) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "70000"], "port=70000, expected a number in [0, 65535]"),
        (["--bundle", "digit"], "'digit'"),
        (["--run", "nowhere"], "'nowhere'"),
        (["--threads", "0"], "threads=0"),
        (["--overlay=scores"], "for the window: `ral view --window --browser none --overlay=scor"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_anything_is_served(words, message, capsys):
    assert cli.main(["view", "--browser", "none", *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ral: error: ") and error.count("\n") == 1 and message in error


def test_a_port_that_is_taken_is_named(tiny, capsys):
    with command.listening("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        words = ["view", "--bundle", str(tiny), "--browser", "none", "--port", port]
        assert cli.main(words) == 1
    assert f"port={port} cannot be listened at" in capsys.readouterr().err
