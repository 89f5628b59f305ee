"""What web servers answer wrongly, and two downloads at once: what is kept is what was asked for."""

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import pytest
from running import ckpt
from safetensors.torch import load

import ckpt_tool
from ckpt_tool.errors import InputError
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.formats.remote.access import Access
from ckpt_tool.formats.remote.web.address import Address
from ckpt_tool.formats.remote.web.download import download
from tests.remote.conftest import pth, safetensors
from tests.remote.server import Reply


def at_once(*calls):
    """What each gives or raises, the second begun shortly after the first."""
    found = [None] * len(calls)

    def run(at):
        try:
            found[at] = calls[at]()
        except InputError as error:
            found[at] = error

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(calls))]
    for thread in threads:
        thread.start()
        time.sleep(0.15)
    for thread in threads:
        thread.join()
    return found


def test_two_addresses_of_one_name_at_once_get_each_its_own(server, cache):
    contents = [safetensors(), safetensors(seed=1)]
    urls = [server.put(f"/{at}/m.safetensors", c, delay=0.5) for at, c in enumerate(contents)]
    paths = at_once(*[lambda url=url: download(Address(url), Access()) for url in urls])
    assert [Path(path).read_bytes() for path in paths] == contents


def test_who_waited_checks_the_digest_too(server, cache):
    url = server.put("/m.safetensors", safetensors(), delay=0.5)
    wrong = Access(sha256=("0" * 64,))
    first, second = at_once(
        lambda: download(Address(url), Access()), lambda: download(Address(url), wrong)
    )
    assert os.path.exists(first)
    assert "its SHA-256 is" in str(second)


def test_a_download_that_is_shorter_than_was_said_is_refused(server, cache):
    content = safetensors()

    def reply(handler):
        if handler.headers.get("Range"):
            return Reply(content, etag=False)
        return Reply(content[:-100], etag=False, chunked=True)

    server.replies["/a.safetensors"] = reply
    with (
        open_checkpoint(f"{server.address}/a.safetensors") as opened,
        pytest.raises(InputError, match="the connection ended after"),
    ):
        opened.read("layers.0.attention.weight")
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("odd", "fact"),
    [
        ({"status": 204}, "its server sends no file (204)"),
        ({"content": b"", "ranges": False}, "is empty (zero bytes)"),
        (
            {"content": b'<?xml version="1.0"?><html/>' * 90, "ranges": False},
            "is a web page",
        ),
        (
            {
                "content": pth()[:100],
                "status": 206,
                "headers": {"Content-Range": "bytes 0-99/*"},
            },
            "",
        ),
    ],
)
def test_what_is_no_file_is_not_kept(server, cache, odd, fact):
    url = server.put("/a.pth", **odd)
    ran = ckpt("show", url)
    assert (ran.status, ran.out) == (2, "")
    assert url in ran.err
    assert fact in ran.err
    assert not (cache / "a.pth").exists()


def test_a_part_where_all_was_asked_for_is_refused(server, cache):
    content = pth()

    def reply(handler):
        if handler.headers.get("Range"):
            return Reply(content, ranges=True)
        size = len(content)
        return Reply(content[50:], 206, headers={"Content-Range": f"bytes 50-{size - 1}/{size}"})

    server.replies["/a.pth"] = reply
    ran = ckpt("show", "--checksum", f"{server.address}/a.pth")
    assert (ran.status, ran.out) == (2, "")
    assert "sends a part of the file, where all of it was asked for" in ran.err
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "1e300", "0"])
def test_waits_that_are_none_are_refused(server, cache, monkeypatch, seconds):
    monkeypatch.setenv("CKPT_TIMEOUT", seconds)
    ran = ckpt("show", server.put("/a.pth", pth()))
    assert (ran.status, "is not a number of seconds to wait" in ran.err) == (2, True)


