"""A training checkpoint elsewhere, written here as a whole."""

import io
from typing import Any

import torch
from running import ckpt


def test_a_training_checkpoint_of_a_server_is_written_as_a_whole(server, cache, tmp_path):
    net = torch.nn.Sequential(*(torch.nn.Linear(40, 40) for _ in range(30)))
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    net(torch.ones(2, 40)).sum().backward()
    optimizer.step()
    run: Any = {"epoch": 3, "model": net.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
    content = io.BytesIO()
    torch.save(run, content)
    url = server.put("/run.ckpt", content.getvalue())
    ran = ckpt("map", url, "-e", "** -> net.**", "-o", tmp_path / "new.ckpt")
    assert ran.status == 0, ran.err
    made = torch.load(tmp_path / "new.ckpt")
    assert (made["epoch"], torch.equal(made["rng"], run["rng"])) == (3, True)
    assert all(torch.equal(made["model"][f"net.{key}"], value) for key, value in run["model"].items())
    for number, slots in run["optimizer"]["state"].items():
        assert torch.equal(made["optimizer"]["state"][number]["momentum_buffer"], slots["momentum_buffer"])
    assert len(server.asked) < 10
