"""Transformer blocks under drawn names, declared in drawn orders: how often what a draft calls sure is right: `python benchmarks/block_names.py [SEED COUNT]`.

The names are none that the alignment was made on. Four parts of a block, in one of five orders of declaration; a minute. The figures of
docs/align.md are those of the default, seeds 7000 to 7299.
"""

import random
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from ckpt_tool.align import MIN_CONFIDENCE, align
from ckpt_tool.tensors import Catalog, DType, Shape, TensorInfo

WIDTH = 16
NAMES = {
    "n1": "norm_1 layer_norm_attn rms_norm_1 attn_pre_norm pre_norm1 ln_sa normA layernorm_self q_layer_norm norm_token_mixing scale_in n_attn attention_ln sub_norm_a",
    "n2": "norm_3 layer_norm_mlp rms_norm_2 mlp_pre_norm pre_norm2 ln_mlp normC layernorm_ffn h_layer_norm norm_channel_mixing scale_mid n_mlp mlp_ln sub_norm_b",
    "nc": "norm_2 layer_norm_xattn rms_norm_x xattn_pre_norm pre_norm_x ln_ca normB layernorm_cross c_layer_norm norm_context_mixing scale_ctx n_xattn xattn_ln sub_norm_c",
    "sa": "attn self_attn_block mhsa qkv_block sa_layer mix_tokens attention_self A attend",
    "ca": "xattn cross_attn_block mhca kv_block ca_layer mix_context attention_cross B attend_context",
    "ml": "mlp mlp_block ffwd expand ff_layer mix_channels dense_block C think",
}
HEADS = ["q k v o", "q_proj k_proj v_proj out_proj", "query key value out", "to_q to_k to_v to_out", "wq wk wv wo", "a b c d"]
LINEARS = ["fc1 fc2", "0 2", "up down", "c_fc c_proj", "lin1 lin2", "w1 w2", "net.0 net.3"]
STEMS = ["body", "stack", "encoder.blocks", "tower", "net.layers", "backbone.block", "core"]
ORDERS = ["forward", "norms_first", "norm_after", "norms_last", "pairs_mlp_first"]

Meaning = tuple[int, str, int, str]
"""Block, part, the module in it, and the tensor."""


def parts_of(order: str, has_cross: bool) -> list[str]:
    """The parts of a block as they are declared."""
    forward = ["n1", "sa", *(["nc", "ca"] if has_cross else []), "n2", "ml"]
    norms, others = [part for part in forward if part[0] == "n"], [part for part in forward if part[0] != "n"]
    behind = ["sa", "n1", *(["ca", "nc"] if has_cross else []), "ml", "n2"]
    return {
        "forward": forward,
        "norms_first": norms + others,
        "norms_last": others + norms,
        "norm_after": behind,
        "pairs_mlp_first": [*behind[-2:], *behind[:-2]],
    }[order]


def network(drawn: random.Random, has_cross: bool) -> dict[str, tuple[Shape, Meaning]]:
    """Three blocks: for each key its shape and what it is."""
    stem, heads, linears = drawn.choice(STEMS), drawn.choice(HEADS).split(), drawn.choice(LINEARS).split()
    norm, module, order = drawn.randrange(14), drawn.randrange(9), drawn.choice(ORDERS)
    found: dict[str, tuple[Shape, Meaning]] = {}
    for block in range(3):
        for part in parts_of(order, has_cross):
            name = NAMES[part].split()[norm if part[0] == "n" else module]
            modules: dict[str, Shape] = {f".{head}": (WIDTH, WIDTH) for head in heads}
            if part[0] == "n":
                modules = {"": (WIDTH,)}
            elif part == "ml":
                modules = {f".{linears[0]}": (4 * WIDTH, WIDTH), f".{linears[1]}": (WIDTH, 4 * WIDTH)}
            for place, (inside, shape) in enumerate(modules.items()):
                for tensor, size in (("weight", shape), ("bias", shape[:1])):
                    found[f"{stem}.{block}.{name}{inside}.{tensor}"] = size, (block, part, place, tensor)
    return found


def main(first: int, count: int) -> None:
    totals: Counter[str] = Counter()
    for seed in range(first, first + count):
        drawn = random.Random(seed)
        has_cross = drawn.random() < 0.4
        source, target = network(drawn, has_cross), network(drawn, has_cross)
        catalogs = [Catalog([TensorInfo(key, DType.F32, shape) for key, (shape, _) in side.items()]) for side in (source, target)]
        pairs = align(*catalogs).at_least(MIN_CONFIDENCE)
        wrong = sum(source[pair.sources[0][0]][1] != target[pair.targets[0][0]][1] for pair in pairs)
        is_complete = len(pairs) == len(target)
        totals.update(tensors=len(target), sure=len(pairs), wrong=wrong, complete=is_complete, complete_and_wrong=is_complete and wrong > 0)
    print("| networks | tensors | sure pairs | right | complete drafts | of these wrong |\n|---|---|---|---|---|---|")
    right = 1 - totals["wrong"] / totals["sure"]
    print(f"| {count} | {totals['tensors']:,} | {totals['sure']:,} | {right:.2%} | {totals['complete']} | {totals['complete_and_wrong']} |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3])) if len(sys.argv) > 1 else main(7000, 300)