def test_odd_addresses_are_plain_errors_and_others_are_escaped(server, cache):
    server.put("/m%C3%BC.pth", pth())
    assert ckpt("show", f"{server.address}/mü.pth").status == 0
    for url in ("http://a..b/a.pth", f"http://{'a' * 64}.b/a.pth"):
        ran = ckpt("show", url)
        assert (ran.status, "internal error" in ran.err) == (2, False)


def test_an_error_in_json_is_not_kept(server, cache):
    url = server.put("/a.safetensors", b'{"error":"not found"}', ranges=False)
    ran = ckpt("map", url, "-e", "** -> **", "-o", "out.safetensors")
    assert ran.status == 2
    assert f"{url}: its server sends an error, not a file: {{" in ran.err
    assert not list(cache.glob("*a.safetensors*"))


def test_what_is_called_as_on_the_hub_is_answered_with_its_address():
    assert "hf://timm/resnet50.a1_in1k" in ckpt("show", "timm/resnet50.a1_in1k").err


def test_no_message_has_a_password():
    for address in ("hf://me:s3cret@o/n/a.pth", "http:/me:s3cret@host/a.pth"):
        ran = ckpt("show", address, "--offline")
        assert ran.status == 2
        assert "s3cret" not in ran.err + ran.out
    ran = ckpt("map", "a.pth", "b.pth", "--rules", "http://me:s3cret@host/r.yaml", "-o", "c.pth")
    assert "s3cret" not in ran.err + ran.out


