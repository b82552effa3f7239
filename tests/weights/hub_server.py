"""A server on loopback that speaks the Hub's protocol, with a second origin for large files as the Hub's CDN is."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    hub: "Hub"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed are part of the tests."""


class Hub:
    """Repositories in memory.

    Attributes:
        damage: What happens to the bytes of a large file on their way, if anything.
        damage_small: The same for a small one.
        stall_at: Bytes of a large file after which the CDN falls silent, if any.
        stalled: Set when it has.
        gate: Large files wait for it.
        mute: Take connections and never answer.
        status: Answer everything with this status, if any.
        requests: Method, path and Range header of every request.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.damage: Callable[[bytes], bytes] | None = None
        self.damage_small: Callable[[bytes], bytes] | None = None
        self.stall_at: int | None = None
        self.stalled, self.resume, self.gate = threading.Event(), threading.Event(), threading.Event()
        self.gate.set()
        self.mute, self.status = False, 0
        self.ports = {"hub": 0, "cdn": 0}
        self.servers: list[_Server] = []
        self.up()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['hub']}"

    def up(self) -> None:
        """Listen, on the ports of the first time."""
        for name, handler in (("hub", _HubHandler), ("cdn", _CdnHandler)):
            server = _Server(("127.0.0.1", self.ports[name]), handler)
            server.hub = self
            self.ports[name] = server.server_address[1]
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            self.servers.append(server)

    def down(self) -> None:
        """Refuse connections."""
        self.resume.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()
        self.servers.clear()

    def heal(self) -> None:
        """Be a good server again, of which nothing was asked yet."""
        self.resume.set()
        self.gate.set()
        self.damage = self.damage_small = self.stall_at = None
        self.mute, self.status = False, 0
        self.stalled, self.resume = threading.Event(), threading.Event()
        self.requests.clear()
        if not self.servers:
            self.up()

    def add(self, repo: str, files: dict[str, bytes]) -> str:
        """Commit files to the main branch."""
        commits = self.repos.setdefault(repo, {})
        digest = hashlib.sha1(repr([repo, len(commits), sorted(files)]).encode())
        for content in files.values():
            digest.update(content)
            self.blobs[hashlib.sha256(content).hexdigest()] = content
        commits[digest.hexdigest()] = commits["main"] = files
        return digest.hexdigest()

    def asked(self, text: str) -> list[str]:
        """Methods of the requests whose path has this in it."""
        return [method for method, path, _ in self.requests if text in path]


def large(path: str) -> bool:
    """Whether the Hub would store a file with LFS."""
    return path.endswith((".safetensors", ".bin", ".png"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *args: Any) -> None:
        pass

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def reply(self, status: int, body: bytes = b"", **headers: str | int) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def note(self) -> bytes:
        self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        if self.hub.mute:
            self.hub.resume.wait(600)  # longer than a test waits
            self.close_connection = True
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))


class _HubHandler(_Handler):
    def do_HEAD(self) -> None:
        self.note()
        if self.hub.status:
            return self.reply(self.hub.status)
        try:
            repo, _, rest = self.path[1:].partition("/resolve/")
            revision, _, path = rest.partition("/")
        except ValueError:
            return self.reply(404)
        if repo not in self.hub.repos:
            return self.reply(404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        commits = self.hub.repos[repo]
        if revision not in commits:
            return self.reply(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        commit = next(name for name, files in commits.items() if files is commits[revision] and name != "main")
        if path not in commits[revision]:
            return self.reply(
                404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found", X_Repo_Commit=commit
            )
        content = commits[revision][path]
        if large(path):
            oid = hashlib.sha256(content).hexdigest()
            return self.reply(
                302, Location=f"http://127.0.0.1:{self.hub.ports['cdn']}/{oid}", X_Repo_Commit=commit,
                X_Linked_Etag=f'"{oid}"', X_Linked_Size=len(content), ETag='"pointer"',
            )  # fmt: skip
        etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if self.hub.damage_small:
            content = self.hub.damage_small(content)
        return self.reply(200, content, X_Repo_Commit=commit, ETag=f'"{etag}"')

    def do_GET(self) -> None:
        if not self.path.startswith("/api/models/"):
            return self.do_HEAD()
        self.note()
        return self.json({"id": "someone/model", "xetEnabled": False})

    def do_POST(self) -> None:
        body = self.note()
        if not self.headers.get("Authorization"):
            return self.reply(401, X_Error_Message="Invalid username or password.")
        if self.path.endswith("/repos/create"):
            asked = json.loads(body)
            return self.json({"url": f"{self.hub.endpoint}/{asked['organization']}/{asked['name']}"})
        if self.path.endswith("/validate-yaml"):
            return self.json({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "lfs" if large(p) else "regular", "shouldIgnore": False} for p in paths]
            return self.json({"files": modes})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**o, "actions": {"upload": {"href": f"http://127.0.0.1:{self.hub.ports['cdn']}/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self.json({"transfer": "basic", "objects": objects})
        repo = self.path.removeprefix("/api/models/").partition("/commit/")[0]
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        commit = self.hub.add(repo, files)
        return self.json({"commitOid": commit, "commitUrl": f"{self.hub.endpoint}/{repo}/commit/{commit}"})

    def json(self, content: Any) -> None:
        self.reply(200, json.dumps(content).encode(), Content_Type="application/json")


class _CdnHandler(_Handler):
    def do_GET(self) -> None:
        self.note()
        self.hub.gate.wait(60)
        content = self.hub.blobs[self.path[1:]]
        if self.hub.damage:
            content = self.hub.damage(content)
        start, asked, size = 0, self.headers.get("Range"), len(content)
        headers: dict[str, str | int] = {}
        if asked:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            headers = {"Content_Range": f"bytes {start}-{size - 1}/{size}"}
        body, stop = content[start:], self.hub.stall_at
        if stop is None:
            return self.reply(206 if asked else 200, body, **headers)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:stop])
        self.wfile.flush()
        self.hub.stalled.set()
        self.hub.resume.wait(60)
        self.close_connection = True
        return None

    def do_PUT(self) -> None:
        content = self.note()
        self.hub.blobs[hashlib.sha256(content).hexdigest()] = content
        self.reply(200)
