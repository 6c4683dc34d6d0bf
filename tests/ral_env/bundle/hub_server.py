"""A small Hugging Face Hub on loopback: what huggingface_hub asks for, and faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_owner"


class Hub(ThreadingHTTPServer):
    """Repositories in memory: a commit's files by its name, and commits by branch or tag.

    Attributes:
        commits: by repository and commit, files by name.
        revisions: by repository, the commit of each branch and tag.
        private: repositories that want :data:`TOKEN`.
        asked: (method, path) of all requests for files, and of all that write.
        ranges: of the requests that want the rest of a file.
        cut: file names whose next download ends in the middle.
        lfs: contents by SHA-256.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.revisions: dict[str, dict[str, str]] = {}
        self.private: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.ranges: list[str] = []
        self.cut: list[str] = []
        self.lfs: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, repository: str, files: dict[str, bytes], *revisions: str) -> str:
        """Add a commit, to which these branches or tags lead."""
        text = repository.encode() + b"".join(k.encode() + v for k, v in sorted(files.items()))
        commit = hashlib.sha1(text).hexdigest()
        self.commits.setdefault(repository, {})[commit] = files
        self.revisions.setdefault(repository, {}).update(dict.fromkeys(revisions, commit))
        return commit


class Handler(BaseHTTPRequestHandler):
    """The routes."""

    server: Hub  # type: ignore[assignment]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._resolve()

    def do_GET(self) -> None:
        self._resolve()

    def _resolve(self) -> None:
        """``/OWNER/NAME/resolve/REVISION/FILE``, and nothing else."""
        if "/resolve/" not in self.path:
            return self._error(404, "")
        self.server.asked.append((self.command, self.path))
        owner, name, _, revision, file = self.path.strip("/").split("/", 4)
        repository = f"{owner}/{name}"
        if repository not in self.server.commits:
            return self._error(401, "RepoNotFound")
        if repository in self.server.private and not self._is_owner():
            return self._error(401, "RepoNotFound")
        commit = self.server.revisions[repository].get(revision, revision)
        if commit not in self.server.commits[repository]:
            return self._error(404, "RevisionNotFound")
        if file not in self.server.commits[repository][commit]:
            return self._error(404, "EntryNotFound")
        body = self.server.commits[repository][commit][file]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}
        status = 200
        if wanted := self.headers.get("Range"):
            self.server.ranges.append(wanted)
            first = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
            status, body = 206, body[first:]
        if self.command == "GET" and file in self.server.cut:
            self.server.cut.remove(file)
            self._answer(status, body, headers, sent=len(body) // 2)
            self.close_connection = True
        else:
            self._answer(status, body, headers)

    def do_POST(self) -> None:
        self.server.asked.append((self.command, self.path))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._is_owner():
            return self._error(401, "")
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            asked = json.loads(body)
            repository = f"{asked.get('organization') or 'owner'}/{asked['name']}"
            self.server.commits.setdefault(repository, {})
            self.server.revisions.setdefault(repository, {})
            return self._json({"url": f"{self.server.url}/{repository}"})
        if path == "/api/validate-yaml":  # of a card
            return self._json({"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.server.url}/lfs/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        assert "/commit/" in path, path
        _, _, _, owner, name, _, branch = path.split("/", 6)
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.lfs[value["oid"]]
        commit = self.server.commit(f"{owner}/{name}", files, branch)
        url = f"{self.server.url}/{owner}/{name}/commit/{commit}"
        return self._json({"commitUrl": url, "commitOid": commit})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.lfs[hashlib.sha256(body).hexdigest()] = body
        self._answer(200, b"", {})

    def _is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str) -> None:
        self._answer(status, b"{}", {"X-Error-Code": code})

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str], sent: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub that answers until the end of the context."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()
