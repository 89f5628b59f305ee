"""Addresses that are written with a slip are answered with what was probably meant."""

import pathlib

import pytest
from running import ckpt

import ckpt_tool
from ckpt_tool.errors import InputError
from ckpt_tool.formats.remote.slips import address_meant
from tests.remote.conftest import pth


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("hf:timm/resnet50", "hf://timm/resnet50"),
        ("hf:/timm/resnet50", "hf://timm/resnet50"),
        ("http:/host/a.pth", "http://host/a.pth"),
        ("https:host/a.pth", "https://host/a.pth"),
        ("https//host/a.pth", "https://host/a.pth"),
        ("https;//host/a.pth", "https://host/a.pth"),
        ("s3:/bucket/a.pth", "s3://bucket/a.pth"),
        ("file:/data/a.pth", "file:///data/a.pth"),
        ("localhost:8000/a.pth", "http://localhost:8000/a.pth"),
        ("host.example:8080/a.pth", "https://host.example:8080/a.pth"),
        ("www.example.org/a.pth", "https://www.example.org/a.pth"),
        ("torchvison:ResNet50_Weights.DEFAULT", "torchvision:ResNet50_Weights.DEFAULT"),
        ("timm://resnet50", "timm:resnet50"),
        ("simplecache::https://host/a.pth", "https://host/a.pth"),
        ("memory::a.pth", "memory://a.pth"),
        ("runs/step_500", None),
        ("a.pth", None),
        ("runs/model.v2.pth", None),
        ("models:resnet50", None),
    ],
)
def test_slips_are_known(path, meant, tmp_path):
    assert address_meant(path) == meant
    ran = ckpt("show", path, cwd=tmp_path)
    assert ran.status == 2
    assert meant is None or meant in ran.err


def test_a_path_object_has_lost_a_slash():
    with pytest.raises(InputError, match=r"is http://host/a.pth meant\?"):
        ckpt_tool.open(pathlib.Path("http://host/a.pth"))


def test_a_member_needs_an_archive():
    assert "zip://MEMBER::file:///FOLDER/ARCHIVE does" in ckpt("show", "zip://a.pth").err


@pytest.mark.parametrize(
    ("output", "hint"),
    [
        ("file://localhost/data/x.pth", "give the path /data/x.pth"),
        ("file:///data/x%20y.pth", "give the path /data/x y.pth"),
        ("file://host/x.pth", "names a host, `host`"),
    ],
)
def test_an_output_is_a_path(server, cache, output, hint):
    ran = ckpt("map", server.put("/a.pth", pth()), "-e", "** -> **", "-o", output)
    assert (ran.status, hint in ran.err) == (2, True), ran.err


def test_a_digest_that_no_address_was_checked_against_is_an_error(server, cache, tmp_path):
    (tmp_path / "a.pth").write_bytes(pth())
    with (
        pytest.raises(InputError, match="is for addresses, and none was opened in the block"),
        ckpt_tool.addresses(sha256="0" * 64),
    ):
        ckpt_tool.diff(tmp_path / "a.pth", tmp_path / "a.pth")
    url = server.put("/a.pth", pth())
    with pytest.raises(InputError, match="its SHA-256 is"), ckpt_tool.addresses(sha256="0" * 64):
        ckpt_tool.diff(url, tmp_path / "a.pth")
