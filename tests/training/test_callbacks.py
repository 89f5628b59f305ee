"""Schedules as callbacks of Lightning and transformers' Trainer: runs that are resumed by these libraries themselves are bit-equal to those
that ran through. Skipped where they are not installed.
"""

import importlib
import logging
import os
import subprocess
import sys
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from seeded import import_torchvision
from torch import nn

import ckpt_tool
from ckpt_tool import FreezeSchedule, InputError
from tests.training.lightning_calls import read_whole

pytestmark = pytest.mark.filterwarnings("ignore")
SCHEDULE = FreezeSchedule({0: "**.4.*", 1: "**.0.*", 2: "**"})
STEPS = FreezeSchedule({0: "**.4.*", 3: "**.0.*", 8: "**"}, unit="step")


def layers():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))


def data(count=24):
    generator = torch.Generator().manual_seed(5)
    return torch.utils.data.TensorDataset(torch.randn(count, 6, generator=generator), torch.randn(count, 2, generator=generator))


def assert_equal_weights(one, other):
    pairs = list(zip(one.state_dict().items(), other.state_dict().items(), strict=True))
    assert [key for (key, value), (_, found) in pairs if not torch.equal(value, found)] == []


def needed(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_torchvision()  # torchmetrics and transformers import it
        return pytest.importorskip(name, exc_type=(ImportError, RuntimeError, ModuleNotFoundError))


@pytest.fixture(params=["lightning", "pytorch_lightning"])
def lightning(request, torchvision):
    name = request.param
    pl = needed(name if name == "pytorch_lightning" else "lightning.pytorch")
    for each in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(each).setLevel(logging.ERROR)
    return pl, importlib.import_module(f"ckpt_tool.integrations.{name}").FreezeCallback


def module_of(pl, optimizers=1):
    base: Any = pl.LightningModule

    class Module(base):
        def __init__(self):
            super().__init__()
            self.model = layers()
            self.moved: list[set[str]] = []
            self.automatic_optimization = optimizers == 1

        def on_train_epoch_start(self):
            self.before = {key: value.clone() for key, value in self.state_dict().items()}

        def on_train_epoch_end(self):
            self.moved.append({key.removeprefix("model.") for key, value in self.state_dict().items() if not torch.equal(value, self.before[key])})

        def training_step(self, batch, number):
            return ((self.model(batch[0]) - batch[1]) ** 2).mean()

        def validation_step(self, batch, number):
            assert not self.model[1].training

        def configure_optimizers(self):
            if optimizers == 1:
                optimizer = torch.optim.AdamW(self.parameters(), 1e-2, weight_decay=0.1)
                return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]
            return [torch.optim.SGD(part.parameters(), 0.1) for part in (self.model[0], self.model[4])]

    return Module()


PLAIN = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "devices": 1}
HEAD, STEM = {"4.weight", "4.bias"}, {"0.weight", "0.bias"}


@pytest.mark.parametrize("schedule", [SCHEDULE, STEPS], ids=["epochs", "steps"])
def test_lightning_follows_and_resumes(tmp_path, lightning, schedule):
    pl, callback = lightning

    def fit(epochs, path=None):
        pl.seed_everything(2, verbose=False)
        model, follows = module_of(pl), callback(schedule)
        trainer = pl.Trainer(max_epochs=epochs, default_root_dir=tmp_path, callbacks=[follows], **PLAIN)
        loader = torch.utils.data.DataLoader(data(), 4)
        pl.seed_everything(epochs if path else 2, verbose=False)
        trainer.fit(model, loader, loader, ckpt_path=path, **(read_whole(trainer.fit) if path else {}))
        return model, trainer, follows

    # Dropout draws from the global generator: both runs are resumed, the one at the epoch that it ends with.
    model, trainer, follows = fit(1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    assert model.moved[0] == HEAD | (STEM if schedule is STEPS else set())
    _, trainer, _ = fit(2, tmp_path / "one.ckpt")
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    through, trainer, follows = fit(3, tmp_path / "one.ckpt")
    assert through.moved[-1] == set(through.model.state_dict())
    assert (follows.applied.trainable, follows.applied.optimizer.added) == (6, ())
    pl.seed_everything(3, verbose=False)
    if schedule is SCHEDULE:
        assert through.moved[0] == HEAD | STEM
    resumed, *_ = fit(3, tmp_path / "one.ckpt")
    assert_equal_weights(through, resumed)
    again, _, follows = fit(3, tmp_path / "two.ckpt")
    assert again.moved == [set(again.model.state_dict())]
    assert follows.applied.held == 0


def test_lightning_averages_weights_and_leaves_statistics_that_are_held(tmp_path, lightning):
    pl, _ = lightning
    model = module_of(pl)
    ckpt_tool.freeze(model, "model.{0,1}.*")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    averaging = pl.callbacks.StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    pl.Trainer(max_epochs=2, default_root_dir=tmp_path, callbacks=[averaging], **PLAIN).fit(model, torch.utils.data.DataLoader(data(), 4))
    assert {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])} == {"model.4.weight", "model.4.bias"}


