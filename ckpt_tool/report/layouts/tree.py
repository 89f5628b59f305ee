"""A checkpoint as the tree of its modules: how many tensors, parameters and bytes are in each, and
which share of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ckpt_tool.formats import Checkpoint
from ckpt_tool.keys import fold
from ckpt_tool.keys.folding.tokens import NO_DIGITS
from ckpt_tool.report.parts.amounts import Amount, amount_of
from ckpt_tool.report.parts.labels import by_number
from ckpt_tool.report.parts.style import PLAIN, Style, pattern_shown, size_text
from ckpt_tool.report.parts.table import Row, table
from ckpt_tool.report.show import ORDER, closing_text, header_text
from ckpt_tool.tensors import Catalog, TensorInfo
from ckpt_tool.wording import share_text

DEPTH = 2
"""Levels of modules that are shown where no depth is asked for."""
MAX_DEPTH = 64
"""Levels that are shown at most."""
TITLES = ("tensors", "parameters", "bytes", "share")


@dataclass(slots=True)
class Module:
    """A module, or several of one form side by side: its name, how many names lead to it, its
    tensors, and what is in it.
    """

    name: str
    level: int
    tensors: list[TensorInfo] = field(default_factory=list)
    children: dict[str, Module] = field(default_factory=dict)


def tree_of(catalog: Catalog, depth: int | None = None) -> Module:
    """The modules of a catalog to some depth; a tensor is no module, but for one at the root."""
    root = Module("", 0)
    most = MAX_DEPTH if depth is None else min(depth, MAX_DEPTH)
    for key, info in catalog.items():
        path = key.split(".", most)
        node = root
        node.tensors.append(info)
        for name in path[: min(most, len(path) - 1 or 1)]:
            node = node.children.setdefault(name, Module(name, node.level + 1))
            node.tensors.append(info)
    return root


def tree_text(
    checkpoint: Checkpoint,
    style: Style = PLAIN,
    depth: int | None = None,
    sort: str = ORDER,
    of: Catalog | None = None,
) -> str:
    """A line for each module, repeated blocks in one; the totals in the last line."""
    shown = depth if depth is not None else DEPTH if style.is_folded else None
    root = tree_of(checkpoint.catalog, shown)
    whole = amount_of(root.tensors)
    rows = [Row(("",), TITLES, margin=""), _row("all", "", whole, whole, whole.remark)]
    rows += [
        _row(pattern_shown(name), lead, amount_of(infos), whole, _shared(infos))
        for name, lead, infos in _lines(root, "", sort, style.is_folded)
    ]
    first, *others = table(rows, "rrrr", style)
    body = "\n".join([style.paint(first, "dim"), *others])
    about = header_text(checkpoint, style)
    return "\n\n".join([about, body, closing_text(checkpoint, of)])


def _shared(infos: Sequence[TensorInfo]) -> str:
    """What is tied to tensors of other modules, which have it in their totals too."""
    keys = {info.key for info in infos}
    ties = [info.tied_to for info in infos if info.tied_to not in (None, *keys)]
    if len(ties) == 1:
        return f"shares {pattern_shown(str(ties[0]))}"
    return f"shares {len(ties):,} tensors" if ties else amount_of(infos).remark


def _row(name: str, lead: str, amount: Amount, whole: Amount, remark: str = "") -> Row:
    share = _share(amount.nbytes, whole.nbytes)
    cells = (f"{amount.tensors:,}", f"{amount.elements:,}", size_text(amount.nbytes), share)
    return Row((f"{lead}{name}",), cells, remark, margin="")


def _share(part: int, whole: int) -> str:
    """Per cent of the whole; never none where there is some."""
    if not whole:
        return "-"
    return share_text(part / whole)


def _lines(
    node: Module, lead: str, sort: str, is_folded: bool
) -> Iterator[tuple[str, str, list[TensorInfo]]]:
    """Each module below a node with the branches before it, without recursion: keys of strangers
    may be deep.
    """
    stack = [_children(node, lead, sort, is_folded)]
    while stack:
        following = next(stack[-1], None)
        if following is None:
            stack.pop()
            continue
        module, before, below = following
        yield module.name, before, module.tensors
        stack.append(_children(module, below, sort, is_folded))


def _children(
    node: Module, lead: str, sort: str, is_folded: bool
) -> Iterator[tuple[Module, str, str]]:
    modules = list(node.children.values())
    modules = _sorted(_folded(modules) if is_folded else modules, sort)
    for i, module in enumerate(modules):
        is_last = i == len(modules) - 1
        branch, below = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
        yield module, lead + branch, lead + below


def _sorted(modules: list[Module], sort: str) -> list[Module]:
    if sort == "size":
        return sorted(modules, key=lambda module: -amount_of(module.tensors).nbytes)
    return sorted(modules, key=lambda module: by_number(module.name)) if sort == "name" else modules


def _folded(modules: Sequence[Module]) -> list[Module]:
    """Numbered modules that are equal in names, dtypes and shapes as one, in the place of the
    first.
    """
    groups: dict[object, list[Module]] = {}
    for module in modules:
        form = module.name.translate(NO_DIGITS)
        alike = _form(module) if form != module.name else None
        groups.setdefault((form, alike) if alike else module.name, []).append(module)
    return [_as_one(group) if len(group) > 1 else group[0] for group in groups.values()]


def _form(module: Module) -> object:
    """What equal modules have in common; their own names are left out."""
    return tuple(
        sorted(
            (info.key.split(".", module.level)[-1], info.dtype.value, info.shape)
            for info in module.tensors
        )
    )


def _as_one(group: Sequence[Module]) -> Module:
    names = _names([module.name for module in group])
    tensors = [info for module in group for info in module.tensors]
    inner: dict[str, Module] = {}
    for module in group:
        _add(inner, module.children)
    return Module(names, group[0].level, tensors, inner)


def _add(into: dict[str, Module], more: Mapping[str, Module]) -> None:
    """Adds modules to those of the same names, at every depth."""
    pairs = [(into, more)]
    while pairs:
        target, source = pairs.pop()
        for name, module in source.items():
            known = target.setdefault(name, Module(name, module.level))
            known.tensors = [*known.tensors, *module.tensors]
            pairs.append((known.children, module.children))


def _names(names: Sequence[str]) -> str:
    """`{0..11}`, or `layer{1..4}`, as patterns write it."""
    (one, *others) = fold(dict.fromkeys(names), [""])
    return one.pattern if not others else ", ".join(names)
