"""What has no tensors and stands at one place in two networks: modules of different classes, and
functions, such as activations. No plan pairs them, and no tensor tells that one is the wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_tool.tracing.comparing import Parting
from ckpt_tool.tracing.exact import Found, distance_of
from ckpt_tool.tracing.recording import Captured, Setting, can_be_hooked, copied, quiet
from ckpt_tool.tracing.sketches import eps_of, rounding_of, tensors_in

if TYPE_CHECKING:
    import torch
    from torch import nn

    Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True, slots=True)
class Unlike:
    """Two modules that take the same and give something else. `said` names both, `replaced` is a
    context in which the first network's stands in the place of the second's, as `change_said` says.
    """

    said: str
    change_said: str
    replaced: Callable[[], Iterator[None]]


@dataclass(frozen=True, slots=True)
class _Call:
    path: str
    inputs: Tensors
    outputs: Tensors


def unlike_modules(
    first: nn.Module, second: nn.Module, parting: Parting, found: Found, setting: Setting
) -> list[Unlike]:
    """Those without tensors inside of the place that are called first of all that are of different
    classes, take the same and give something else; none where several may belong together.
    """
    if parting.kind == "drift":
        return []
    ones = _calls(first, found.calls[0], setting, _without_tensors(first))
    for other in _calls(second, found.calls[1], setting, _without_tensors(second)):
        beside = [each for each in ones if _agree(each.inputs, other.inputs)]
        if any(_agree(each.outputs, other.outputs) for each in beside) or _does_nothing(other):
            continue
        unlike = {each.path for each in beside if not _does_nothing(each)}
        if len(unlike) == 1:
            return list(_unlike(first, second, unlike.pop(), other.path, parting))
    return []


def _unlike(
    first: nn.Module, second: nn.Module, path: str, its: str, parting: Parting
) -> Iterator[Unlike]:
    one, other = first.get_submodule(path), second.get_submodule(its)
    if type(one) is type(other):
        return
    owner, _, name = its.rpartition(".")
    modules = second.get_submodule(owner)._modules

    def change() -> Iterator[None]:
        modules[name] = one
        try:
            yield
        finally:
            modules[name] = other

    whole, its_whole = _joined(parting.row.one, path), _joined(parting.row.other, its)
    yield Unlike(
        f"`{its_whole}` is {_shown(other)}, its counterpart `{whole}` is {_shown(one)}",
        f"`{its_whole}` = {_shown(one)} (it is {_shown(other)})",
        change,
    )


def _joined(*names: str) -> str:
    return ".".join(filter(None, names))


def _shown(module: nn.Module) -> str:
    return f"{type(module).__name__}({module.extra_repr()})"


def _calls(
    module: nn.Module, call: Captured, setting: Setting, some: Mapping[str, nn.Module]
) -> list[_Call]:
    """The calls of some modules inside of one, in the order in which they end; none where it
    fails.
    """
    calls: list[_Call] = []
    begun: dict[str, Tensors] = {}

    def run(setting: Setting) -> object:
        calls.clear()
        with quiet(module, setting):
            return module(*copied(call.args), **copied(call.kwargs))

    with ExitStack() as stack:
        for path, inner in some.items():
            before, after = _hooks(path, begun, calls)
            made = inner.register_forward_pre_hook(before, with_kwargs=True)
            stack.callback(made.remove)
            stack.callback(inner.register_forward_hook(after, with_kwargs=True).remove)
        try:
            setting.run(run)
        except Exception:
            return []
    return calls


def _hooks(
    path: str, begun: dict[str, Tensors], calls: list[_Call]
) -> tuple[Callable[..., None], Callable[..., None]]:
    def before(module: nn.Module, args: object, kwargs: object) -> None:
        begun[path] = tensors_in(copied((args, kwargs)))  # before it writes in place

    def after(module: nn.Module, args: object, kwargs: object, output: object) -> None:
        calls.append(_Call(path, begun[path], tensors_in(copied(output))))

    return before, after


def _leaves(module: nn.Module) -> dict[str, nn.Module]:
    return {
        path: each
        for path, each in module.named_modules()
        if path and not [*each.children()] and can_be_hooked(each)
    }


def _without_tensors(module: nn.Module) -> dict[str, nn.Module]:
    return {path: each for path, each in _leaves(module).items() if not each.state_dict()}


def _agree(ones: Tensors, others: Tensors) -> bool:
    apart = distance_of(ones, others)
    eps = max((eps_of(each) for each in (*ones, *others)), default=0.0)
    return apart is not None and apart.relative <= rounding_of(eps)


def _does_nothing(call: _Call) -> bool:
    """Whether it gives what it takes, as dropouts do."""
    apart = distance_of(call.inputs, call.outputs)
    return apart is not None and not apart.largest


def unlike_functions(
    first: nn.Module, second: nn.Module, parting: Parting, found: Found, setting: Setting
) -> Iterator[str]:
    """Which function of what a module gives the one that gets other inputs gets, where it is
    another one in the two networks.
    """
    at = parting.at
    if at is None or at is parting.row:
        return
    names = [
        _function_of(module, call, entered, setting)
        for module, call, entered in zip((first, second), found.calls, found.entered, strict=True)
    ]
    one, other = names
    if one is not None and other is not None and one[1] != other[1]:
        from_one, from_other = (
            _joined(parting.row.one, one[0]),
            _joined(parting.row.other, other[0]),
        )
        yield (
            f"`{at.other}` gets {other[1]} of what `{from_other}` gives, its counterpart "
            f"`{at.one}` gets {one[1]} of what `{from_one}` gives"
        )


def _function_of(
    module: nn.Module, call: Captured, entered: Captured, setting: Setting
) -> tuple[str, str] | None:
    """The one module inside and the one function of what it gives that is what another gets; None
    where there is none, or several.
    """
    got = tensors_in((entered.args, entered.kwargs))[:1]
    if not got or not got[0].is_floating_point() or not got[0].any():
        return None
    owners = {path: each for path, each in _leaves(module).items() if each.state_dict()}
    matching = {
        (each.path, name)
        for each in _calls(module, call, setting, owners)
        for given in each.outputs[:1]
        if given.shape == got[0].shape and given.is_floating_point()
        for name, function in _functions().items()
        if _agree([function(given)], got)
    }
    return matching.pop() if len(matching) == 1 else None


def _functions() -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    from torch.nn import functional

    return {
        "the value itself": lambda x: x,
        "relu": functional.relu,
        "gelu": functional.gelu,
        "gelu with `approximate='tanh'`": lambda x: functional.gelu(x, approximate="tanh"),
        "x * sigmoid(1.702 x)": lambda x: x * (1.702 * x).sigmoid(),
        "silu": functional.silu,
        "tanh": lambda x: x.tanh(),
        "sigmoid": lambda x: x.sigmoid(),
        "leaky_relu": functional.leaky_relu,
        "elu": functional.elu,
        "softplus": functional.softplus,
        "mish": functional.mish,
        "hardswish": functional.hardswish,
        "relu squared": lambda x: x.relu().square(),
    }
