"""Checkpoints of Lightning, accelerate and transformers' Trainer: mapped, then resumed by these libraries themselves, bit-equal to the
run that was not interrupted. Skipped where they are not installed.
"""

import logging
import warnings
from typing import Any

import pytest
import torch
from seeded import import_torchvision
from torch import nn

import ckpt_tool
from tests.running import ckpt
from tests.training.lightning_calls import read_whole

pytestmark = pytest.mark.filterwarnings("ignore")
RULES = ("-e", "model.0.* -> stem.*", "-e", "model.1.* -> batch.*", "-e", "model.4.* -> head.*")


def data(count=24):
    generator = torch.Generator().manual_seed(5)
    return torch.utils.data.TensorDataset(torch.randn(count, 6, generator=generator), torch.randn(count, 2, generator=generator))


def old_layers(module):
    module.model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))


def new_layers(module):
    module.stem, module.batch, module.drop, module.head = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 2)


def new_forward(module, x):
    return module.head(module.drop(torch.relu(module.batch(module.stem(x)))))


def assert_equal_weights(one, other):
    pairs = list(zip(one.state_dict().items(), other.state_dict().items(), strict=True))
    assert [(key, name) for (key, value), (name, found) in pairs if not torch.equal(value, found)] == []


@pytest.fixture
def lightning():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_torchvision()  # torchmetrics imports it
        found = pytest.importorskip("pytorch_lightning", exc_type=(ImportError, RuntimeError, ModuleNotFoundError))
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return found


def lightning_modules(pl):
    base: Any = pl.LightningModule

    class Old(base):
        def __init__(self, width=8):
            super().__init__()
            self.save_hyperparameters()
            self.layers()

        def layers(self):
            old_layers(self)

        def compute(self, x):
            return self.model(x)

        def training_step(self, batch, number):
            loss = ((self.compute(batch[0]) - batch[1]) ** 2).mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), 1e-2)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    class New(Old):
        layers, compute = new_layers, new_forward

    return Old, New


def test_lightning_resumes_a_mapped_checkpoint(tmp_path, lightning):
    pl = lightning
    old, new = lightning_modules(pl)

    def fit(kind, epochs, path=None):
        pl.seed_everything(2, verbose=False)
        model = kind()
        plain = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", devices=1, default_root_dir=tmp_path, **plain)
        given = read_whole(trainer.fit) if path else {}
        trainer.fit(model, torch.utils.data.DataLoader(data(), 4), ckpt_path=path, **given)
        return model, trainer

    _, trainer = fit(old, 1)
    trainer.save_checkpoint(tmp_path / "old.ckpt")
    ran = ckpt("map", "old.ckpt", *RULES, "-o", "new.ckpt", cwd=tmp_path)
    assert ran.status == 0, ran.err
    expected, _ = fit(old, 3, tmp_path / "old.ckpt")
    found, trainer = fit(new, 3, tmp_path / "new.ckpt")
    assert (trainer.global_step, trainer.current_epoch) == (18, 3)
    assert_equal_weights(expected, found)
    assert new.load_from_checkpoint(tmp_path / "new.ckpt", **read_whole(new.load_from_checkpoint)).hparams.width == 8


def accelerate_run(accelerate, layers, forward, load=None, save=None):
    from accelerate.state import AcceleratorState

    accelerator = accelerate.Accelerator(cpu=True)
    torch.manual_seed(0)
    model = nn.Module()
    layers(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    if load:
        accelerator.load_state(str(load))
    for number in range(8 if load else 0, 14 if load else 8):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(number))
        accelerator.backward(forward(model, x).square().mean())
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    if save:
        accelerator.save_state(str(save))
    AcceleratorState._reset_state(True)
    return model


