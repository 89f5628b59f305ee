"""Files on web servers: what is asked for, what is kept, and what is said when something goes wrong."""

import hashlib
import threading

import pytest
import torch
from running import ckpt, ckpt_process

import ckpt_tool
from ckpt_tool.errors import InputError
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.formats.remote.access import Access, accessing, remembering
from tests.remote.conftest import pth, safetensors, weights
from tests.remote.server import Reply

MANY = {"tensors": 2500, "rows": 8}
"""More tensors than the first guess of a header holds."""


@pytest.mark.parametrize(
    ("name", "content", "requests"),
    [
        ("few.safetensors", safetensors(), 1),
        ("many.safetensors", safetensors(**MANY), 2),
        ("few.pth", pth(), 2),
        ("many.pth", pth(**MANY), 3),
        ("old.pth", pth(**MANY, _use_new_zipfile_serialization=False), 3),
    ],
)
def test_a_header_costs_few_requests_and_values_one_download(
    server, cache, name, content, requests
):
    url = server.put(f"/{name}", content)
    with remembering(), open_checkpoint(url) as remote:
        assert len(server.asked) == requests
        tensors = 2500 if "many" in name or "old" in name else 40
        assert len(remote.catalog) == tensors
        with open_checkpoint(url) as again:
            assert again.catalog == remote.catalog
        assert len(server.asked) == requests
        keys = list(remote.catalog)[:: tensors // 10]
        expected = weights(**(MANY if tensors > 40 else {}))
        assert all(torch.equal(remote.read(key), expected[key]) for key in keys)
        assert len(server.asked) == requests + 1
    assert (cache / name).read_bytes() == content
    server.forget()
    with open_checkpoint(url) as cached:
        assert torch.equal(cached.read(keys[-1]), expected[keys[-1]])
    assert server.asked == []


def test_no_command_asks_twice_for_the_same(server, cache, tmp_path):
    a, b = (
        server.put("/a.safetensors", safetensors(**MANY)),
        server.put(
            "/b.pth", pth(content={f"model.{key}": value for key, value in weights(**MANY).items()})
        ),
    )
    for command in (
        ("show", a),
        ("diff", a, b),
        ("plan", a, b, "--partial"),
        ("plan", a, b),
        ("suggest", a, b, "-q"),
        ("mappings", a, b),
    ):
        server.forget()
        ran = ckpt(*command, cwd=tmp_path)
        assert ran.status < 2, ran.err
        assert len(server.asked) <= (5 if b in command else 2), (
            command,
            [one.range for one in server.asked],
        )
        assert server.sent < 2_500_000
    assert not cache.exists()


def test_map_downloads_once_and_writes_what_a_local_map_writes(server, cache, tmp_path):
    content = pth()
    (tmp_path / "local.pth").write_bytes(content)
    url = server.put("/run.pth", content)
    ran = ckpt(
        "map", url, "-e", "layers.** -> model.layers.**", "-o", "remote.safetensors", cwd=tmp_path
    )
    assert ran.status == 0, ran.err
    assert f"Downloading {url} to {cache / 'run.pth'}" in ran.err
    assert (
        ckpt(
            "map",
            "local.pth",
            "-e",
            "layers.** -> model.layers.**",
            "-o",
            "local.safetensors",
            cwd=tmp_path,
        ).status
        == 0
    )
    assert (tmp_path / "remote.safetensors").read_bytes() == (
        tmp_path / "local.safetensors"
    ).read_bytes()
    assert sum(not one.range for one in server.asked) == 1


def test_state_dicts_inside_of_a_remote_file_have_names(server, cache):
    url = server.put(
        "/run.pth", pth(content={"model": weights(), "ema": weights(seed=1), "epoch": 3})
    )
    with open_checkpoint(f"{url}#ema") as ema:
        assert torch.equal(
            ema.read("layers.3.attention.weight"), weights(seed=1)["layers.3.attention.weight"]
        )


def test_torchs_own_downloads_are_used(server, cache):
    url = server.put("/model.pth", pth())
    torch.hub.load_state_dict_from_url(url, model_dir=str(cache), progress=False)
    server.forget()
    ran = ckpt("show", url)
    assert (ran.status, server.asked) == (0, [])
    assert "nothing in it says its address" in ran.err
    other = server.put("/other/model.pth", pth(tensors=3))
    with open_checkpoint(other) as found:  # of the same name, and another file
        assert len(found.catalog) == 3
        found.read("layers.0.attention.weight")
    assert (cache / "model.pth").read_bytes() == pth()
    with open_checkpoint(url) as first:
        assert len(first.catalog) == 40
    assert len(server.asked) == 2


def named(content, stem="model", suffix=".pth", digits=8):
    return f"/{stem}-{hashlib.sha256(content).hexdigest()[:digits]}{suffix}"


def test_the_digest_of_a_name_is_checked_after_a_download_and_in_the_cache(server, cache):
    content = pth()
    good, wrong = server.put(named(content), content), server.put("/model-0123456a.pth", content)
    assert (
        ckpt(
            "map", good, "-e", "** -> **", "-o", "x.safetensors", cwd=cache.parent.parent.parent
        ).status
        == 0
    )
    ran = ckpt("show", "--checksum", wrong)
    assert ran.status == 2
    assert "its SHA-256 is " in ran.err
    assert "not 0123456a" in ran.err
    assert sorted(path.name for path in cache.iterdir() if not path.name.startswith(".")) == [
        named(content)[1:]
    ]
    (cache / "model-0123456a.pth").write_bytes(content)
    ran = ckpt("show", wrong)
    assert (ran.status, ran.out) == (2, "")
    assert f"{cache / 'model-0123456a.pth'}: its SHA-256 is" in ran.err


def test_digits_that_are_no_digest_are_none(server, cache):
    for name in (
        "model-00001-of-00002.pth",
        "llama-7b.pth",
        "vit-b.pth",
        "run-20240131.pth",
        "model-00010000.pth",
        "resnet-v2.pth",
    ):
        with open_checkpoint(server.put(f"/{name}", pth())) as opened:
            opened.read("layers.0.attention.weight")


def test_a_digest_that_was_asked_for_is_checked_before_anything_is_said(server, cache):
    content = safetensors()
    url, digest = server.put("/a.safetensors", content), hashlib.sha256(content).hexdigest()
    assert ckpt("show", url, "--sha256", digest).status == 0
    assert (cache / "a.safetensors").read_bytes() == content
    ran = ckpt("show", url, "--sha256", "0" * 64)
    assert (ran.status, ran.out) == (2, "")
    assert "--refresh downloads it again" in ran.err
    ran = ckpt("show", url, "--sha256", "0" * 64, "--refresh")  # the server has this very file
    assert (ran.status, "is the digest right?" in ran.err) == (2, True), ran.err
    ran = ckpt("show", server.put("/b.safetensors", content), "--sha256", "0" * 64)
    assert (ran.status, ran.out) == (2, "")
    assert not (cache / "b.safetensors").exists()
    assert "`abc` is no SHA-256" in ckpt("show", url, "--sha256", "abc").err


def test_what_to_type_is_not_taken_for_a_secret(server, cache):
    ran = ckpt("show", server.put("/secret.pth", pth(), status=401))
    assert (ran.status, "put NAME:PASSWORD@ before the host" in ran.err) == (2, True), ran.err


def test_a_stopped_download_goes_on_where_it_was(server, cache):
    content = safetensors(tensors=600)
    url = server.put("/a.safetensors", content, cut_after=1_500_000, cuts=1)
    ran = ckpt("show", "--checksum", url)
    assert ran.status == 2
    assert (
        f"{url}: the connection ended after 1,500,000 of {len(content):,} bytes; run it again: it goes on from there"
        in ran.err
    )
    assert not (cache / "a.safetensors").exists()
    server.forget()
    ran = ckpt("show", "--checksum", url)
    assert ran.out.startswith(hashlib.sha256(content).hexdigest())
    assert server.asked[-1].range == "bytes=1499999-"
    assert {path.name for path in cache.iterdir()} == {"a.safetensors", ".a.safetensors.ckpt-note"}


def test_a_stopped_download_of_a_file_that_was_changed_begins_anew(server, cache):
    url = server.put("/a.safetensors", safetensors(tensors=600), cut_after=1_500_000, cuts=1)
    assert ckpt("show", "--checksum", url).status == 2
    content = safetensors(tensors=600, seed=1)
    server.put("/a.safetensors", content)
    assert ckpt("show", "--checksum", url).out.startswith(hashlib.sha256(content).hexdigest())


def test_without_a_version_nothing_is_gone_on_with(server, cache):
    url = server.put("/a.safetensors", safetensors(tensors=600), cut_after=1_500_000, etag=False)
    ran = ckpt("show", "--checksum", url)
    assert ran.status == 2
    assert list(cache.iterdir()) == []


def test_a_server_without_ranges_is_reported_and_downloaded_from(server, cache):
    content = safetensors(**MANY)
    url = server.put("/a.safetensors", content, ranges=False)
    ran = ckpt("show", url)
    assert ran.status == 0
    assert f"note: {url}: its server doesn't support range requests; all of it is downloaded" in ran.err
    assert (len(server.asked), (cache / "a.safetensors").read_bytes()) == (1, content)


PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.mark.parametrize(
    ("odd", "fact"),
    [
        ({"content": PAGE, "kind": "text/html"}, "is a web page (HTML), not a file"),
        (
            {"content": PAGE, "kind": "text/html", "ranges": False},
            "is a web page (HTML), not a file",
        ),
        ({"status": 401}, "asks for a name and a password (401)"),
        ({"status": 403}, "may not be fetched (403, forbidden)"),
        ({"status": 404}, "is not there (404)"),
        ({"status": 503}, "its server fails (503)"),
        (
            {"status": 302, "location": "file:///etc/passwd"},
            "leads to file:///etc/passwd, which is not a web address",
        ),
        (
            {"status": 302, "location": "ftp://localhost/a"},
            "leads to ftp://localhost/a, which is not a web address",
        ),
        (
            {"status": 302, "location": "/odd.pth"},
            "leads from one address to the next without end (302)",
        ),
        ({"content": b""}, "is empty (zero bytes)"),
        (
            {"content": pth(), "shifted": 3},
            "its server sends the bytes 3 to 16386; 0 to 16383 were asked for",
        ),
        ({"content": pth(), "cut_after": 100}, "the connection ended after 100 of 16,384 bytes"),
        ({"content": pth(), "announced": 5}, "its server sends 16389 bytes as bytes 0-16383/"),
        ({"content": pth(), "announced": 5, "ranges": False}, "the connection ended after "),
        (
            {"content": pth(), "cut_after": 100, "ranges": False},
            "the connection ended after 100 of ",
        ),
        (
            {"content": b"no checkpoint at all, but long enough to be one"},
            "is a text file, not a checkpoint",
        ),
        (
            {"content": b"Rate limit exceeded, come back in an hour", "ranges": False},
            "is a text file, not a checkpoint: it begins `Rate limit exceeded, come back in an hour`",
        ),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(server, cache, odd, fact):
    url = server.put("/odd.pth", **odd)
    ran = ckpt("show", url)
    assert (ran.status, ran.out) == (2, "")
    assert fact in ran.err
    assert len([line for line in ran.err.splitlines() if line.startswith("error")]) == 1
    assert url in ran.err
    assert not (cache / "odd.pth").exists()


def test_a_server_that_changes_the_file_meanwhile_is_refused(server, cache):
    first, second = safetensors(**MANY), safetensors(**MANY, seed=1)
    answers = [first, second]
    server.replies["/a.safetensors"] = lambda handler: Reply(answers.pop(0))
    ran = ckpt("show", f"{server.address}/a.safetensors")
    assert (ran.status, "was changed while it was being read" in ran.err) == (2, True)


def test_a_server_that_never_answers_is_given_up(server, cache, monkeypatch):
    monkeypatch.setenv("CKPT_TIMEOUT", "0.2")
    ran = ckpt("show", server.put("/a.pth", pth(), delay=1))
    assert (ran.status, "has sent nothing for 0.2 seconds" in ran.err) == (2, True)


def test_hosts_that_are_not_there_are_named(cache):
    assert (
        "there is no host nowhere.invalid, or no network"
        in ckpt("show", "http://nowhere.invalid/a.pth").err
    )
    assert "can't be reached: connection refused" in ckpt("show", "http://127.0.0.1:9/a.pth").err


def test_a_password_goes_to_its_own_host_and_is_never_printed(server, cache, tmp_path):
    from tests.remote.server import serving

    with serving() as other:
        other.put("/storage/a.pth", pth())
        server.put(
            "/a.pth",
            status=302,
            location=f"{other.address}/storage/a.pth",
            password="Basic bWU6c2VjcmV0",
        )
        server.put("/b.pth", pth(), password="Basic bWU6c2VjcmV0")
        for name in ("a", "b"):
            url = f"{server.address.replace('://', '://me:secret@')}/{name}.pth"
            ran = ckpt("map", url, "-e", "** -> **", "-o", f"{name}.pth", "--force", cwd=tmp_path)
            assert ran.status == 0, ran.err
            assert "secret" not in ran.err + ran.out
        assert not any("Authorization" in one.headers for one in other.asked)
        ran = ckpt("show", f"{server.address.replace('://', '://me:wrong@')}/c.pth")
        assert "wrong" not in ran.err
        assert not any(
            "secret" in path.read_text(errors="replace")
            for path in cache.iterdir()
            if "note" in path.name
        )


def test_redirects_are_followed_and_ranges_with_them(server, cache):
    server.put("/real.safetensors", safetensors(**MANY))
    url = server.put("/a.safetensors", status=302, location="/real.safetensors")
    with open_checkpoint(url) as opened:
        assert len(opened.catalog) == 2500
    assert [one.path for one in server.asked] == ["/a.safetensors", "/real.safetensors"] * 2


def test_offline_asks_nobody(server, cache, monkeypatch):
    url = server.put("/a.safetensors", safetensors())
    ran = ckpt("show", url, "--offline")
    assert (ran.status, "is not in the cache" in ran.err, server.asked) == (2, True, [])
    assert ckpt("show", url, "--checksum").status == 0
    server.forget()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert (ckpt("show", url).status, server.asked) == (0, [])
    assert "--offline forbids" in ckpt("show", url, "--refresh").err


def test_refresh_asks_and_downloads_what_has_changed(server, cache):
    url = server.put("/a.safetensors", safetensors())
    assert ckpt("show", url, "--checksum").status == 0
    server.forget()
    assert ckpt("show", url, "--refresh").status == 0
    assert [bool(one.range) for one in server.asked] == [True]
    server.put("/a.safetensors", safetensors(tensors=7))
    assert "40 tensors" in ckpt("show", url).out
    assert "7 tensors" in ckpt("show", url, "--refresh").out
    assert "7 tensors" in ckpt("show", url).out


def test_an_index_finds_its_shards_beside_it(server, cache):
    import json

    parts = {
        f"model-0000{at}-of-00003.safetensors": weights(seed=at, tensors=5) for at in (1, 2, 3)
    }
    from safetensors.torch import save

    places = {}
    for at, (name, part) in enumerate(parts.items()):
        named = {f"part{at}.{key}": value for key, value in part.items()}
        server.put(f"/repo/{name}", save(named))
        places |= dict.fromkeys(named, name)
    url = server.put(
        "/repo/model.safetensors.index.json", json.dumps({"weight_map": places}).encode()
    )
    with open_checkpoint(url) as opened:
        assert len(opened.catalog) == 15
        assert len(server.asked) == 4
        key = "part1.layers.2.attention.weight"
        assert torch.equal(
            opened.read(key), parts["model-00002-of-00003.safetensors"]["layers.2.attention.weight"]
        )
    assert sum(not one.range for one in server.asked) == 1


def test_several_processes_download_once(server, cache):
    content = safetensors(tensors=2000)
    url = server.put("/a.safetensors", content, delay=0.3)
    found = []

    def work():
        with accessing(Access()), open_checkpoint(url) as opened:
            found.append(opened.checksums())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert sum(not one.range for one in server.asked) == 1
    assert (cache / "a.safetensors").read_bytes() == content


def test_outputs_are_files_here(server, cache, tmp_path):
    url = server.put("/a.safetensors", safetensors())
    for output in ("https://host/x.pth", "s3://bucket/x.safetensors", "hf://a/x"):
        ran = ckpt("map", url, "-e", "** -> **", "-o", output, cwd=tmp_path)
        assert (ran.status, "is an address, and outputs are files here" in ran.err) == (2, True)
    assert (
        "in place, a file here is renamed"
        in ckpt("map", url, "-e", "layers.** -> x.**", "--in-place").err
    )


def test_a_rule_file_asks_no_server(server, cache, tmp_path):
    url = server.put("/a.safetensors", safetensors())
    (tmp_path / "rules.yaml").write_text(f"source: {url}\nrules:\n  - layers.** -> x.**\n")
    ran = ckpt("plan", "--rules", "rules.yaml", cwd=tmp_path)
    assert (ran.status, "a rule file asks no server" in ran.err, server.asked) == (2, True, [])
    assert ckpt("plan", url, "--rules", "rules.yaml", cwd=tmp_path).status == 0


def test_the_library_opens_addresses_too(server, cache):
    content = safetensors()
    url = server.put("/a.safetensors", content)
    with ckpt_tool.open(url, sha256=hashlib.sha256(content).hexdigest()) as opened:
        assert torch.equal(
            opened["layers.0.attention.weight"].read(), weights()["layers.0.attention.weight"]
        )
    with ckpt_tool.open(url, offline=True) as opened:
        assert len(opened) == 40
    with pytest.raises(InputError, match="is not in the cache"):
        ckpt_tool.open(f"{url}x", offline=True)
    assert ckpt_tool.diff(url, weights()).identical


def test_progress_goes_to_a_terminal_alone(server, cache):
    ran = ckpt_process("show", "--checksum", server.put("/a.safetensors", safetensors()))
    assert ran.err.splitlines() == [
        f"Downloading {server.address}/a.safetensors to {cache / 'a.safetensors'}"
    ]
    assert (
        ckpt_process("show", "--checksum", "-q", server.put("/b.safetensors", safetensors())).err
        == ""
    )


def test_signed_addresses_are_known_again_and_not_written_down(server, cache):
    server.put("/a.pth", pth())
    first, second = (
        f"{server.address}/a.pth?id=3&X-Amz-Signature={each}&X-Amz-Date=1"
        for each in ("private1", "private2")
    )
    assert ckpt("show", "--checksum", first).status == 0
    server.forget()
    assert (ckpt("show", second).status, server.asked) == (0, [])
    assert not any(b"private" in path.read_bytes() for path in cache.iterdir())
    assert ckpt("show", second.replace("id=3", "id=4")).status == 0
    assert server.asked
