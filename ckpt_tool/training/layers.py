"""The depth of each parameter in its network, for learning rates that fall towards the input."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.keys import Matcher, PatternError, parse, wider_note

if TYPE_CHECKING:
    from torch import nn

    from ckpt_tool.keys import Pattern

_HINT = "give `layers=`, the patterns of its layers in order, as 'encoder.layer.{i}.**'"
_HINT_MORE = "name it in `layers=` too, where it belongs"
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
_OF_INPUTS = re.compile("emb|pos|tok|cls|class|mask|quer|prompt|register|absolute")
"""In the names of parameters that belong to a network's input, though no module has them."""
_EMBEDDINGS = re.compile(
    r"(?!out|un|lm_)((.*_)?(emb|embeds?|embeddings?|pos_embed\w*)|stem|wte|wpe)"
)
"""The names of modules that belong to its input."""
_OF_OUTPUTS = re.compile(
    "(.*_)?heads?|classifier|fc|fc_norm|norm|ln_f|ln_post|final.*|output.*|out_proj|proj"
)
"""The names of modules that belong to its output."""
BEFORE, AFTER = "before the blocks", "after the blocks"


@dataclass(frozen=True, slots=True)
class Depths:
    """The layer of each parameter, by its name, and how many layers there are, as BEiT counts: 0 is
    what lies before the blocks, then comes each block, then what lies after them.
    """

    layers: dict[str, tuple[int, str]]
    count: int

    def scale(self, name: str, decay: float) -> float:
        """What the rate of a parameter is multiplied by: 1 after the blocks, `decay` in the last
        block, and so on.
        """
        return float(decay ** (self.count - 1 - self.layers[name][0]))


def depths(module: nn.Module, loaded: Container[str], patterns: Sequence[str] = ()) -> Depths:
    """How deep each parameter lies: in the blocks of the network, in the order in which they are
    registered.

    Blocks are the members of lists of alike modules (`blocks.3`, `layer2.0`, `stages.1.blocks.0`)
    that have parameters among the `loaded` ones. `patterns` say the layers instead: each is a
    layer, or one for every number that it has (`encoder.layer.{i}.**`), in order. What lies between
    counts to the block that comes next. Raises InputError where the network has no blocks, or has
    them in places that don't follow each other for certain, and for a loaded parameter of which it
    isn't certain whether it lies before, between or behind them.
    """
    names = [name for name, _ in module.named_parameters()]
    labels = _by_patterns(names, patterns) if patterns else _by_blocks(module, loaded)
    order = dict.fromkeys(labels.values())
    number = {label: (i + 1, label) for i, label in enumerate(order)}
    hint = _HINT_MORE if patterns else _HINT
    _check_before(module, names, loaded, labels, hint)
    _check_behind(module, names, loaded, labels, hint)
    _check_between(module, names, loaded, {name: number[each][0] for name, each in labels.items()})
    places = [i for i, name in enumerate(names) if name in labels]
    last = len(order) + 1
    found: dict[str, tuple[int, str]] = {}
    following = (last, AFTER)
    for i, name in reversed(list(enumerate(names))):
        if name in labels:
            following = number[labels[name]]
        found[name] = following if i >= places[0] else (0, BEFORE)
    return Depths({name: found[name] for name in names}, last + 1)


def _check_before(
    module: nn.Module,
    names: Sequence[str],
    loaded: Container[str],
    labels: Container[str],
    hint: str,
) -> None:
    """Raises InputError for a loaded parameter that is registered before the blocks, and may belong
    between or behind them: a head, a module's own parameter, one of a list beside the blocks.
    """
    from torch import nn

    block = next(name for name in names if name in labels)
    for name in names[: names.index(block)]:
        path, first, inside = _beside(name, block)
        is_stray = (
            not _OF_INPUTS.search(first)
            if not inside
            else _OF_OUTPUTS.fullmatch(first)
            or (isinstance(module.get_submodule(path), nn.ModuleList) and inside[:1].isdigit())
        )
        if is_stray and name in loaded:
            kind = type(module).__name__
            fact = f"registers `{path}` before its blocks, and may use it between or behind them"
            raise InputError(kind, fact, hint)


def _check_behind(
    module: nn.Module,
    names: Sequence[str],
    loaded: Container[str],
    labels: Container[str],
    hint: str,
) -> None:
    """Raises InputError for a loaded module that is registered behind the blocks, and whose name is
    that of an input.
    """
    block = next(name for name in reversed(names) if name in labels)
    for name in names[names.index(block) + 1 :]:
        path, first, inside = _beside(name, block)
        if inside and _EMBEDDINGS.fullmatch(first) and name in loaded:
            fact = f"registers `{path}` behind its blocks, and may use it before or between them"
            raise InputError(type(module).__name__, fact, hint)


def _check_between(
    module: nn.Module, names: Sequence[str], loaded: Container[str], numbers: Mapping[str, int]
) -> None:
    """Raises InputError for a loaded parameter that no pattern matches and that is registered where
    the order of the layers is another than that of the registration.
    """
    before, open_names = 0, list[str]()
    for name in names:
        if name not in numbers:
            open_names += [name] if before and name in loaded else []
            continue
        if numbers[name] < before and open_names:
            break
        before, open_names = numbers[name], []
    else:
        if before == max(numbers.values()):
            return
        open_names = [one for one in open_names if not _is_output(one, names, numbers)]
    if open_names:
        kind = type(module).__name__
        fact = f"registers `{open_names[0]}` among layers that `layers=` has in another order"
        raise InputError(kind, fact, _HINT_MORE)


