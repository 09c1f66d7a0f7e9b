"""A server on this machine that answers as Civitai's and Hugging Face's do, faults included."""

import gzip
import hashlib
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


def lora_bytes(*, filler: int = 4096) -> bytes:
    """A small LoRA file of one module, with metadata."""
    tensors, at = {"__metadata__": {"ss_output_name": "shrek", "ss_clip_skip": "2"}}, 0
    names = {"lora_down.weight": (1, 128), "lora_up.weight": (512, 1), "alpha": ()}
    for end, shape in names.items():
        size = 4 * (shape[0] * shape[1] if shape else 1)
        tensors[f"lora_te_text_model_encoder_layers_0_mlp_fc1.{end}"] = {
            "dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size],
        }  # fmt: skip
        at += size
    header = json.dumps(tensors).encode()
    header += b" " * (filler - len(header) % 8)
    return struct.pack("<Q", len(header)) + header + struct.pack("<f", 0.5) * (at // 4)


@dataclass
class StandIn:
    """What the server has and how it misbehaves; tests change it."""

    content: bytes = field(default_factory=lora_bytes)
    version: dict[str, object] = field(default_factory=dict)
    statuses: list[tuple[int, dict[str, str], dict[str, object]]] = field(default_factory=list)
    """Answers to downloads before the file is given: status, headers, JSON."""
    api_statuses: list[tuple[int, dict[str, str], dict[str, object]]] = field(default_factory=list)
    page_instead: bool = False
    cut_at: int | None = None
    redirect: str = ""
    by_hash: str = ""
    """A hash that it takes the file to have."""
    chunked: bool = False
    """Whether the file comes in chunks, without its length."""
    gzipped: bool = False
    """Whether it comes compressed, although nobody asked for that."""
    wrong_range: bool = False
    """Whether a request for the rest is answered with another piece."""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        digest = hashlib.sha256(self.content).hexdigest()
        self.version = {
            "id": 19565, "modelId": 16615, "name": "v1.0", "baseModel": "SD 1.5", "status": "Published",
            "trainedWords": ["shrek", "ogre, green skin"],
            "description": "<p>Use <b>clip skip 2</b></p>",
            "model": {"name": "Shrek", "type": "LORA", "nsfw": False, "poi": False},
            "files": [{
                "id": 7, "name": "shrek.safetensors", "type": "Model", "primary": True, "sizeKB": len(self.content) / 1024,
                "pickleScanResult": "Success", "virusScanResult": "Success",
                "hashes": {"SHA256": digest.upper(), "AutoV2": digest[:10].upper()},
            }],
            "images": [{"meta": {"Clip skip": "2"}}, {"meta": {"clipSkip": 2}}, {"meta": None}],
        }  # fmt: skip

    @property
    def file(self) -> dict[str, object]:
        """The version's file, to be changed by tests."""
        return self.version["files"][0]  # type: ignore[index,no-any-return]

    @property
    def downloads(self) -> list[dict[str, str]]:
        """Headers of the requests for the file's bytes."""
        return [headers for path, headers in self.requests if path.startswith("/signed")]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: StandIn

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        state, parts = self.state, urlsplit(self.path)
        state.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        path = parts.path
        if path.startswith("/api/v1/") and state.api_statuses:
            return self._json(*state.api_statuses.pop(0))
        if path == "/api/v1/models/16615":
            version = {name: value for name, value in state.version.items() if name not in ("model", "modelId")}
            model = dict(state.version["model"])  # type: ignore[call-overload]
            return self._json(200, {}, {"id": 16615, **model, "modelVersions": [version]})
        if path == "/api/v1/model-versions/19565":
            return self._json(200, {}, state.version)
        if path.startswith("/api/v1/model-versions/by-hash/"):
            digits = path.rpartition("/")[2].lower()
            digest = hashlib.sha256(state.content).hexdigest()
            if digest.startswith(digits) or digits == state.by_hash:
                return self._json(200, {}, state.version)
        if path == "/circle":
            return self._redirect(f"{state.url}/circle")
        if path == "/api/download/models/19565":
            if state.statuses:
                return self._json(*state.statuses.pop(0))
            asked = parse_qs(parts.query).get("fileId", ["7"])[0]
            return self._redirect(state.redirect or f"{state.url}/signed/{asked}?X-Amz-Expires=86400")
        if path.startswith("/signed"):
            return self._content()
        if path.startswith("/hub/"):
            return self._hub(path.removeprefix("/hub"))
        return self._json(404, {}, {"error": "Model not found"})

    def _hub(self, path: str) -> None:
        """The two calls that huggingface_hub makes: the list of files, and the file."""
        state = self.state
        if state.api_statuses:
            return self._json(*state.api_statuses.pop(0))
        if path.startswith("/api/models/owner/repo/tree/main"):
            rows = [
                {"type": "file", "path": name, "size": 1, "oid": "a" * 40}
                for name in ("README.md", "shrek.safetensors")
            ]
            return self._body(200, {"content-type": "application/json"}, json.dumps(rows).encode())
        if path.startswith("/api/models/owner/repo"):
            siblings = [{"rfilename": name} for name in ("README.md", "shrek.safetensors")]
            return self._json(200, {}, {"id": "owner/repo", "sha": "c" * 40, "siblings": siblings})
        if path.startswith("/api/models/owner/old"):
            return self._redirect(f"{state.url}/hub{self.path.removeprefix('/hub').replace('owner/old', 'owner/repo')}")
        if path.startswith("/owner/old/"):
            return self._redirect(path.replace("/owner/old/", "/hub/owner/repo/"))
        if unquote(path) in (
            "/owner/repo/resolve/main/shrek.safetensors",
            "/owner/repo/resolve/refs/pr/3/shrek.safetensors",
        ):
            digest = hashlib.sha256(state.content).hexdigest()
            return self._content({"x-repo-commit": "c" * 40, "etag": f'"{digest}"'})
        repo = {} if path.startswith("/owner/repo/") else {"x-error-code": "RepoNotFound"}
        return self._json(404, repo or {"x-error-code": "EntryNotFound"}, {"error": "not found"})

    def _content(self, headers: dict[str, str] | None = None) -> None:
        state, start = self.state, 0
        if state.page_instead:
            return self._body(200, {"content-type": "text/html; charset=utf-8"}, b"<!doctype html>" + b" " * 5000)
        span = self.headers.get("range", "")
        if span.startswith("bytes="):
            start = int(span.removeprefix("bytes=").partition("-")[0])
        body = state.content[start:]
        if start >= len(state.content):
            return self._body(416, {"content-range": f"bytes */{len(state.content)}"}, b"")
        if state.chunked or state.gzipped:
            return self._encoded(state.content)
        if start and state.wrong_range:
            start, body = start + 7, body[7:]
        head = {"content-type": "application/octet-stream", "content-length": str(len(body)), **(headers or {})}
        if start:
            head["content-range"] = f"bytes {start}-{len(state.content) - 1}/{len(state.content)}"
        if state.cut_at is not None:
            body, state.cut_at = body[: state.cut_at], None
            self.close_connection = True
        return self._body(206 if start else 200, head, body)

    def _encoded(self, body: bytes) -> None:
        """Send the file compressed, or in chunks."""
        if self.state.gzipped:
            body = gzip.compress(body)
        self.send_response(200)
        self.send_header("content-type", "application/octet-stream")
        if self.state.gzipped:
            self.send_header("content-encoding", "gzip")
            self.send_header("content-length", str(len(body)))
        else:
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        cut, self.state.cut_at = self.state.cut_at, None
        if self.state.chunked:
            body = b"".join(
                b"%x\r\n%b\r\n" % (len(body[at : at + 1000]), body[at : at + 1000]) for at in range(0, len(body), 1000)
            )
            body += b"0\r\n\r\n"
        self.close_connection = cut is not None
        self.wfile.write(body[:cut])

    def _redirect(self, to: str) -> None:
        self._body(307, {"location": to}, b"")

    def _json(self, status: int, headers: dict[str, str], content: dict[str, object]) -> None:
        self._body(status, {"content-type": "application/json", **headers}, json.dumps(content).encode())

    def _body(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Quiet(ThreadingHTTPServer):
    """Clients that hang up are no news."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[StandIn]:
    """The server, for as long as a `with` lasts."""
    state = StandIn()
    handler = type("Bound", (Handler,), {"state": state})
    server = Quiet(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
