"""For how many of transformers' model types are the imported rules bit-exact, both ways? Prints the lists of docs/transformers.md.

    python benchmarks/transformers_table.py [MODEL_TYPE ...] [--json FILE]

For each type: the rules are written for the default configuration (`ckpt mappings --from transformers TYPE`). Then a tiny
model with random values is saved by `save_pretrained`; the rules map that file, and the result must be, bit for bit, what
`from_pretrained` makes of it; the inverse rules must lead back to the file, bit for bit.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import textwrap
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "examples"), str(ROOT)]

from seeded import fill_with_seeded_values, import_torchvision  # noqa: E402

SECONDS = 120
"""A model type that takes longer is given up."""
GIGABYTES = 12
"""Address space of a process that proves; each proves a few types."""
MAX_PARAMETERS = 100_000_000

TINY = {
    "vocab_size": 160, "hidden_size": 64, "d_model": 64, "n_embd": 64, "dim": 64, "embed_dim": 64, "encoder_hidden_size": 64,
    "decoder_hidden_size": 64, "intermediate_size": 96, "ffn_dim": 96, "d_ff": 96, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96,
    "moe_intermediate_size": 48, "shared_expert_intermediate_size": 48, "mlp_dim": 96, "num_attention_heads": 4,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_heads": 4, "n_head": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 3, "num_layers": 3, "n_layer": 3, "encoder_layers": 2, "decoder_layers": 2, "depth": 3,
    "num_encoder_layers": 2, "num_decoder_layers": 2, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4,
    "moe_num_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "q_lora_rank": 24, "kv_lora_rank": 16,
    "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 12, "max_position_embeddings": 64, "projection_dim": 64,
    "first_k_dense_replace": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "image_token_id": 3, "video_token_id": 4,
    "audio_token_id": 5,
}  # fmt: skip
"""Small sizes by the names that configurations use; a size that is smaller already stays."""
DEPTHS = {name for name in TINY if "layers" in name or name in ("n_layer", "depth")}
SHRINKINGS = (set(TINY), set(TINY) - DEPTHS, DEPTHS | {"vocab_size"}, set())
"""Which sizes are made small: all, or fewer where a configuration needs some of them to fit each other."""


def shrink(config, names):
    """A configuration's sizes made tiny, those of its parts too."""
    from transformers import PretrainedConfig

    for name, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            shrink(value, names)
        elif isinstance(value, int) and not isinstance(value, bool) and name in names:
            with contextlib.suppress(Exception):
                setattr(config, name, min(value, TINY[name]))
        elif isinstance(value, list) and name in ("layer_types", "mlp_layer_types") and "num_hidden_layers" in names:
            setattr(config, name, value[:3])
    return config


def tiny_model(model_type, names):
    import torch
    from transformers import AutoConfig

    from ckpt_tool.importing.transformers import architecture_of

    config = shrink(AutoConfig.for_model(model_type), names)
    build = architecture_of(model_type, "")
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in build(config).parameters())
    if size > MAX_PARAMETERS:
        raise RuntimeError("its tiny configuration is not tiny")
    return fill_with_seeded_values(build(config).eval(), 1)


def run(plan, values):
    """What a plan makes of tensors in memory."""
    from ckpt_tool.mapping.apply import apply_step

    return {
        key: value
        for step in plan.steps
        for key, value in zip(step.outputs, apply_step(step, [values[each] for each in step.inputs]), strict=True)
    }


def prove(model_type, folder, names=SHRINKINGS[0]):
    """The verdicts of one type: whether the rules reproduce the loader, and whether their inverse leads back.

    Rules for what the tiny model doesn't have (experts, say, where its few layers are dense) may match nothing.
    """
    import torch

    from ckpt_tool.formats import open_checkpoint
    from ckpt_tool.importing.transformers import catalog_of, import_mapping
    from ckpt_tool.mapping import compile_plan, invert_rules, read_config, read_rule_text

    imported = import_mapping(model_type)
    model = tiny_model(model_type, names)
    model.save_pretrained(folder)
    loaded = type(model).from_pretrained(folder).state_dict()
    with open_checkpoint(str(folder)) as stored:
        source = {key: torch.frombuffer(bytearray().join(stored.chunks(key)), dtype=torch.uint8) for key in stored.catalog}
        values = {key: _tensor(raw, stored.catalog[key]) for key, raw in source.items()}
        catalog = stored.catalog
    rules = lenient(read_rule_text(imported.yaml, model_type))
    config = read_config(str(folder))
    plan = compile_plan(rules, catalog, catalog_of(loaded), None, config)
    result = run(plan, values)
    wrong = [key for key in loaded if key not in plan.kept and not same(result.get(key), loaded[key])]
    forth = verdict(wrong) if wrong or not imported.not_expressed else f"unsaid: {imported.not_expressed[0]}"
    turned = invert_rules(rules, plan, config=config)
    if turned.yaml is None:
        back = "no inverse: " + next((each.why for each in turned.rules if each.text is None), "")
    else:
        inverse = lenient(read_rule_text(turned.yaml, "inverse"))
        returned = run(compile_plan(inverse, catalog_of(loaded), catalog, None, config), loaded)
        back = verdict([key for key in catalog if key not in plan.dropped and not same(returned.get(key), values[key])])
    return {"rules": imported.rules, "tensors": len(loaded), "architecture": imported.architecture, "forth": forth, "back": back}


