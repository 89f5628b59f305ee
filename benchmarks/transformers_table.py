"""For how many of transformers' model types are the imported rules bit-exact, both ways? Prints a table in Markdown.

    python benchmarks/transformers_table.py [MODEL_TYPE ...] [--json FILE]

For each type: the rules are written for the default configuration (`ckpt mappings --from transformers TYPE`). Then a tiny
model with random values is saved by `save_pretrained`; the rules map that file, and the result must be, bit for bit, what
`from_pretrained` makes of it; the inverse rules must lead back to the file, bit for bit.
"""

import contextlib
import json
import signal
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "examples"), str(ROOT)]

from seeded import fill_with_seeded_values, import_torchvision  # noqa: E402

SECONDS = 120
"""A model type that takes longer is given up."""

TINY = {
    "vocab_size": 160, "hidden_size": 64, "d_model": 64, "n_embd": 64, "dim": 64, "embed_dim": 64, "encoder_hidden_size": 64,
    "decoder_hidden_size": 64, "intermediate_size": 96, "ffn_dim": 96, "d_ff": 96, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96,
    "moe_intermediate_size": 48, "shared_expert_intermediate_size": 48, "mlp_dim": 96, "num_attention_heads": 4,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_heads": 4, "n_head": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 3, "num_layers": 3, "n_layer": 3, "encoder_layers": 2, "decoder_layers": 2, "depth": 3,
    "num_encoder_layers": 2, "num_decoder_layers": 2, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4,
    "moe_num_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "q_lora_rank": 24, "kv_lora_rank": 16,
    "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 12, "max_position_embeddings": 64, "projection_dim": 64,
    "first_k_dense_replace": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "image_token_id": 3, "video_token_id": 4, "audio_token_id": 5,
}  # fmt: skip
"""Small sizes by the names that configurations use; a size that is smaller already stays."""
TIED_TO_WIDTH = {"head_dim": 16}


def shrink(config):
    """A configuration's sizes made tiny, those of its parts too."""
    from transformers import PretrainedConfig

    for name, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            shrink(value)
        elif isinstance(value, int) and not isinstance(value, bool) and name in {**TINY, **TIED_TO_WIDTH}:
            with contextlib.suppress(Exception):
                setattr(config, name, min(value, {**TINY, **TIED_TO_WIDTH}[name]))
        elif isinstance(value, list) and len(value) > 8 and name in ("layer_types", "mlp_layer_types"):
            setattr(config, name, value[:3])
    return config


def tiny_model(model_type):
    from transformers import AutoConfig

    from ckpt_tool.importing.transformers import _architecture

    config = shrink(AutoConfig.for_model(model_type))
    model = _architecture(model_type, "")(config).eval()
    if sum(parameter.numel() for parameter in model.parameters()) > 60_000_000:
        raise RuntimeError("its tiny configuration is not tiny")
    return fill_with_seeded_values(model, 1)


def run(plan, values):
    """What a plan makes of tensors in memory."""
    from ckpt_tool.mapping.apply import apply_step

    return {
        key: value
        for step in plan.steps
        for key, value in zip(step.outputs, apply_step(step, [values[each] for each in step.inputs]), strict=True)
    }


