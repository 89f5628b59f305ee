"""Pairs into rules: few of them, readable, general in depth, and they say exactly the pairs."""

import gzip
import json

import pytest
from literals import catalog, pairs, rules
from truths import FOLDER, read_truth

from ckpt_tool.align import Pair, draft_rules
from ckpt_tool.mapping import compile_plan, read_rule_text
from ckpt_tool.ops import parse_ops


def rename(source, target):
    return Pair(((source,),), ((target,),))


def drafted(*arrows, others=()):
    found = [rename(*arrow.split(" -> ")) for arrow in arrows]
    return draft_rules(found, [pair.sources[0][0] for pair in found] + list(others))


DRAFTS = [
    (["a.w -> b.w", "a.b -> b.b"], ["a.** -> b.**"]),
    (["m.0.x.w -> n.0.y.w", "m.1.x.w -> n.1.y.w"], ["m.{i}.x.** -> n.{i}.y.**"]),
    (["l1.conv1.w -> l1.seq.0.w", "l1.conv2.w -> l1.seq.3.w", "l1.conv3.w -> l1.seq.6.w"], ["l1.conv{i}.** -> l1.seq.{3*i-3}.**"]),
    (
        ["h.0.attn.q.w -> e.0.self.query.w", "h.0.attn.k.w -> e.0.self.key.w", "h.1.attn.q.w -> e.1.self.query.w", "h.1.attn.k.w -> e.1.self.key.w"],
        ["h.{i}.attn.{q,k}.** -> e.{i}.self.{query,key}.**"],
    ),
    (["x.0.w -> a.w", "x.2.w -> b.w", "x.0.b -> a.b", "x.2.b -> b.b"], ["x.{0,2}.** -> {a,b}.**"]),
    (["a.x.w -> b.x.w", "a.y.w -> b.y.w", "a.z.w -> c.w"], ["a.z.** -> c.**", "a.** -> b.**"]),
    (["q_proj.w -> to_q.w", "k_proj.w -> to_k.w"], ['"{q,k}_proj.** -> to_{q,k}.**"']),
]  # fmt: skip


@pytest.mark.parametrize(("arrows", "lines"), DRAFTS, ids=[lines[0] for _, lines in DRAFTS])
def test_renames_become_few_rules(arrows, lines):
    assert drafted(*arrows) == lines


def test_exceptions_stand_before_the_rule_that_they_except():
    lines = drafted(
        "m.a.0.w -> n.a.0.w", "m.a.1.w -> n.a.1.w", "m.norm.w -> n.norm.w", "m.a.0.old.w -> n.a.0.new.w", "m.a.1.old.w -> n.a.1.new.w"
    )
    assert lines == ["m.a.{i}.old.** -> n.a.{i}.new.**", "m.** -> n.**"]


def test_ops_of_several_tensors():
    keys = [f"l.{i}.e.{e}.{part}.w" for i in range(2) for e in range(3) for part in ("w1", "w3", "w2")]
    found = [
        pair
        for i in range(2)
        for pair in (
            Pair(
                tuple(tuple(f"l.{i}.e.{e}.{part}.w" for e in range(3)) for part in ("w1", "w3")),
                ((f"m.{i}.gate_up",),),
                parse_ops([{"stack": 0}, {"concat": 1}]),
            ),
            Pair((tuple(f"l.{i}.e.{e}.w2.w" for e in range(3)),), ((f"m.{i}.down",),), parse_ops({"stack": 0})),
        )
    ]
    assert draft_rules(found, keys) == [
        'from: ["l.{i}.e.{e}.w1.w", "l.{i}.e.{e}.w3.w"]\n    to: "m.{i}.gate_up"\n    ops: [{stack: 0}, {concat: 1}]',
        "l.{i}.e.{e}.w2.w -> m.{i}.down: {stack: 0}",
    ]


def test_fused_tensors_and_the_words_of_each():
    ops = parse_ops([{"split": 0}, {"each": {"b.0.q_proj.w": "transpose"}}])
    twice = parse_ops([{"split": 0}, {"each": {"b.1.q_proj.w": "transpose"}}])
    found = [Pair(((f"a.{i}.qkv.w",),), tuple((f"b.{i}.{part}_proj.w",) for part in "qkv"), each) for i, each in enumerate((ops, twice))]
    assert draft_rules(found, ["a.0.qkv.w", "a.1.qkv.w"]) == ["a.{i}.qkv.w -> b.{i}.{q,k,v}_proj.w: [{split: 0}, {each: {q: transpose}}]"]


