"""Values from short texts, so that a test's input stands in the test."""

from ckpt_tool.errors import Problem, RuleError
from ckpt_tool.mapping import RuleSet, compile_plan, read_rule_files
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.tensors import Catalog, DType, TensorInfo


def catalog(*lines: str, is_ordered: bool = True) -> Catalog:
    """`catalog("a.weight 2x3", "a.steps - I64")`: a key, a shape (`-`: a scalar), and a dtype if it is not F32."""
    return Catalog([tensor(line) for line in lines], is_ordered)


def tensor(line: str) -> TensorInfo:
    key, *rest = line.split()
    shape, dtype = (*rest, *("-", "F32")[len(rest) :])
    return TensorInfo(key, DType(dtype), () if shape == "-" else tuple(map(int, shape.split("x"))))


def rules(folder, text: str) -> RuleSet:
    """The rule set of a rule file's text; it is called `rules.yaml`."""
    path = folder / "rules.yaml"
    path.write_text(text)
    return read_rule_files([str(path)])


def problems(folder, text: str, source: Catalog, target: Catalog | None = None, **options: object) -> list[Problem]:
    """The problems of rules for two catalogs, with `rules.yaml` for the file's path."""
    try:
        compile_plan(rules(folder, text), source, target, **options)
    except RuleError as error:
        return list(error.problems)
    return []


def facts(found: list[Problem]) -> list[tuple[str, str, str]]:
    """Code, `line:column` and message of each problem."""
    return [(p.code, f"{p.where.line}:{p.where.column}" if p.where else "", p.message) for p in found]


def pairs(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Source keys by target key."""
    return {key: step.inputs for step in plan.steps for key in step.outputs}
