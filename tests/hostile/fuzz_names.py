"""Fuzzed texts that no checkpoint is in: two lists of keys with hints, formulas, parameters with the config.json that they read."""

import json
import re
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from pathlib import Path

from ckpt_tool.align import suggest
from ckpt_tool.api.remarks.hints import diff_hints
from ckpt_tool.api.remarks.long_names import check_names
from ckpt_tool.api.suggestions import _hint
from ckpt_tool.comparing import diff_catalogs
from ckpt_tool.errors import CkptError
from ckpt_tool.formats.key_list import format_key_list, read_key_list
from ckpt_tool.keys import Matcher, fold, parse
from ckpt_tool.mapping import (
    Plan,
    compile_plan,
    plan_by_name,
    plan_by_position,
    read_config,
    read_rule_text,
)
from ckpt_tool.mapping.formulas import FormulaError, parse_formula
from ckpt_tool.report.diff import diff_text
from ckpt_tool.report.parts.json_text import to_json
from ckpt_tool.report.parts.style import Style
from ckpt_tool.report.plan import PlanNames, plan_text
from ckpt_tool.report.suggest import suggestion_json, suggestion_notes
from ckpt_tool.tensors import Catalog
from tests.hostile.promises import CATALOG, Misread, check_error, check_shown

CUT = b"\n----\n"
"""Stands between the parts of an input: two key lists and hints, or rules and a config.json."""
NUMBERS = {"a": 3, "n": 1, "heads": 12, "hidden_size": 768, "_x": 0}


def catalog_pairs() -> list[bytes]:
    block = "{0}.{1}.{2}.weight\tF32\t8x8\n{0}.{1}.{2}.bias\tF32\t8\n"
    ours = "".join(block.format("layers", i, name) for i in range(3) for name in ("q", "k", "out")) + "emb\tF32\t9x8\n"
    theirs = "".join(block.format("h", i, name) for i in range(3) for name in ("attn.query", "attn.key", "attn.o")) + "wte\tF32\t9x8\n"
    fused = "".join(f"h.{i}.qkv.weight\tF32\t24x8\nh.{i}.qkv.bias\tF32\t24\n" for i in range(3))
    odd = "".join(f"module.{i}.{name}\tF32\t{i + 2}x3\n" for i in range(3) for name in ("a=b.w", "c=d.w", "x,y.#.w", "{p}. *", "->.q\\"))
    even = "".join(f"net.b{2 * i + 1}.{name}\tF32\t3x{i + 2}\n" for i in range(3) for name in ("a.w", "c.w", "x.w", "p.w", "q.w"))
    hint = "layers.0.q.weight -> h.0.attn.key.weight"
    return [
        CUT.join(part.encode() for part in parts)
        for parts in ((ours, theirs, hint), (ours, ours, ""), (ours, fused, ""), (theirs, ours, ""), (odd, even, ""))
    ]


def formulas() -> list[bytes]:
    return [b"heads * 64", b"(hidden_size - 2) / 2", b"3*n - 3", b"a*(n+_x)/1", b"((a))"]


def params() -> list[bytes]:
    rules = (
        "params:\n  heads: {from: [num_heads, text.heads]}\n  size: {dim: [fc.weight, 0]}\n  n: {count: layer1.*.conv1.weight}\n"
        "  m: {value: heads * n / 2, default: 4}\nrules:\n  - fc.weight -> out: [{reshape: [heads, -1]}, flatten]\n  - layer{m}.** -> l.**\n"
    )
    return [CUT.join((rules.encode(), json.dumps(config).encode())) for config in ({"num_heads": 2}, {"text": {"heads": 4}}, {})]


def check_catalogs(raw: bytes, path: Path) -> None:
    """Whatever the keys are: a diff, plans and drafted rules, or one error; and all of it fit for a terminal."""
    parts = [*raw.split(CUT), b"", b""][:3]
    try:
        ours, theirs = (read_key_list(BytesIO(part), "keys.tsv").catalog for part in parts[:2])
        hints = [_hint(line) for line in parts[2].decode("utf-8", "replace").split("\n") if line]
        for catalog in (ours, theirs):
            check_names("keys.tsv", catalog)
    except CkptError as error:
        return check_error(error)
    for catalog in (ours, theirs):
        if read_key_list(BytesIO(format_key_list(catalog).encode()), "keys.tsv").catalog != catalog:
            raise Misread("a key list is not what was listed")
    _check_diff(ours, theirs)
    for make in (plan_by_name, plan_by_position, lambda a, b: suggest(a, b, hints).plan):
        with suppress(CkptError):
            if (plan := make(ours, theirs)) is not None:
                check_shown(plan_text(plan, PlanNames("a", "b", ())))
    return _check_suggestion(ours, theirs, hints)


def _check_diff(ours: Catalog, theirs: Catalog) -> None:
    found = diff_catalogs(ours, theirs)
    keys = dict.fromkeys([*ours, *theirs])
    for one in fold(dict.fromkeys(theirs), keys):
        matcher = Matcher(parse(one.pattern))
        if {key for key in keys if matcher.match(key) is not None} != set(one.keys):
            raise Misread(f"{one.pattern!r} stands for {one.keys}, and matches others")
    check_shown(diff_text(found, ("a", "b"), hints=diff_hints(found, ("a", "b"))))
    check_shown(diff_text(found, ("a", "b"), Style(is_folded=False)))


def _check_suggestion(ours: Catalog, theirs: Catalog, hints: list[tuple[str, str]]) -> None:
    try:
        found = suggest(ours, theirs, hints)
    except CkptError as error:
        return check_error(error)
    check_shown(suggestion_notes(found))
    json.loads(to_json(suggestion_json(found, ("a", "b"))))
    if found.plan is not None:
        check_shown(found.text)
        # Pairs that are not sure stand under no section, but as comments: they are left to a person.
        rules = replace(read_rule_text(found.text, "suggested.yaml"), rest_source="drop", rest_target="keep")
        again = compile_plan(rules, ours, theirs, dtypes="target")
        if _ways(again) != _ways(found.plan):
            raise Misread("the rules that were drafted make another plan than was said")
    return None


def _ways(plan: Plan) -> set[tuple[tuple[str, ...], tuple[str, ...], str]]:
    return {(step.inputs, step.outputs, repr(step.ops)) for step in plan.steps}


def check_formula(raw: bytes, path: Path) -> None:
    """A value is the one that exact arithmetic gives."""
    try:
        formula = parse_formula(raw.decode("utf-8", "replace"))
        if not set(formula.names) <= NUMBERS.keys():
            return
        value = formula.value(NUMBERS)
    except FormulaError:
        return
    exact = " ".join(
        f"Fraction({int(NUMBERS.get(token, token))})" if re.fullmatch(r"\w+", token, re.A) else token for token in formula.tokens
    )
    if value != eval(exact, {"Fraction": Fraction}):
        raise Misread(f"{formula.text!r} is not {value}")


def check_params(raw: bytes, path: Path) -> None:
    rules, _, config = raw.partition(CUT)
    (path.parent / "config.json").write_bytes(config)
    try:
        read = read_config(str(path.parent / "model.safetensors"))
        check_shown(
            plan_text(
                compile_plan(read_rule_text(rules.decode("utf-8", "replace"), "r.yaml"), CATALOG, None, {}, read), PlanNames("a", None, ())
            )
        )
    except CkptError as error:
        check_error(error)
