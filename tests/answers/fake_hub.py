"""A hub on this machine that speaks as much of Hugging Face's protocol as pushing and loading a run needs."""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

TOKENS = {"hf_anna": "anna", "hf_bert": "bert"}  # and whose they are
NAME = r"(?P<repo>[\w.-]+/[\w.-]+?)"
Files = dict[str, bytes]


@dataclass
class Repository:
    """What a repository holds: by commit its files, by branch its commit, and what was said of each commit."""

    owner: str
    private: bool
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: Files, message: str) -> str:
        content = repr((branch, sorted(files.items()), message, self.branches))
        digest = hashlib.sha1(content.encode()).hexdigest()
        self.commits[digest], self.branches[branch] = files, digest
        self.messages.append(message)
        return digest


class RefusedError(Exception):
    """A request that is answered with an error."""


class Hub(ThreadingHTTPServer):
    """`repositories` are what was pushed, `large` names files that go by LFS, `refuse` is the answer to all
    requests below `below`, `wait` how many seconds it takes; `asked` and `received` are requests and their contents.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.large: set[str] = set()
        self.objects: Files = {}  # of LFS
        self.sizes: dict[str, int] = {}  # that are claimed
        self.refuse: tuple[int, str] | None = None
        self.below = "/"
        self.wait = 0.0
        self.asked: list[str] = []
        self.received: list[bytes] = []

    def files(self, repo: str, branch: str = "main") -> Files:
        """Return what stands in a branch, but for what the hub itself puts into a new repository."""
        found = self.repositories[repo]
        files = found.commits[found.branches[branch]]
        return {name: content for name, content in files.items() if name != ".gitattributes"}


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._do()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        self.server.received.append(body)
        time.sleep(self.server.wait)
        try:
            if self.server.refuse is not None and path.startswith(self.server.below):
                raise RefusedError(*self.server.refuse)
            for method, pattern, answer in ROUTES:
                found = re.fullmatch(pattern, path)
                if found and self.command in method:
                    self._send(200, *answer(self, body, **found.groupdict()))
                    return
            raise RefusedError(404, "Not Found")
        except RefusedError as refused:
            status, said, *code = refused.args
            headers = {"X-Error-Code": code[0], "X-Error-Message": said} if code else {}
            self._send(status, said.encode(), headers | {"Content-Type": "text/plain"})

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with suppress(BrokenPipeError):  # nobody waits any more
                self.wfile.write(content)

    @property
    def user(self) -> str | None:
        """Who asks; nobody without a token."""
        said = self.headers.get("Authorization")
        if said is not None and said.removeprefix("Bearer ") not in TOKENS:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return None if said is None else TOKENS[said.removeprefix("Bearer ")]

    def repository(self, repo: str, *, written: bool = False) -> Repository:
        user, found = self.user, self.server.repositories.get(repo)
        if found is None or (found.private and user != found.owner):
            raise RefusedError(404, "Repository not found", "RepoNotFound")
        if written and user != found.owner:
            raise RefusedError(403, f"{user} may not write to {repo}")
        return found

    def commit_of(self, repo: str, revision: str | None) -> str:
        found = self.repository(repo)
        revision = found.branches.get(revision or "main", revision or "")
        if revision not in found.commits:
            raise RefusedError(404, "Invalid rev id", "RevisionNotFound")
        return revision

    def whoami(self, _: bytes) -> tuple[Any]:
        if self.user is None:
            raise RefusedError(401, "Invalid username or password.")
        return ({"name": self.user, "type": "user"},)

    def create(self, body: bytes) -> tuple[Any]:
        said = json.loads(body)
        if self.user is None:
            raise RefusedError(401, "Invalid username or password.")
        owner = said.get("organization") or self.user
        if owner != self.user:
            raise RefusedError(403, f"{self.user} may not create in {owner}")
        repo = f"{owner}/{said['name']}"
        private = said.get("private") or said.get("visibility") == "private"
        self.server.repositories[repo] = Repository(owner, bool(private))
        self.server.repositories[repo].commit("main", {".gitattributes": b""}, "initial commit")
        return ({"url": f"{self.server.endpoint}/{repo}"},)

    def branch(self, _: bytes, repo: str, branch: str) -> tuple[Any]:
        found = self.repository(repo, written=True)
        if branch.startswith("refs/"):
            raise RefusedError(400, "Invalid reference for a branch")
        if branch in found.branches:
            raise RefusedError(409, "Reference already exists")
        found.branches[branch] = found.branches["main"]
        return ({},)

    def info(self, _: bytes, repo: str, revision: str | None = None) -> tuple[Any]:
        commit = self.commit_of(repo, revision)
        found = self.repository(repo)
        siblings = [
            {"rfilename": name} | ({"size": self.size(name, content)} if "blobs" in self.query else {})
            for name, content in found.commits[commit].items()
        ]
        return ({"_id": "0", "id": repo, "sha": commit, "private": found.private, "siblings": siblings},)

    def size(self, name: str, content: bytes) -> int:
        return self.server.sizes.get(name, len(content))

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    def preupload(self, body: bytes, repo: str, revision: str) -> tuple[Any]:
        self.repository(repo, written=True)
        there = self.repository(repo).commits[self.commit_of(repo, revision)]
        files = [
            {
                "path": name,
                "uploadMode": "lfs" if name in self.server.large else "regular",
                "shouldIgnore": False,
                "oid": blob(there[name]) if name in there and name not in self.server.large else None,
            }
            for name in (file["path"] for file in json.loads(body)["files"])
        ]
        return ({"files": files},)

    def batch(self, body: bytes, repo: str) -> tuple[Any]:
        self.repository(repo, written=True)
        objects = [
            one | {"actions": {"upload": {"href": f"{self.server.endpoint}/objects/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        return ({"objects": objects, "transfer": "basic"},)

    def put(self, body: bytes, oid: str) -> tuple[Any]:
        self.server.objects[oid] = body
        return ({},)

    def commit(self, body: bytes, repo: str, revision: str) -> tuple[Any]:
        found = self.repository(repo, written=True)
        files = dict(found.commits[self.commit_of(repo, revision)])
        message = ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                self.server.received.append(files[value["path"]])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            else:
                assert line["key"] == "deletedFile"
                del files[value["path"]]
        digest = found.commit(revision, files, message)
        return ({"commitOid": digest, "commitUrl": f"{self.server.endpoint}/{repo}/commit/{digest}"},)

    def tree(self, _: bytes, repo: str, revision: str) -> tuple[Any]:
        files = self.repository(repo).commits[self.commit_of(repo, revision)]
        return (
            [
                {"type": "file", "path": name, "size": self.size(name, content), "oid": blob(content)}
                for name, content in files.items()
            ],
        )

    def resolve(self, _: bytes, repo: str, revision: str, name: str) -> tuple[bytes, dict[str, str]]:
        commit = self.commit_of(repo, revision)
        files = self.repository(repo).commits[commit]
        if name not in files:
            raise RefusedError(404, "Entry not found", "EntryNotFound")
        return files[name], {"ETag": f'"{blob(files[name])}"', "X-Repo-Commit": commit}


def blob(content: bytes) -> str:
    """Return git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


