"""A local endpoint that speaks the hub's protocol, as far as huggingface_hub and ckpt ask for it."""

import hashlib
import json
import re

from tests.remote.server import Reply

COMMITS = re.compile(r"[0-9a-f]{40}")
LARGE = 10_000
"""Files from this size on are large ones: they have a SHA-256, and are served from another address."""


class Hub:
    """Repositories by name and revision on a `Server`; `token` is what private and gated ones need."""

    def __init__(self, server, storage=None):
        self.server, self.storage = server, storage or server
        self.repositories, self.token, self.home = {}, "", None
        server.replies = _Routes(self)

    def put(self, repository, files, revision="main", **odd):
        commit = hashlib.sha1(
            f"{repository}{revision}{sorted((name, hashlib.md5(data).digest()) for name, data in files.items())}".encode()
        ).hexdigest()
        self.repositories.setdefault(repository, {})[revision] = (commit, files, odd)
        return commit

    def find(self, repository, revision):
        revisions = self.repositories.get(repository, {})
        for name, (commit, files, odd) in revisions.items():
            if revision in (name, commit):
                return commit, files, odd
        return None


def _coded(status, code, message):
    reply = Reply(json.dumps({"error": message}).encode(), status, kind="application/json")
    reply.headers = {"X-Error-Code": code, "X-Error-Message": message}
    return reply


class _Routes(dict):
    def __init__(self, hub):
        super().__init__()
        self.hub = hub

    def get(self, path, default=None):
        return super().get(path) or self._route(path)

    def _route(self, path):
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^?]+)(?:\?.*)?", path):
            return self._guarded(found[1], found[2], self._info)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/?]+)(?:\?.*)?", path):
            return self._guarded(found[1], "main", self._info)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)(?:\?.*)?", path):
            return self._guarded(
                found[1],
                found[2],
                lambda repository, commit, files, odd: self._file(
                    repository, commit, files, odd, found[3]
                ),
            )
        return None

    def _guarded(self, repository, revision, answer):
        hub, revision = self.hub, revision.replace("%2F", "/")

        def reply(handler):
            is_known = (
                not hub.token or handler.headers.get("Authorization") == f"Bearer {hub.token}"
            )
            odd = next(iter(hub.repositories.get(repository, {}).values()), (0, 0, {}))[2]
            if repository not in hub.repositories or (odd.get("private") and not is_known):
                return _coded(401, "RepoNotFound", "Repository Not Found")
            found = hub.find(repository, revision)
            if found is None:
                return _coded(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return answer(repository, *found)

        return reply

    def _info(self, repository, commit, files, odd):
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
            | (
                {
                    "lfs": {
                        "sha256": hashlib.sha256(data).hexdigest(),
                        "size": len(data),
                        "pointerSize": 130,
                    }
                }
                if len(data) >= LARGE
                else {}
            )
            for name, data in files.items()
        ]
        return Reply(
            json.dumps(
                {
                    "id": repository,
                    "modelId": repository,
                    "sha": commit,
                    "siblings": siblings,
                    "tags": [],
                    "private": False,
                    "downloads": 0,
                }
            ).encode(),
            kind="application/json",
        )

    def _file(self, repository, commit, files, odd, name):
        if odd.get("gated"):
            return _coded(403, "GatedRepo", "Access to this model is restricted")
        data = files.get(name)
        if data is None:
            return _coded(404, "EntryNotFound", "Entry not found")
        large = len(data) >= LARGE
        reply = Reply(data)
        reply.headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not large:
            return reply
        digest = hashlib.sha256(data).hexdigest()
        self.hub.storage.replies[f"/storage/{digest}"] = Reply(data)
        moved = Reply(b"", 302, location=f"{self.hub.storage.address}/storage/{digest}")
        moved.headers = reply.headers | {
            "X-Linked-Size": str(len(data)),
            "X-Linked-Etag": f'"{digest}"',
        }
        return moved
