"""Repositories of the hub, through huggingface_hub itself, against an endpoint that speaks its protocol."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from running import Ran
from safetensors.torch import save

from ckpt_tool.errors import InputError
from ckpt_tool.formats.remote.hub.repository import Repository, parse
from tests.remote.conftest import pth, safetensors, weights
from tests.remote.hub import Hub
from tests.remote.server import Reply, serving

LLAMA = {"architectures": ["LlamaForCausalLM"], "hidden_size": 16}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("hf://a/x", Repository("model", "a/x", "", "")),
        ("hf://a/x/", Repository("model", "a/x", "", "")),
        ("hf://a/x/unet/model.bin", Repository("model", "a/x", "", "unet/model.bin")),
        ("hf://a/x@main", Repository("model", "a/x", "main", "")),
        ("hf://a/x@pr/3", Repository("model", "a/x", "refs/pr/3", "")),
        ("hf://a/x@pr/3/unet", Repository("model", "a/x", "refs/pr/3", "unet")),
        ("hf://a/x@refs/pr/3/unet/a.bin", Repository("model", "a/x", "refs/pr/3", "unet/a.bin")),
        ("hf://a/x@feature%2Fnew/unet", Repository("model", "a/x", "feature/new", "unet")),
        ("hf://a/x@v1.0/unet", Repository("model", "a/x", "v1.0", "unet")),
        ("hf://datasets/a/x/w.npz", Repository("dataset", "a/x", "", "w.npz")),
        ("hf://a/x/files@2/a.bin", Repository("model", "a/x", "", "files@2/a.bin")),
    ],
)
def test_addresses_name_a_repository_a_revision_and_a_path(address, expected):
    found = parse(address)
    assert found == expected
    assert parse(found.address(found.path)) == expected


@pytest.mark.parametrize("address", ["hf://", "hf://a", "hf://a/", "hf:///x", "hf://a/x@"])
def test_addresses_that_name_no_repository_are_refused(address):
    with pytest.raises(InputError, match="names no re"):
        parse(address)


def shards(count, seed=0, tensors=4):
    files, places = {}, {}
    for at in range(1, count + 1):
        name = f"model-{at:05}-of-{count:05}.safetensors"
        part = {f"part{at}.{key}": value for key, value in weights(tensors, seed + at).items()}
        files[name] = save(part)
        places |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    return files | {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "config.json": json.dumps(LLAMA).encode(),
    }


@pytest.fixture
def hub(server, tmp_path):
    with serving() as storage:
        one = Hub(server, storage)
        one.home = tmp_path / "hf"
        yield one


def ckpt(hub, *arguments, token="", cwd=None, offline="", script=""):
    """The command in a process whose huggingface_hub has this endpoint."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "CKPT_"))}
    env |= {
        "HF_ENDPOINT": hub.server.address,
        "HF_HOME": str(hub.home),
        "HF_HUB_OFFLINE": offline,
        "no_proxy": "*",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    env |= {"HF_TOKEN": token} if token else {}
    command = (
        [sys.executable, "-c", script]
        if script
        else [sys.executable, "-m", "ckpt_tool", *map(str, arguments)]
    )
    process = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    return Ran(process.returncode, process.stdout, process.stderr)


def is_agents(one):
    """Whether huggingface_hub asks this for itself."""
    return one.path.startswith("/api/agent-harnesses")


def asked(hub):
    return [one for one in (*hub.server.asked, *hub.storage.asked) if not is_agents(one)]


def test_two_sharded_repositories_are_compared_by_their_headers(hub):
    hub.put("a/x", shards(30))
    hub.put("a/x", shards(30, seed=50), "refs/pr/3")
    ran = ckpt(hub, "diff", "hf://a/x", "hf://a/x@pr/3")
    assert (ran.status, ran.err) == (0, "")
    assert "120 same" in ran.out
    # for each side one listing, an index (asked for and fetched), a header a shard (led elsewhere)
    assert len([one for one in hub.server.asked if not is_agents(one)]) <= 2 * (1 + 2 + 30)
    assert sum(one.sent for one in asked(hub)) < 2 * 30 * 20_000
    assert not any(
        "snapshots" in str(path) and path.suffix == ".safetensors" for path in hub.home.rglob("*")
    )


def test_values_are_downloaded_for_the_shards_that_are_needed(hub, tmp_path):
    hub.put("a/x", shards(5))
    ran = ckpt(
        hub,
        "map",
        "hf://a/x",
        "-e",
        "part2.** -> **",
        "--drop",
        "part{1,3,4,5}.**",
        "-o",
        "out.safetensors",
        cwd=tmp_path,
    )
    assert ran.status == 0, ran.err
    assert (tmp_path / "out.safetensors").read_bytes() == save(weights(4, 2)) or ckpt(
        hub, "show", "out.safetensors", cwd=tmp_path
    ).status == 0
    snapshots = {path.name for path in hub.home.rglob("snapshots/*/*")}
    assert snapshots == {"model.safetensors.index.json", "model-00002-of-00005.safetensors"}
    hub.server.forget()
    hub.storage.forget()
    ran = ckpt(hub, "show", "hf://a/x/model-00002-of-00005.safetensors", offline="1")
    assert ran.status == 0, ran.err
    assert asked(hub) == []
    ran = ckpt(hub, "show", "hf://a/x", "--offline")
    assert (ran.status, "4 of its 5 shards are missing" in ran.err) == (2, True)
    assert (
        "is not in the cache of huggingface_hub"
        in ckpt(hub, "show", "hf://a/other", "--offline").err
    )


def test_the_token_goes_to_the_hub_alone(hub):
    hub.token = "hf_secret"
    hub.put("a/x", shards(2, tensors=20), private=True)
    ran = ckpt(hub, "show", "hf://a/x", "--checksum", token="hf_secret")
    assert ran.status == 0, ran.err
    assert hub.storage.asked
    assert not any("authorization" in map(str.lower, one.headers) for one in hub.storage.asked)
    assert "hf_secret" not in ran.out + ran.err
    ran = ckpt(hub, "show", "hf://a/x")
    assert (ran.status, "there is no such repository, or it is private" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("address", "fact"),
    [
        ("hf://a/none", "there is no such repository, or it is private"),
        ("hf://a/x@none", "its repository has no such revision"),
        ("hf://a/x/model.safetensor", "did you mean hf://a/x/model.safetensors?"),
        ("hf://a/x/vae", "a/x has no such file or folder"),
        ("hf://a/gated", "is gated: its owner has conditions"),
        ("hf://a/empty", "is a folder without a known checkpoint file"),
        ("hf://a/a--b", "names no repository"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(hub, address, fact):
    hub.put(
        "a/x",
        {
            "model.safetensors": safetensors(),
            "unet/diffusion_pytorch_model.safetensors": safetensors(),
        },
    )
    hub.put("a/gated", {"model.safetensors": safetensors()}, gated=True)
    hub.put("a/empty", {"README.md": b"nothing"})
    ran = ckpt(hub, "show", address)
    assert (ran.status, ran.out) == (2, "")
    assert fact in ran.err
    assert len(ran.err.splitlines()) == 1


def test_folders_adapters_and_pickles_are_found(hub):
    hub.put("a/x", {
        "unet/diffusion_pytorch_model.safetensors": safetensors(tensors=3),
        "model.safetensors": safetensors(tensors=5),
        "pytorch_model.bin": pth(tensors=6),
        "adapter/adapter_model.safetensors": safetensors(tensors=2),
        "adapter/adapter_config.json": b"{}",
    })  # fmt: skip
    assert "3 tensors" in ckpt(hub, "show", "hf://a/x/unet").out
    ran = ckpt(hub, "show", "hf://a/x")
    assert "5 tensors" in ran.out
    assert "note: hf://a/x: model.safetensors is taken; pytorch_model.bin is there too" in ran.err
    assert "6 tensors" in ckpt(hub, "show", "hf://a/x/pytorch_model.bin").out
    assert "a PEFT adapter" in ckpt(hub, "show", "hf://a/x/adapter").out


def test_what_comes_damaged_is_not_kept(hub):
    hub.put("a/x", {"model.safetensors": safetensors()})
    original = hub.server.replies._file

    def damaged(*arguments):
        reply = original(*arguments)
        for one in hub.storage.replies.values():
            one.content = one.content[:-1] + bytes([one.content[-1] ^ 1])
        return reply

    hub.server.replies._file = damaged
    ran = ckpt(hub, "show", "hf://a/x", "--checksum")
    assert (ran.status, "the hub lists" in ran.err) == (2, True)
    assert not list(hub.home.rglob("*.safetensors"))


def test_a_config_beside_the_weights_gives_params(hub, tmp_path):
    hub.put(
        "a/x", {"model.safetensors": safetensors(tensors=2), "config.json": b'{"num_layers": 2}'}
    )
    (tmp_path / "rules.yaml").write_text(
        "params:\n  n: {from: num_layers}\nrules:\n  - layers.{i}.** -> blocks.{n-1-i}.**\n"
    )
    ran = ckpt(hub, "plan", "hf://a/x", "--rules", "rules.yaml", cwd=tmp_path)
    assert ran.status == 0, ran.err


def test_a_digest_that_was_asked_for_is_compared_with_the_hubs(hub, tmp_path):
    content = safetensors()
    hub.put("a/x", {"model.safetensors": content, "small.safetensors": safetensors(tensors=1)})
    right = hashlib.sha256(content).hexdigest()
    assert ckpt(hub, "show", "hf://a/x", "--sha256", right).status == 0
    for address in ("hf://a/x", "hf://a/x/small.safetensors"):
        ran = ckpt(hub, "show", address, "--sha256", "0" * 64)
        assert (ran.status, "its SHA-256 is" in ran.err) == (2, True)
    assert ckpt(hub, "show", "hf://a/x/model.safetensors", "--checksum").status == 0
    assert (
        ckpt(hub, "show", "hf://a/x/model.safetensors", "--offline", "--sha256", right).status == 0
    )
    assert (
        ckpt(hub, "show", "hf://a/x/model.safetensors", "--offline", "--sha256", "0" * 64).status
        == 2
    )
    (tmp_path / "a.safetensors").write_bytes(content)
    assert (
        "none is given" in ckpt(hub, "show", "a.safetensors", "--sha256", right, cwd=tmp_path).err
    )


def cached(hub, name="model.safetensors"):
    (found,) = hub.home.rglob(f"snapshots/*/{name}")
    return found.resolve()


def test_a_digest_that_was_asked_for_is_compared_with_the_bytes_in_the_cache(hub):
    content = safetensors()
    hub.put("a/x", {"model.safetensors": content})
    digest = hashlib.sha256(content).hexdigest()
    address = "hf://a/x/model.safetensors"
    assert ckpt(hub, "show", address, "--checksum").status == 0
    damaged = content[:-1] + bytes([content[-1] ^ 1])
    cached(hub).chmod(0o600)
    cached(hub).write_bytes(damaged)
    ran = ckpt(hub, "show", address, "--sha256", digest)
    assert (ran.status, "--refresh downloads it again" in ran.err) == (2, True), ran.err
    assert f"its SHA-256 is {hashlib.sha256(damaged).hexdigest()}, not {digest}" in ran.err
    ran = ckpt(hub, "show", address, "--sha256", digest, "--refresh")
    assert ran.status == 0, ran.err
    assert cached(hub).read_bytes() == content
    cached(hub).write_bytes(content[:-100])
    ran = ckpt(hub, "show", address, "--refresh")
    assert ran.status == 0, ran.err
    assert cached(hub).read_bytes() == content


def test_a_listing_that_leads_out_and_a_page_for_a_listing_are_refused(hub):
    hub.put("a/x", {"../../evil.safetensors": safetensors()})
    ran = ckpt(hub, "show", "hf://a/x")
    assert (ran.status, "`../../evil.safetensors`, which is not a path" in ran.err) == (2, True)
    hub.server.replies._info = lambda *_: Reply(b"<html></html>", kind="text/html")
    ran = ckpt(hub, "show", "hf://a/x")
    assert (ran.status, "the hub's answer is not JSON" in ran.err) == (2, True), ran.err


def test_a_hub_without_ranges_is_told_once_and_each_file_is_downloaded_once(hub):
    hub.put("a/x", shards(3, tensors=20))
    original = hub.server.replies._file

    def whole(*arguments):
        reply = original(*arguments)
        for one in (reply, *hub.storage.replies.values()):
            one.ranges = False
        return reply

    hub.server.replies._file = whole
    ran = ckpt(hub, "show", "hf://a/x")
    assert (ran.status, ran.err.count("doesn't support range requests")) == (0, 1), ran.err
    assert len(list(hub.home.rglob("snapshots/*/*.safetensors"))) == 3


def test_a_hub_that_leads_to_a_file_here_is_refused(hub, tmp_path):
    (tmp_path / "secret").write_bytes(safetensors())
    hub.put("a/x", {"model.safetensors": safetensors(tensors=400)})
    hub.server.replies._file = lambda *_: Reply(b"", 302, location=f"file://{tmp_path}/secret")
    ran = ckpt(hub, "show", "hf://a/x")
    assert (ran.status, ran.out) == (2, "")
    assert "the hub leads to what is not a web address" in ran.err


def test_a_hub_that_is_no_host_is_named(hub):
    hub.server.server_close()
    assert "the hub can't be reached" in ckpt(hub, "show", "hf://a/x").err
    script = "import os; os.environ['HF_ENDPOINT'] = 'http://nowhere.invalid'\n"
    script += "import sys; sys.argv = ['ckpt', 'show', 'hf://a/x']\n"
    script += "from ckpt_tool.__main__ import run; run()"
    ran = ckpt(hub, script=script)
    assert (ran.status, ran.out) == (2, "")
    assert "hf://a/x: the hub's host (huggingface.co, or HF_ENDPOINT) can't be found, or there is no network; --offline uses what is in the" in ran.err