def test_lightning_with_several_optimizers(tmp_path, lightning):
    pl, callback = lightning
    trainer = pl.Trainer(max_epochs=3, default_root_dir=tmp_path, callbacks=[callback(SCHEDULE)], **PLAIN)
    with pytest.raises(InputError, match=r"2 optimizers: train from epoch 2 on, and none has `model\.1\.weight`"):
        trainer.fit(module_of(pl, 2), torch.utils.data.DataLoader(data(), 4))


@pytest.fixture
def after_processes():
    """Lightning leaves its process group and what it told it by the environment."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("after_processes")
def test_lightning_in_processes_that_would_wait_is_refused(tmp_path, lightning):
    pl, callback = lightning
    for strategy in ("ddp_find_unused_parameters_true", "ddp"):
        trainer = pl.Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[callback(SCHEDULE)], strategy=strategy, **PLAIN)
        model, loader = module_of(pl), torch.utils.data.DataLoader(data(), 4)
        if strategy == "ddp":
            with pytest.raises(InputError, match="was built to wait for the gradient of"):
                trainer.fit(model, loader)
        else:
            trainer.fit(model, loader)
            assert model.moved == [HEAD]


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = layers()

    def forward(self, x, y):
        return {"loss": (self.net(x) - y).square().mean()}


@pytest.mark.parametrize("schedule", [SCHEDULE, STEPS], ids=["epochs", "steps"])
def test_the_trainer_follows_and_resumes(tmp_path, torchvision, schedule):
    needed("accelerate")
    from transformers import Trainer, TrainingArguments

    from ckpt_tool.integrations.transformers import FreezeCallback

    rows = [{"x": x, "y": y} for x, y in data()]

    def fit(path=None):
        plain = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "epoch", "logging_strategy": "no", "seed": 3}
        arguments = TrainingArguments(str(tmp_path), num_train_epochs=3, per_device_train_batch_size=4, learning_rate=1e-2, **plain)
        model, follows = Network(), FreezeCallback(schedule)
        trainer = Trainer(model, arguments, train_dataset=rows, callbacks=[follows])
        trainer.train(resume_from_checkpoint=path)
        return model, follows

    begun = Network().state_dict()
    through, follows = fit()
    assert (follows.applied.number, follows.applied.trainable) == ((2, 6) if schedule is SCHEDULE else (8, 6))
    from safetensors.torch import load_file

    first = load_file(tmp_path / "checkpoint-6" / "model.safetensors")
    moved = {key.removeprefix("net.") for key, value in first.items() if not torch.equal(value, begun[key])}
    assert moved == HEAD | (STEM if schedule is STEPS else set())
    for path in ("checkpoint-6", "checkpoint-12"):
        resumed, _ = fit(str(tmp_path / path))
        assert_equal_weights(through, resumed)


def test_the_trainer_in_several_processes_asks_for_what_it_needs():
    from ckpt_tool.integrations.transformers import FreezeCallback

    callback = FreezeCallback(SCHEDULE)
    model, state = Network(), SimpleNamespace(epoch=0.99999, global_step=4)
    arguments = SimpleNamespace(world_size=2, fsdp=[], deepspeed=None, ddp_find_unused_parameters=None)
    with pytest.raises(InputError, match=r"Trainer: trains in several processes, .*; TrainingArguments\(ddp_find_unused_parameters=True\)"):
        callback.on_train_begin(arguments, state, None, model=model)
    arguments.ddp_find_unused_parameters = True
    callback.on_train_begin(arguments, state, None, model=model)
    assert (callback.applied.number, callback.applied.trainable) == (0, 2)


def test_nothing_of_these_libraries_is_imported_before_it_is_asked_for():
    code = "import sys, ckpt_tool, ckpt_tool.integrations; ckpt_tool.FreezeSchedule; ckpt_tool.load_into; "
    code += "assert not {'lightning', 'pytorch_lightning', 'transformers', 'torch'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert ckpt_tool.FreezeSchedule is FreezeSchedule