def lenient(rules):
    return replace(rules, rules=tuple(replace(rule, is_optional=True) for rule in rules.rules))


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
    """Every model type that transformers can build."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return sorted(CONFIG_MAPPING_NAMES)


def is_converted(model_type):
    """Whether transformers converts something of this type."""
    import torch
    from transformers import AutoConfig
    from transformers.conversion_mapping import get_model_conversion_mapping

    from ckpt_tool.errors import InputError
    from ckpt_tool.importing.transformers import architecture_of

    for names in SHRINKINGS:
        try:
            with torch.device("meta"):
                model = architecture_of(model_type, "")(shrink(AutoConfig.for_model(model_type), names))
        except InputError:
            return False
        except Exception:
            continue
        return bool(get_model_conversion_mapping(model, add_legacy=False))
    return False


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
    """What became of a type, or None where transformers has nothing to convert; runs in a process of its own."""
    found = None
    with contextlib.suppress(TimeoutError), _time_limit(SECONDS):
        if not is_converted(model_type):
            return None
        for names in SHRINKINGS:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    return prove(model_type, Path(folder), names)
                except TimeoutError:
                    raise
                except Exception as error:
                    found = found or f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return {"forth": f"not proved: {found or f'more than {SECONDS} s'}", "back": ""}


def prepare():
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # transformers prints while it is imported; stdout is the table's
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30, GIGABYTES << 30))
    warnings.simplefilter("ignore")
    import_torchvision()
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def outcomes_of(names):
    """Each type with its outcome; a type whose process dies is told, and the others go on."""
    pending = list(names)
    while pending:
        with ProcessPoolExecutor(1, get_context("spawn"), prepare) as pool:
            for _ in range(min(30, len(pending))):
                try:
                    yield pending[0], pool.submit(outcome, pending[0]).result(timeout=4 * SECONDS)
                except BrokenProcessPool:
                    yield pending[0], {"forth": "not proved: its process died", "back": ""}
                    pending.pop(0)
                    break
                pending.pop(0)


REASONS = {
    "The rules don't give what the loader gives": ("differ: ", "RuleError"),
    "transformers can't load the file that it saved itself": ("ignore_mismatched_sizes",),
    "Too large to prove, even with the smallest sizes": ("is not tiny", "more than"),
    "No small model can be built from the default configuration": ("",),
}
"""Why a type isn't proved, by what its outcome says; the first that fits."""
WIDTH = 140


def report(outcomes):
    """The lists of docs/transformers.md: the types whose rules are exact both ways, and the others by reason."""
    exact = [name for name, each in outcomes.items() if each["forth"] == each["back"] == "exact"]
    blocks = [f"{len(exact)} of {len(outcomes)} model types are exact in both directions.", listed(exact)]
    others = {reason: [] for reason in REASONS}
    for name, each in outcomes.items():
        said = f"{each['forth']} {each['back']}"
        if name not in exact:
            others[next(reason for reason, words in REASONS.items() if any(word in said for word in words))].append(name)
    for reason, names in others.items():
        facts = [f"`{name}`: {outcomes[name]['forth'].removeprefix('not proved: ')}" for name in names] if reason == next(iter(REASONS)) else []
        blocks.append(f"**{reason}** ({len(names)}):")
        blocks.append("\n".join(f"- {fact}" for fact in facts) or listed(names))
    return "\n\n".join(blocks)


def listed(names):
    return textwrap.fill(", ".join(f"`{name}`" for name in names), WIDTH, break_on_hyphens=False, break_long_words=False)


def main(arguments):
    target = arguments.pop(arguments.index("--json") + 1) if "--json" in arguments else None
    names = [each for each in arguments if each != "--json"] or model_types()
    outcomes = {}
    for name, found in outcomes_of(names):
        if found is None:
            continue
        outcomes[name] = found
        print(f"{name}: {found['forth']} / {found['back']}", file=sys.stderr, flush=True)
        if target:
            Path(target).write_text(json.dumps(outcomes, indent=1))
    print(report(outcomes))


if __name__ == "__main__":
    main(sys.argv[1:])