def test_digits_that_count_are_no_digest():
    from ckpt_tool.formats.remote.web.torch_cache import digest_in

    names = ["resnet50-0676ba61.pth", "a-12345678.pth", "model-12345678.pth", "shard-00000001.pth", "a-20240131.pth", "b-00012345.pth"]
    assert [digest_in(name) for name in names] == ["0676ba61", "12345678", "", "", "", ""]


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_a_damaged_download_is_not_kept(server, cache, tmp_path):
    content = pth(tensors=400)
    url = server.put("/a.pth", flipped(content, len(content) // 2), ranges=False)
    ran = ckpt("map", url, "-e", "** -> **", "-o", "out.pth", cwd=tmp_path)
    assert ran.status == 2
    assert f"{url}: byte " in ran.err
    assert "its bytes don't match their checksum" in ran.err
    assert "nothing was kept" in ran.err
    assert list(cache.iterdir()) == []
    assert not (tmp_path / "out.pth").exists()
    server.put("/a.pth", content)
    assert ckpt("map", url, "-e", "** -> **", "-o", "out.pth", cwd=tmp_path).status == 0


@pytest.mark.parametrize("content", [pth(), safetensors(), pth(_use_new_zipfile_serialization=False)])
def test_a_body_without_a_length_that_is_cut_is_not_kept(server, cache, content):
    url = server.put("/a.pth", content[:-5000], ranges=False, endless=True)
    ran = ckpt("show", url)
    assert (ran.status, ran.out) == (2, "")
    assert f"{url}: " in ran.err
    assert "nothing was kept" in ran.err
    assert list(cache.iterdir()) == []
    server.put("/a.pth", content, ranges=False, endless=True)
    assert ckpt("show", url).status == 0


def test_a_broken_file_of_the_cache_is_named_with_its_address(server, cache):
    content = safetensors()
    url = server.put("/a.safetensors", content)
    cache.mkdir(parents=True)
    (cache / "a.safetensors").write_bytes(content[:-100])
    ran = ckpt("show", url)
    assert (ran.status, ran.out) == (2, "")
    assert f"{url}: is cut off" in ran.err
    assert f"{cache / 'a.safetensors'} is from an earlier download; --refresh asks for it again" in ran.err
    with pytest.raises(InputError, match=r"ckpt_tool\.addresses\(refresh=True\) asks for it again"):
        ckpt_tool.open(url)
    assert ckpt("show", url, "--refresh").status == 0


def test_a_broken_shard_of_the_cache_is_named_with_its_address(server, cache):
    index = {"weight_map": dict.fromkeys(load(safetensors()), "a.safetensors")}
    url = server.put("/model.safetensors.index.json", json.dumps(index).encode())
    cache.mkdir(parents=True)
    (cache / "a.safetensors").write_bytes(b"Rate limit exceeded")
    ran = ckpt("show", url)
    assert (ran.status, ran.out) == (2, "")
    assert f"{server.address}/a.safetensors: is " in ran.err
    assert "--refresh asks for it again" in ran.err


def test_a_file_with_its_digest_stays_whatever_it_is(server, cache):
    text = b"no checkpoint at all, but long enough to be one"
    name = f"a-{hashlib.sha256(text).hexdigest()[:8]}.pth"
    ran = ckpt("show", server.put(f"/{name}", text, ranges=False))
    assert (ran.status, "is a text file" in ran.err) == (2, True)
    assert (cache / name).exists()


SECRET = "Basic bWU6c2VjcmV0"


def with_login(address, login="me:secret"):
    return address.replace("://", f"://{login}@")


def test_a_redirect_on_the_same_server_keeps_the_login(server, cache):
    server.put("/a.pth", status=302, location="/b.pth", password=SECRET)
    server.put("/b.pth", pth(), password=SECRET)
    assert ckpt("show", with_login(f"{server.address}/a.pth")).status == 0


def test_a_login_in_a_redirect_goes_to_its_own_host(server, cache):
    server.put("/a.pth", status=302, location=with_login(f"{server.address}/b.pth"))
    server.put("/b.pth", pth(), password=SECRET)
    ran = ckpt("show", f"{server.address}/a.pth")
    assert (ran.status, "secret" in ran.out + ran.err) == (0, False)


def test_a_proxys_password_is_not_sent_to_where_a_redirect_leads(server, cache, monkeypatch):
    from tests.remote.server import serving

    with serving() as other:
        other.put("/b.pth", pth())
        place = f"{other.address.replace('127.0.0.1', 'localhost')}/b.pth"
        server.replies["http://example.invalid/a.pth"] = Reply(status=302, location=place)
        monkeypatch.setenv("http_proxy", with_login(server.address))
        monkeypatch.setenv("no_proxy", "localhost")
        assert ckpt("show", "http://example.invalid/a.pth").status == 0
    assert server.asked[0].headers["Proxy-Authorization"] == SECRET
    assert other.asked
    assert not any("authorization" in name.lower() for one in other.asked for name in one.headers)


@pytest.mark.parametrize(
    ("odd", "fact"),
    [
        ({"status": 300}, "its server sends no file (300)"),
        ({"status": 304}, "its server sends no file (304)"),
        ({"status": 302}, "its server sends no file, but a redirect that leads nowhere (302)"),
        ({"status": 302, "location": "http://[::1"}, "leads to http://[::1, which is not an address"),
        ({"status": 302, "location": "http://h:x/"}, "leads to http://h:x/, which has the port `x`"),
        ({"status": 302, "location": "data:,x"}, "leads to data:,x, which is not a web address"),
    ],
)
def test_redirects_that_lead_nowhere_are_named(server, cache, odd, fact):
    url = server.put("/a.pth", **odd)
    ran = ckpt("show", url)
    assert (ran.status, ran.out) == (2, "")
    assert f"{url}: {fact}" in ran.err


@pytest.mark.parametrize(
    ("address", "fact"),
    [
        ("http://127.0.0.1:99999/a.pth", "has the port `99999`, which is not a number from 1 to 65535"),
        ("http://127.0.0.1:abc/a.pth", "has the port `abc`"),
        ("http://ho st/a.pth", "names no host: `ho st` can't be one"),
        ("http://127.0.0.1/a\tb.pth", "has a tab, a line break or another control character in it"),
        ("http://[::1/a.pth", "is not an address: Invalid IPv6 URL"),
        ("http:///a.pth", "names no host"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(cache, address, fact):
    ran = ckpt("show", address)
    assert (ran.status, fact in ran.err) == (2, True), ran.err


def test_a_blank_in_an_address_is_escaped(server, cache):
    server.put("/a%20b.pth", pth())
    assert ckpt("show", f"{server.address}/a b.pth").status == 0


def test_servers_that_hang_up_or_speak_no_https_are_named(server, cache):
    ran = ckpt("show", server.put("/a.pth", is_silent=True))
    assert "its server has closed the connection without an answer" in ran.err
    ran = ckpt("show", f"{server.address.replace('http', 'https')}/a.pth")
    assert "its server doesn't speak https at this port" in ran.err
    assert f"is {server.address}/a.pth meant?" in ran.err


@pytest.mark.parametrize(
    ("proxy", "fact"),
    [
        ("socks5://127.0.0.1:1080", "can't be asked by way of a socks5:// proxy"),
        ("http://me:s3cret@127.0.0.1:9", "its proxy, 127.0.0.1:9, can't be used: connection refused"),
        ("http://127.0.0.1:abc", "is the proxy's address right?"),
    ],
)
def test_proxies_that_cant_be_asked_are_named(cache, monkeypatch, proxy, fact):
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    ran = ckpt("show", "http://example.invalid/a.pth")
    assert (ran.status, fact in ran.err, "s3cret" in ran.err) == (2, True, False), ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "http://me:s3cret@h/a", "http://me:s3cret@h/b"),
        ("http://me:s3cret@h/a",),
        ("map", "--by=http://me:s3cret@h/a"),
        ("map", "--by", "http://me:s3cret@h/a"),
        ("show", "http://me:s3/cret@h/a"),
        ("show", "http://me:s3?cret@h/a"),
        ("show", "http://me:s3#cret@h/a"),
        ("show", "http://me:s3@cret@h:1/a"),
    ],
)
def test_what_cant_be_understood_is_answered_without_passwords(cache, arguments):
    ran = ckpt(*arguments)
    assert ran.status == 2
    assert "s3" not in ran.err
    assert "cret" not in ran.err


def test_a_wrong_digest_says_who_asked_for_it(server, cache):
    url = server.put("/a.safetensors", safetensors())
    assert "as --sha256 has it" in ckpt("show", url, "--sha256", "0" * 64).err
    with pytest.raises(InputError, match="as `sha256` has it"):
        ckpt_tool.open(url, sha256="0" * 64)
    with pytest.raises(InputError, match=r"without ckpt_tool.addresses\(offline=True\)"):
        ckpt_tool.open(url, offline=True)


def test_values_of_a_broken_file_of_the_cache_are_refused_with_its_address(server, cache, tmp_path):
    content = pth(tensors=20, rows=20_000)
    url = server.put("/a.pth", content)
    cache.mkdir(parents=True)
    (cache / "a.pth").write_bytes(flipped(content, len(content) // 2))
    ran = ckpt("map", url, "-e", "** -> **", "-o", "out.safetensors", cwd=tmp_path)
    assert ran.status == 2
    assert f"{url}: byte " in ran.err
    assert "its bytes don't match their checksum" in ran.err
    assert "--refresh asks for it again" in ran.err


def test_a_query_is_sent_as_it_is(server, cache):
    server.put("/a.pth", pth())
    assert ckpt("show", f"{server.address}/a.pth?from=ftp://me:s3cret@h/x").status == 0
    assert server.asked[0].path == "/a.pth?from=ftp://me:s3cret@h/x"


def test_bytes_of_the_cache_that_have_changed_are_noticed_and_mended(server, cache):
    content = safetensors()
    url, digest = server.put("/rot.safetensors", content), hashlib.sha256(content).hexdigest()
    path = cache / "rot.safetensors"
    assert ckpt("show", url, "--sha256", digest).status == 0
    status = path.stat()
    raw = bytearray(content)
    raw[-5] ^= 1
    with path.open("r+b") as file:  # as a disk does it: nothing else tells
        file.write(raw)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    ran = ckpt("show", url, "--sha256", digest)
    assert (ran.status, "its SHA-256 is" in ran.err) == (2, True)
    assert ckpt("show", url, "--sha256", digest, "--refresh").status == 0
    assert path.read_bytes() == content