def prove(model_type, folder):
    """The verdicts of one type: whether the rules reproduce the loader, and whether their inverse leads back."""
    import torch

    from ckpt_tool import open_checkpoint
    from ckpt_tool.importing.transformers import _catalog, import_mapping
    from ckpt_tool.mapping import compile_plan, invert_rules, read_config, read_rule_text

    imported = import_mapping(model_type)
    model = tiny_model(model_type)
    model.save_pretrained(folder)
    loaded = type(model).from_pretrained(folder).state_dict()
    with open_checkpoint(str(folder)) as stored:
        source = {key: torch.frombuffer(bytearray().join(stored.chunks(key)), dtype=torch.uint8) for key in stored.catalog}
        values = {key: _tensor(raw, stored.catalog[key]) for key, raw in source.items()}
        catalog = stored.catalog
    rules = read_rule_text(imported.yaml, model_type)
    plan = compile_plan(rules, catalog, _catalog(loaded), None, read_config(str(folder)))
    result = run(plan, values)
    wrong = [key for key in loaded if key not in plan.kept and not same(result.get(key), loaded[key])]
    forth = verdict(wrong) if wrong or not imported.unsaid else f"unsaid: {imported.unsaid[0]}"
    turned = invert_rules(rules, plan)
    if turned.yaml is None:
        back = "no inverse: " + next((each.why for each in turned.rules if each.text is None), "")
    else:
        inverse = read_rule_text(turned.yaml, "inverse")
        returned = run(compile_plan(inverse, _catalog(loaded), catalog, None, read_config(str(folder))), loaded)
        back = verdict([key for key in catalog if key not in plan.dropped and not same(returned.get(key), values[key])])
    return {"rules": imported.rules, "tensors": len(loaded), "architecture": imported.architecture, "forth": forth, "back": back}


def verdict(wrong):
    return f"{len(wrong)} tensors differ: {wrong[0]}" if wrong else "exact"


def _tensor(raw, info):
    from ckpt_tool.torch_bridge import to_tensor

    return to_tensor(bytearray(raw.numpy().tobytes()), info.dtype, info.shape)


def same(one, other):
    import torch

    return (
        one is not None
        and one.dtype == other.dtype
        and one.shape == other.shape
        and torch.equal(one.contiguous().reshape(-1).view(torch.uint8), other.contiguous().reshape(-1).view(torch.uint8))
    )


def model_types():
    """Every model type for which transformers converts something."""
    import torch
    from transformers import AutoConfig
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    from ckpt_tool.errors import InputError
    from ckpt_tool.importing.transformers import _architecture

    for name in sorted(CONFIG_MAPPING_NAMES):
        try:
            with torch.device("meta"), _time_limit(SECONDS):
                model = _architecture(name, "")(shrink(AutoConfig.for_model(name)))
        except InputError:
            continue
        except Exception as error:
            print(f"- {name}: {type(error).__name__}: {str(error)[:100]}", file=sys.stderr)
            continue
        if get_model_conversion_mapping(model, add_legacy=False):
            yield name


@contextlib.contextmanager
def _time_limit(seconds):
    def stop(*_):
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(model_type):
    with tempfile.TemporaryDirectory() as folder:
        try:
            with _time_limit(SECONDS):
                return prove(model_type, Path(folder))
        except Exception as error:
            return {"forth": f"not proved: {type(error).__name__}: {' '.join(str(error).split())[:160]}", "back": ""}


def table(outcomes):
    lines = ["| model type | architecture | rules | tensors | there | and back |", "|---|---|---|---|---|---|"]
    for name, each in outcomes.items():
        cells = [name, *(str(each.get(part, "")) for part in ("architecture", "rules", "tensors", "forth", "back"))]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    exact = sum(each["forth"] == "exact" for each in outcomes.values())
    both = sum(each["forth"] == each["back"] == "exact" for each in outcomes.values())
    return "\n".join([*lines, "", f"{exact} of {len(outcomes)} model types are exact, {both} of them both ways."])


def main(arguments):
    warnings.simplefilter("ignore")
    import_torchvision()
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    target = arguments.pop(arguments.index("--json") + 1) if "--json" in arguments else None
    names = [each for each in arguments if each != "--json"] or list(model_types())
    outcomes = {}
    for name in names:
        outcomes[name] = outcome(name)
        print(f"{name}: {outcomes[name]['forth']} / {outcomes[name]['back']}", file=sys.stderr, flush=True)
        if target:
            Path(target).write_text(json.dumps(outcomes, indent=1))
    print(table(outcomes))


if __name__ == "__main__":
    main(sys.argv[1:])
