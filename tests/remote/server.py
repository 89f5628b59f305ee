"""A real web server on this machine, which can do what servers do wrong; it counts what it is asked."""

import contextlib
import hashlib
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    """What a path answers: its bytes, and what is odd about it."""

    content: bytes = b""
    status: int = 200
    ranges: bool = True
    etag: bool = True
    kind: str = "application/octet-stream"
    location: str = ""
    cut_after: int = -1
    """The connection ends after so many bytes of the body."""
    cuts: int = -1
    """How often it does; -1 is always."""
    delay: float = 0.0
    announced: int = 0
    """Bytes more than there are that Content-Length says."""
    shifted: int = 0
    """Bytes by which Content-Range is wrong."""
    password: str = ""
    chunked: bool = False
    is_silent: bool = False
    """The connection is closed without an answer."""
    endless: bool = False
    """No length is told: the connection's end is that of the body, as in HTTP/1.0."""
    headers: dict = field(default_factory=dict)


@dataclass
class Asked:
    method: str
    path: str
    range: str
    headers: dict = field(default_factory=dict)
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        asked = Asked(self.command, self.path, self.headers.get("Range", ""), dict(self.headers))
        with self.server.lock:
            self.server.asked.append(asked)
        time.sleep(self.server.delay)
        reply = self.server.replies.get(self.path) or self.server.replies.get(
            self.path.partition("?")[0]
        )
        if callable(reply):
            reply = reply(self)
        if reply is None:
            reply = Reply(b"not here", 404)
        time.sleep(reply.delay)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send(reply, asked)

    def send(self, reply, asked):
        if reply.is_silent:
            self.close_connection = True
            return
        if reply.password and self.headers.get("Authorization") != reply.password:
            reply = Reply(b"who are you?", 401)
        content, status, extra = reply.content, reply.status, {}
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        current = self.headers.get("If-Range", tag) == tag
        if status == 200 and wanted and reply.ranges and current:
            first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            if first >= len(content):
                status, extra, content = 416, {"Content-Range": f"bytes */{len(content)}"}, b""
            else:
                status = 206
                extra = {
                    "Content-Range": f"bytes {first + reply.shifted}-{last + reply.shifted}/{len(content)}"
                }
                content = content[first : last + 1]
        self.send_response(status)
        if reply.location:
            self.send_header("Location", reply.location)
        if reply.etag and status < 300:
            self.send_header("ETag", tag)
        for name, value in (extra | reply.headers).items():
            self.send_header(name, value)
        self.send_header("Content-Type", reply.kind)
        if reply.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif reply.endless:
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(content) + reply.announced))
        self.end_headers()
        if self.command == "HEAD":
            return
        is_cut = 0 <= reply.cut_after < len(content) and reply.cuts != 0
        if is_cut:
            reply.cuts -= 1
            content = content[: reply.cut_after]
        asked.sent = len(content)
        self.wfile.write(
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content) if reply.chunked else content
        )
        if is_cut or reply.announced:
            self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies, self.asked, self.delay, self.lock = {}, [], 0.0, threading.Lock()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, path, content=b"", **odd):
        self.replies[path] = Reply(content, **odd)
        return f"{self.address}{path}"

    def forget(self):
        self.asked.clear()

    @property
    def sent(self):
        return sum(one.sent for one in self.asked)


@contextlib.contextmanager
def serving():
    server = Server()
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