@pytest.mark.parametrize("is_safe", [True, False])
def test_accelerate_resumes_a_mapped_folder(tmp_path, is_safe, monkeypatch):
    accelerate = pytest.importorskip("accelerate")
    if not is_safe:
        save = accelerate.Accelerator.save_state
        monkeypatch.setattr(accelerate.Accelerator, "save_state", lambda self, path: save(self, path, safe_serialization=False))

    def old_forward(module, x):
        return module.model(x)

    accelerate_run(accelerate, old_layers, old_forward, save=tmp_path / "old")
    ran = ckpt("map", "old", *RULES, "-o", "new", cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert {one.name for one in (tmp_path / "new").iterdir()} == {one.name for one in (tmp_path / "old").iterdir()}
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl"):
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "old" / name).read_bytes()
    expected = accelerate_run(accelerate, old_layers, old_forward, load=tmp_path / "old")
    found = accelerate_run(accelerate, new_layers, new_forward, load=tmp_path / "new")
    assert_equal_weights(expected, found)


def test_the_trainer_of_transformers_resumes_a_mapped_folder(tmp_path):
    pytest.importorskip("accelerate")
    import transformers
    import_torchvision()  # transformers imports it
    from transformers import Trainer, TrainingArguments

    transformers.utils.logging.set_verbosity_error()

    class Old(nn.Module):
        def __init__(self):
            super().__init__()
            old_layers(self)

        def compute(self, x):
            return self.model(x)

        def forward(self, x, labels):
            return {"loss": ((self.compute(x) - labels) ** 2).mean()}

    class New(Old):
        def __init__(self):
            nn.Module.__init__(self)
            new_layers(self)

        compute = new_forward

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 24

        def __getitem__(self, index):
            x, y = data()[index]
            return {"x": x, "labels": y}

    def train(kind, folder, steps, resume=None):
        transformers.set_seed(3)
        model = kind()
        arguments = TrainingArguments(
            str(tmp_path / folder), max_steps=steps, save_steps=4, per_device_train_batch_size=4, learning_rate=1e-2,
            report_to=[], use_cpu=True, disable_tqdm=True, logging_steps=1000, lr_scheduler_type="constant",
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=Rows()).train(resume_from_checkpoint=resume and str(resume))
        return model

    train(Old, "out", 4)
    old, new = tmp_path / "out" / "checkpoint-4", tmp_path / "new" / "checkpoint-4"
    (tmp_path / "new").mkdir()
    ran = ckpt("map", old, *RULES, "-o", new, cwd=tmp_path)
    assert ran.status == 0, ran.err
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "training_args.bin"):
        assert (new / name).read_bytes() == (old / name).read_bytes()
    expected = train(Old, "out_again", 10, old)
    found = train(New, "new_again", 10, new)
    assert_equal_weights(expected, found)


def offloaded(accelerate, way, path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
    if way == "disk":
        accelerate.disk_offload(model, path, execution_device=torch.device("cpu"))
    else:
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"), offload_buffers=way == "buffers")
    return model


@pytest.mark.parametrize("way", ["cpu", "buffers", "disk"])
def test_a_model_that_accelerate_has_offloaded_is_refused_and_traced(way, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    model, x = offloaded(accelerate, way, tmp_path), torch.ones(1, 3)
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
    before = model(x)
    with pytest.raises(ckpt_tool.InputError, match=r"`0.weight` is offloaded: .*; load before the model is offloaded"):
        ckpt_tool.load_into(model, other.state_dict())
    assert torch.equal(model(x), before)
    for one, two, side in ((other, model, "second"), (model, other, "first")):
        found = ckpt_tool.trace(one, two, x)
        assert found.place is not None
        assert found.place.other == "0"
        assert f"not compared: `0.weight` of the {side} network and 1 more have no values outside of forward (offloaded, on meta)" in found.notes


def test_what_of_a_partly_offloaded_model_stays_in_place_is_loaded(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    accelerate.dispatch_model(model, {"0": "cpu", "1": "disk"}, offload_dir=str(tmp_path))
    source = {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2)}
    report = ckpt_tool.load_into(model, source, keep="1.*")
    assert model[0].weight.eq(1).all()
    assert report.loaded == ("0.weight", "0.bias")
    assert not any("without any values" in note for note in report.notes)
