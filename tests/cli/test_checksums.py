"""`--checksum`: the SHA-256 of what was written or shown, as sha256sum gives it."""

import json
import subprocess
from hashlib import sha256

import torch
from running import ckpt
from safetensors.torch import save_file


def digest(path):
    return sha256(path.read_bytes()).hexdigest()


def test_map_prints_the_checksum_of_what_it_wrote(tmp_path):
    torch.save({"a": torch.randn(700, 700)}, tmp_path / "a.pth")
    ran = ckpt("map", "a.pth", "a.pth", "-o", "out.safetensors", "--checksum", cwd=tmp_path)
    assert ran.out.splitlines()[-2] == f"{digest(tmp_path / 'out.safetensors')}  out.safetensors"
    ran = ckpt("map", "a.pth", "a.pth", "-o", "out.pth", "--checksum", "--json", cwd=tmp_path)
    assert json.loads(ran.out)["output"]["sha256"] == {"out.pth": digest(tmp_path / "out.pth")}
    assert "sha256" not in ckpt("map", "a.pth", "a.pth", "-o", "again.pth", "--json", cwd=tmp_path).out


def test_an_output_is_the_same_file_each_time(tmp_path):
    torch.save({"a": torch.randn(7), "b": torch.randn(3)}, tmp_path / "a.pth")
    for suffix in (".pth", ".safetensors"):
        for name in ("one", "two"):
            (tmp_path / name).mkdir(exist_ok=True)
            assert ckpt("map", "a.pth", "a.pth", "-o", f"{name}/out{suffix}", cwd=tmp_path).status == 0
        assert digest(tmp_path / "one" / f"out{suffix}") == digest(tmp_path / "two" / f"out{suffix}")


def test_show_prints_what_sha256sum_checks(tmp_path):
    for number in (1, 2):
        save_file({f"w{number}": torch.randn(4)}, tmp_path / f"model-{number}.safetensors")
    index = {"weight_map": {f"w{number}": f"model-{number}.safetensors" for number in (1, 2)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    names = ["model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"]
    ran = ckpt("show", "--checksum", "model.safetensors.index.json", cwd=tmp_path)
    assert ran.out.splitlines() == [f"{digest(tmp_path / name)}  {name}" for name in names]
    assert (
        subprocess.run(["sha256sum", "--check"], cwd=tmp_path, input=ran.out, text=True, capture_output=True, check=False).returncode == 0
    )
    report = json.loads(ckpt("show", "--checksum", "--json", "model.safetensors.index.json", cwd=tmp_path).out)
    assert report["sha256"] == {name: digest(tmp_path / name) for name in names}