MODELS = f"/api/models/{NAME}"
ROUTES: list[tuple[tuple[str, ...], str, Any]] = [
    (("GET",), "/api/whoami-v2", _Handler.whoami),
    (("POST",), "/api/repos/create", _Handler.create),
    (("POST",), "/api/validate-yaml", lambda *_: ({"warnings": [{"message": "no licence link"}]},)),
    (("POST",), rf"{MODELS}/branch/(?P<branch>.+)", _Handler.branch),
    (("POST",), rf"{MODELS}/preupload/(?P<revision>.+)", _Handler.preupload),
    (("POST",), rf"{MODELS}/commit/(?P<revision>.+)", _Handler.commit),
    (("GET",), rf"{MODELS}/tree/(?P<revision>.+)", _Handler.tree),
    (("GET",), rf"{MODELS}/revision/(?P<revision>.+)", _Handler.info),
    (("GET",), MODELS, _Handler.info),
    (("POST",), rf"/{NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (("PUT",), r"/objects/(?P<oid>\w+)", _Handler.put),
    (("GET", "HEAD"), rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", _Handler.resolve),
]


@contextmanager
def served(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve a hub that anna is logged in to, and keep the library's cache in a folder, in this process and others.

    The library reads its environment once, when it is imported; what it then goes by is replaced as well.
    """
    from huggingface_hub import close_session, constants

    hub = Hub()
    for name, value in {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(folder),
        "HF_TOKEN": "hf_anna",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        patch.setenv(name, value)
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        patch.delenv(name, raising=False)
    for name, known in {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(folder),
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_TOKEN_PATH": str(folder / "token"),
        "HF_STORED_TOKENS_PATH": str(folder / "stored_tokens"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_PROGRESS_BARS": None,
    }.items():
        patch.setattr(constants, name, known, raising=False)  # earlier releases lack some
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        close_session()
        hub.shutdown()
        thread.join()
        hub.server_close()