def test_leaves_with_the_same_ops_become_a_star():
    found = [Pair(((f"a.{i}.{leaf}",),), ((f"b.{i}.{leaf}",),), parse_ops("transpose")) for i in range(2) for leaf in ("weight", "bias")]
    keys = [f"a.{i}.{leaf}" for i in range(2) for leaf in ("weight", "bias")]
    assert draft_rules(found, keys) == ["a.{i}.* -> b.{i}.*: transpose"]
    assert draft_rules(found, [*keys, "a.0.other"]) == ["a.{i}.{leaf=weight,bias} -> b.{i}.{leaf=weight,bias}: transpose"]


def test_copies_for_tied_tensors():
    pair = Pair((("emb.w",),), (("model.emb.w",), ("head.w",)), parse_ops("copy"))
    (line,) = draft_rules([pair], ["emb.w"])
    rule_set = read_rule_text(f"rules:\n  - {line}\n", "drafted")
    assert pairs(compile_plan(rule_set, catalog("emb.w 2x3"))) == {"model.emb.w": ("emb.w",), "head.w": ("emb.w",)}


def test_names_with_the_signs_of_patterns_are_escaped(tmp_path):
    lines = drafted("a{b}.w* -> c.x")
    assert pairs(compile_plan(rules(tmp_path, "rules:\n" + "".join(f"  - {line}\n" for line in lines)), catalog("a{b}.w* 2"))) == {
        "c.x": ("a{b}.w*",)
    }


PROOFS = sorted(FOLDER.glob("*.json.gz"))


@pytest.mark.parametrize("path", PROOFS, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_rules_say_the_renames_of_real_conversions(path):
    """All keys that real conversions only rename, as few rules that do exactly that."""
    truth = read_truth(path)
    wanted = {key: entry["sources"][0] for key, entry in truth.entries.items() if entry["op"] == "copy"}
    once = {key: source for key, source in wanted.items() if list(wanted.values()).count(source) == 1}
    lines = draft_rules([rename(source, key) for key, source in once.items()], list(truth.source))
    drop = [key for key in truth.source if key not in once.values()]
    text = "rules:\n" + "".join(f"  - {line}\n" for line in lines) + "drop:\n" + "".join(f"  - {json.dumps(key)}\n" for key in drop)
    plan = compile_plan(read_rule_text(text, "drafted"), truth.source)
    assert pairs(plan) == {key: (source,) for key, source in once.items()}
    assert len(lines) <= max(8, len(once) // 4), "no list of single keys"


def test_proofs_are_there():
    assert len(PROOFS) >= 64
    assert all(json.loads(gzip.decompress(path.read_bytes()))["truth"] for path in PROOFS[:2])


@pytest.mark.parametrize("count", [12, 300])
def test_pairs_of_very_many_keys_are_written_out_at_once(count):
    found = [
        Pair(tuple((f"a.{i}.b.{i * k % 7}.w{i}",) for i in range(count)), ((f"{name}.w",),), parse_ops({"concat": 0}))
        for name, k in (("x", 1), ("y", 3))
    ]
    lines = draft_rules(found, [slot[0] for pair in found for slot in pair.sources])
    assert len(lines) == 2


def test_keys_that_are_collected_stay_together_in_a_rule_for_one_pair(tmp_path):
    from ckpt_tool.align.drafting.checked import written_out

    experts = catalog(*(f"m.{e}.{word} 2x3" for e in range(3) for word in ("gate", "up")))
    slots = tuple(tuple(f"m.{e}.{word}" for e in range(3)) for word in ("gate", "up"))
    (line,) = written_out([Pair(slots, (("all",),), parse_ops([{"stack": 0}, {"concat": 1}]))], experts)
    (step,) = compile_plan(rules(tmp_path, f"rules:\n  - {line}\n"), experts, catalog("all 3x4x3")).steps
    assert step.inputs == tuple(key for slot in slots for key in slot)
