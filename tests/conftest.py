"""What all tests share: torchvision on any build of torch, catalogs from literals, models with seeded values."""

import compileall
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
sys.path.insert(0, str(Path(__file__).parent))

import without_torch  # noqa: E402, F401
from clean_tree import pytest_sessionfinish, pytest_sessionstart, pytest_terminal_summary  # noqa: E402, F401

# A law holds on a slow machine too.
settings.register_profile("without time", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("without time")


@pytest.fixture(scope="session")
def torchvision():
    from seeded import import_torchvision

    return import_torchvision()


@pytest.fixture(scope="session")
def timm(torchvision):
    """timm, which imports torchvision: that must have been made importable before."""
    import timm

    return timm


@pytest.fixture(scope="session")
def story(tmp_path_factory, torchvision):
    """A folder with the story's inputs: resnet50.pth (320 keys) and detector.pth (384), seeded; read-only by agreement."""
    import torch
    from detector import Detector
    from seeded import fill_with_seeded_values

    folder = tmp_path_factory.mktemp("story")
    torch.save(fill_with_seeded_values(torchvision.models.resnet50(), 1).state_dict(), folder / "resnet50.pth")
    torch.save(fill_with_seeded_values(Detector(), 2).state_dict(), folder / "detector.pth")
    return folder


def pytest_configure(config):
    """Compiles the package once: else each of a thousand processes does where PYTHONDONTWRITEBYTECODE is set."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(ROOT / "ckpt_tool", quiet=2)


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the reports in tests/golden/ instead of comparing them")


@pytest.fixture
def golden(request):
    """`golden(name, text)`: the text is that of tests/golden/name."""

    def compare(name, text):
        path = ROOT / "tests" / "golden" / name
        if request.config.getoption("--update-golden"):
            path.write_text(text + "\n")
        assert text + "\n" == path.read_text()

    return compare


def pytest_make_parametrize_id(val, argname):
    """The bytes of a file are no name of a test: a legacy file holds addresses, and each worker would have other tests."""
    return argname if isinstance(val, bytes) and len(val) > 100 else None