def _is_output(name: str, names: Sequence[str], numbers: Container[str]) -> bool:
    """Whether a name behind the last layer is that of a network's output."""
    block = next(one for one in reversed(names) if one in numbers)
    return bool(_OF_OUTPUTS.fullmatch(_beside(name, block)[1]))


def _beside(name: str, block: str) -> tuple[str, str, str]:
    """The module or parameter beside a block in which a name lies: its path, its own name in lower
    case, and the rest of the name.
    """
    ancestor = _common(name, block)
    first, _, inside = name[len(ancestor) :].partition(".")
    return f"{ancestor}{first}", first.lower(), inside


def _common(name: str, block: str) -> str:
    """The path, with its dot, that two names have in common."""
    found = ""
    for one, other in zip(name.split(".")[:-1], block.split("."), strict=False):
        if one != other:
            break
        found += f"{one}."
    return found


def _by_patterns(names: Sequence[str], patterns: Sequence[str]) -> dict[str, str]:
    """The layer of each name that a pattern matches, layers in order."""
    found: dict[str, str] = {}
    for text in patterns:
        matches = list(_matches(_parsed(text), names))
        if not matches:
            note, message = wider_note(text, names), f"`{text}` matches no parameter of the model"
            raise RuleError([Problem("dead-rule", message, None, (note,) if note else ())])
        for numbers, name in sorted(matches, key=lambda match: match[0]):
            found.setdefault(name, _filled(text, numbers))
    return found


def _filled(text: str, numbers: Sequence[int]) -> str:
    """A pattern with these numbers in the places of its placeholders, as `encoder.layer.3.**`."""
    left = {name: str(number) for name, number in zip(_names(text), numbers, strict=False)}
    return _PLACEHOLDER.sub(lambda found: left.get(found[1], found[0]), text)


def _names(text: str) -> dict[str, None]:
    return dict.fromkeys(found[1] for found in _PLACEHOLDER.finditer(text))


def _parsed(text: str) -> Pattern:
    try:
        return parse(text)
    except PatternError as error:
        notes = (error.hint,) if error.hint else ()
        message = f"`{text}`: {error.message}"
        raise RuleError([Problem("bad-pattern", message, None, notes)]) from None


def _matches(pattern: Pattern, names: Sequence[str]) -> Iterator[tuple[tuple[int, ...], str]]:
    """The names that match, each with the numbers that the pattern has there."""
    matcher = Matcher(pattern)
    for name in names:
        if (binding := matcher.match(name)) is not None:
            yield tuple(value for value in binding.values() if isinstance(value, int)), name


def _by_blocks(module: nn.Module, loaded: Container[str]) -> dict[str, str]:
    """The block of each name that lies in one."""
    kind = type(module).__name__
    kinds = _block_kinds(module)
    lists = [
        (path, blocks)
        for path, blocks in _lists_in(module, "", kinds)
        if _have(blocks, loaded, module)
    ]
    if not lists:
        raise InputError(kind, "has no list of alike blocks that were loaded", _HINT)
    parents = dict.fromkeys(path.rpartition(".")[0] for path, _ in lists)
    if len(parents) > 1:
        some = ", ".join(f"`{path}`" for path, _ in lists[:4]) + (" …" if lists[4:] else "")
        raise InputError(kind, f"has blocks in {some}, whose order is not certain", _HINT)
    prefixes = [path for _, blocks in lists for path in blocks]
    found: dict[str, str] = {}
    for prefix in prefixes:
        for name, _ in module.get_submodule(prefix).named_parameters(prefix):
            found.setdefault(name, prefix)
    return found


def _have(blocks: Sequence[str], loaded: Container[str], module: nn.Module) -> bool:
    """Whether any block has a parameter that was loaded."""
    return any(
        name in loaded
        for path in blocks
        for name, _ in module.get_submodule(path).named_parameters(path)
    )


def _block_kinds(module: nn.Module) -> set[type]:
    """The classes that blocks have: made of several modules, and twice in one list."""
    lists = [_members(each) for each in module.modules()]
    return {
        kind for members in lists for kind, count in Counter(members.values()).items() if count > 1
    }


def _members(module: nn.Module) -> dict[str, type]:
    """The classes of what a list has that is made of several modules and is no list itself."""
    from torch import nn

    lists = (nn.ModuleList, nn.Sequential)
    if not isinstance(module, lists):
        return {}
    return {
        name: type(child)
        for name, child in module.named_children()
        if not isinstance(child, lists) and next(child.children(), None) is not None
    }


def _lists_in(module: nn.Module, path: str, kinds: set[type]) -> Iterator[tuple[str, list[str]]]:
    """The outermost lists of blocks with the paths of these, in order of registration."""
    blocks = [name for name, kind in _members(module).items() if kind in kinds]
    has_lists = any(kinds & set(_members(child).values()) for child in module.children())
    if blocks and not has_lists:
        is_staged = len({_form(module.get_submodule(name)) for name in blocks}) > 1
        paths = [_joined(path, name) for name in blocks]
        if is_staged:
            found = [_inside(module.get_submodule(name), kinds) for name in blocks]
            stages = zip(paths, found, strict=True)
            paths = [_joined(own, name) for own, names in stages for name in names or [""]]
        yield path, paths
        return
    for name, child in module.named_children():
        yield from _lists_in(child, _joined(path, name), kinds)


def _inside(stage: nn.Module, kinds: set[type]) -> list[str]:
    """The blocks of a stage, which differs from the other members of its list in widths; none where
    it is a block itself.
    """
    for name, child in stage.named_children():
        members = _members(child)
        if members and len(members) == len(child._modules) and set(members.values()) <= kinds:
            return [f"{name}.{each}" for each in members]
    return []


def _form(module: nn.Module) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(one.shape)) for name, one in module.named_parameters())


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name
