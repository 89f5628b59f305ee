"""Rules out of transformers' table: what its own loader does, bit for bit, both ways; `benchmarks/transformers_table.py` tries all types."""

import sys

import pytest
from conftest import ROOT

from ckpt_tool import api
from ckpt_tool.errors import InputError
from ckpt_tool.mapping import read_rule_text

sys.path.insert(0, str(ROOT / "benchmarks"))

TYPES = ["mixtral", "deepseek_v3", "vit", "llava", "qwen3_moe", "dinov2", "kimi_k25", "timesfm2_5", "nomic_bert"]


@pytest.fixture(scope="module")
def table(torchvision):
    import transformers
    import transformers_table

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers_table


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", TYPES)
def test_rules_do_what_the_loader_does_and_lead_back(table, model_type):
    proved = table.outcome(model_type)
    assert (proved["forth"], proved["back"]) == ("exact", "exact")


@pytest.mark.filterwarnings("ignore")
def test_rules_are_few_readable_and_checked(table):
    imported = api.import_mapping("mixtral")
    assert imported.architecture == "MixtralForCausalLM"
    assert imported.not_expressed == ()
    assert "  - model.layers.{i}.block_sparse_moe.gate.** -> model.layers.{i}.mlp.gate.**\n" in imported.yaml
    rule_set = read_rule_text(imported.yaml, "imported.yaml")
    assert len(rule_set.rules) == imported.rules == 5
    assert rule_set.tests


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_said_is_named(table):
    imported = api.import_mapping("ernie4_5_vl_moe")
    assert imported.not_expressed
    assert "ErnieFuseAndSplitTextVisionExperts of transformers" in imported.not_expressed[0]
    assert "# No rule can express: ErnieFuseAndSplitTextVisionExperts" in imported.yaml


@pytest.mark.filterwarnings("ignore")
def test_an_unknown_type_is_an_error_with_a_hint(table):
    with pytest.raises(InputError, match="mixtrl: is not a model type of the installed transformers; did you mean mixtral"):
        api.import_mapping("mixtrl")
    with pytest.raises(InputError, match="Nothing: is not an architecture"):
        api.import_mapping("mixtral:Nothing")


def test_a_torchvision_for_another_torch_is_named(monkeypatch):
    from types import SimpleNamespace

    from ckpt_tool.importing import transformers as importing

    class Broken:
        def __getattr__(self, name):
            raise RuntimeError("Failed to import") from RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "transformers", Broken())
    monkeypatch.setattr(importing, "_transformers", lambda module, name: SimpleNamespace(MODEL_MAPPING_NAMES={"vit": "ViTModel"}))
    with pytest.raises(InputError, match=r"can't import ViTModel: operator torchvision::nms.*; install torch and torchvision of one release"):
        importing.architecture_of("vit", "")
