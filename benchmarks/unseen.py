"""Jobs with known truth that are not in tests/proofs: what `benchmarks/align.py --unseen` measures. Of some of them errors were looked at.

Three kinds: conversions of model types that transformers' own loader does, observed key by key; models of other libraries by the
shipped mappings that tests/mapping proves, in full size and sorted as safetensors files are; and jobs of tests/proofs turned round.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "align"), str(ROOT / "examples"), str(Path(__file__).parent)]

from judging import TUNED  # noqa: E402
from transformers_table import lenient  # noqa: E402
from truths import Truth, read_truth  # noqa: E402

from ckpt_tool.align import Pair  # noqa: E402
from ckpt_tool.errors import RuleError  # noqa: E402
from ckpt_tool.mapping import Plan, compile_plan, invert_rules, read_rule_files, read_rule_text  # noqa: E402
from ckpt_tool.ops import OPS  # noqa: E402
from ckpt_tool.tensors import Catalog  # noqa: E402

Copy, Same = OPS["copy"], OPS["same"]

MAX_KEYS = 6000
FAMILIES = ("mapping", "turned", "transformers")

BY_MAPPING = [
    # A model, the rules that lead away from it with their numbers.
    ("tf Whisper", "whisper_to_openai", {}),
    ("tf Llama", "llama_to_meta", {"heads": 32, "kv_heads": 32}),
    ("tf Llama", "llama_to_torchtune", {"heads": 32, "kv_heads": 32}),
    ("tf Llama", "llama_to_litgpt", {}),
    ("tf GPT2LMHead", "gpt2_to_nanogpt", {}),
    ("tf BertModel", "bert_to_torch_encoder", {}),
    ("tf CLIPModel", "transformers_clip_to_openai", {}),
    ("tf SegformerForSemanticSegmentation", "transformers5_segformer_to_nvlabs", {}),
    ("tf DetrForObjectDetection", "transformers5_detr_to_facebookresearch", {}),
    ("tf ViTForImageClassification", "transformers5_vit_to_timm", {}),
    ("tf ViTForImageClassification", "transformers5_vit_to_torchvision", {}),
    ("tf BeitForImageClassification", "transformers5_beit_to_timm", {}),
    ("tf DeiTForImageClassificationWithTeacher", "transformers5_deit_distilled_to_timm", {}),
    ("tf SwinForImageClassification", "transformers5_swin_to_timm", {}),
    ("timm vit_base_patch16_224", "timm_vit_to_transformers", {}),
    ("timm vit_small_patch32_224", "timm_vit_to_torchvision", {}),
    ("timm deit_base_distilled_patch16_224", "timm_deit_distilled_to_transformers", {}),
    ("timm beit_base_patch16_224", "timm_beit_to_transformers", {}),
    ("timm swin_tiny_patch4_window7_224", "timm_swin_to_transformers", {}),
    ("timm swin_small_patch4_window7_224", "timm_swin_to_torchvision", {}),
    ("timm convnext_base", "timm_convnext_to_transformers", {}),
    ("timm vit_giant_patch14_dinov2", "timm_dinov2_giant_to_transformers", {}),
    ("torchvision vit_b_16", "torchvision_vit_to_timm", {}),
    ("torchvision vit_b_32", "torchvision_vit_to_transformers", {}),
    ("torchvision swin_t", "torchvision_swin_to_timm", {}),
]


def jobs(families: tuple[str, ...] = FAMILIES) -> Iterator[Truth]:
    if "mapping" in families:
        yield from _by_mapping()
    if "turned" in families:
        yield from (truth for path in TUNED if (truth := turned(read_truth(path))) is not None)
    if "transformers" in families:
        yield from _by_transformers()


def truth_of(name: str, source: Catalog, target: Catalog, pairs: list[Pair]) -> Truth:
    """Pairs as a truth; those that neither rename nor copy are judged by what they make. Copies of one tensor share its storage."""
    entries, first = {}, {}
    ties = [tuple(key for slot in pair.sources for key in slot) for pair in pairs if any(isinstance(op, Same) for op in pair.ops)]
    for pair in pairs:
        targets = [key for slot in pair.targets for key in slot]
        if all(isinstance(op, Copy | Same) for op in pair.ops):
            entries |= {key: {"op": "copy", "sources": [pair.sources[0][0]], "args": {}} for key in targets}
            first |= dict.fromkeys(targets[1:], targets[0])
        else:
            entries |= {key: {"op": "pair", "pair": pair} for key in targets}
    tied = Catalog([replace(target[key], shared_storage_with=first.get(key), tied_to=first.get(key)) for key in target], target.is_ordered)
    return Truth(name, source, tied, entries, frozenset(), frozenset(), tuple(ties), {})


def of_plan(name: str, plan: Plan) -> Truth:
    """What a plan says, with a target whose keys are sorted."""
    made = plan.outputs if plan.target is None else plan.target
    target = Catalog([made[key] for key in sorted(made)])
    return of_steps(name, plan.source, target, plan)


def of_steps(name: str, source: Catalog, target: Catalog, plan: Plan) -> Truth:
    pairs = [Pair(tuple((key,) for key in step.inputs), tuple((key,) for key in step.outputs), step.ops) for step in plan.steps]
    truth = truth_of(name, source, target, pairs)
    steps = {key: step for step in plan.steps for key in step.outputs}
    entries = {key: {**entry, "step": steps[key]} for key, entry in truth.entries.items()}
    return replace(truth, entries=entries)


def _by_mapping() -> Iterator[Truth]:
    for model, rules, numbers in BY_MAPPING:
        source = _catalog(_built(model))
        told = lenient(read_rule_files([_shipped(rules)]))
        try:
            found = of_plan(f"{model}, {rules}", compile_plan(told, source, None, numbers))
        except RuleError as error:
            print(f"{model}, {rules}: {str(error)[:200]}", file=sys.stderr)
            continue
        yield found
        back = turned(found, told, numbers)
        if back is not None:
            yield back


def _shipped(name: str) -> str:
    return str(ROOT / "mappings" / f"{name}.yaml")


def turned(truth: Truth, rules=None, numbers=None) -> Truth | None:
    """A job the other way; None where its rules have no inverse."""
    numbers = numbers or truth.proof.get("set", {})
    rules = rules or read_rule_files([str(ROOT / "mappings" / name) for name in truth.proof["rules"]])
    try:
        forward = compile_plan(rules, truth.source, truth.target, numbers, dtypes="target")
        inverse = invert_rules(rules, forward, numbers)
        if inverse.yaml is None:
            return None
        plan = compile_plan(lenient(read_rule_text(inverse.yaml, "inverse")), truth.target, truth.source, numbers, dtypes="target")
    except RuleError as error:
        print(f"{truth.name}: no way back: {str(error)[:200]}", file=sys.stderr)
        return None
    return of_steps(f"{truth.name}, back", truth.target, truth.source, plan)


def _built(name: str):
    import torch
    from seeded import import_torchvision

    torchvision = import_torchvision()
    library, _, model = name.partition(" ")
    with torch.device("meta"):
        if library == "torchvision":
            return torchvision.models.get_model(model)
        if library == "timm":
            import timm

            return timm.create_model(model)
        import transformers

        names = {"Whisper": "WhisperForConditionalGeneration", "Llama": "LlamaForCausalLM", "GPT2LMHead": "GPT2LMHeadModel"}
        found = getattr(transformers, names.get(model, model))
        config = found.config_class()
        if model.startswith("Llama"):
            config.num_hidden_layers = 8
        return found(config)


def _catalog(model) -> Catalog:
    from ckpt_tool.importing.transformers import catalog_of

    return catalog_of(model.state_dict())


def _by_transformers() -> Iterator[Truth]:
    """Each model type whose keys transformers changes, in full width and small depth."""
    import torch
    import transformers_table
    from transformers import AutoConfig

    from ckpt_tool.importing.transformers import architecture_of, trace

    transformers_table.warnings.simplefilter("ignore")
    import transformers

    transformers.logging.set_verbosity_error()
    few = transformers_table.DEPTHS | {"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "n_group", "topk_group"}
    for name in transformers_table.model_types():
        try:
            with torch.device("meta"):
                model = architecture_of(name, "")(transformers_table.shrink(AutoConfig.for_model(name), few)).eval()
            traced = trace(model)
        except Exception:
            continue
        is_changed = any(not (pair.is_rename and pair.sources == pair.targets) for pair in traced.pairs)
        if is_changed and not traced.not_expressed and len(traced.source) <= MAX_KEYS and len(traced.pairs) > 5:
            yield truth_of(f"transformers {name}", traced.source, traced.target, traced.pairs)
