"""One run of a network, with what goes in and out of some of its modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ckpt_tool.errors import InputError
from ckpt_tool.tracing.leaves import unknown_in
from ckpt_tool.tracing.orders import NO_ORDERS, Orders
from ckpt_tool.tracing.sketches import Sketch, sketches_in
from ckpt_tool.training.own_code import raised
from ckpt_tool.training.snapshots import held, version_of

if TYPE_CHECKING:
    import torch
    from torch import nn

T = TypeVar("T")
SIMPLE = (int, float, complex, str, bytes, bool, type(None))
Call = tuple[str, int]
"""A module's path, and how often it was called before."""


@dataclass(slots=True)
class Recorded:
    """What one call took and gave, as sketches; `began` and `ended` count the events of the run."""

    inputs: list[Sketch]
    began: int
    outputs: list[Sketch] = field(default_factory=list)
    ended: int = -1


@dataclass(slots=True)
class Captured:
    """What one call took and gave, in full."""

    args: tuple[object, ...]
    kwargs: dict[str, object]
    output: object = None


@dataclass(frozen=True, slots=True)
class Setting:
    """How networks are run: in training mode or not, from which random state, with gradients or
    not.
    """

    train: bool = False
    seed: int = 0
    gradients: bool = False

    def run(self, work: Callable[[Setting], T]) -> T:
        """Does something as set; with gradients where it fails without, as a network does that
        gives the gradient of its energy.
        """
        try:
            return work(self)
        except Exception as error:
            if self.gradients or not _needs_gradients(error.__cause__ or error):
                raise
        return work(replace(self, gradients=True))


def _needs_gradients(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and "does not require grad" in str(error)


class Recorder:
    """Hooks on modules of one network, by their paths; `wanted` names calls whose values are kept
    in full, `kept` modules whose outputs are. What modules inside take and give is also sketched in
    other `orders`.
    """

    def __init__(
        self,
        module: nn.Module,
        paths: Collection[str],
        wanted: Collection[Call] = (),
        kept: Callable[[str], bool] = lambda path: False,
        orders: Orders = NO_ORDERS,
    ) -> None:
        self.calls: dict[Call, Recorded] = {}
        self.captured: dict[Call, Captured] = {}
        self.kept: dict[str, list[object]] = {}
        self.given: object = None
        """What the network gave, whole."""
        self._module, self._paths, self._wanted, self._keeps = module, paths, wanted, kept
        self._orders = orders
        self.unknown: list[str] = []
        """What the network gives that can't be compared."""
        self.written: list[str] = []
        """Parameters that forward has written to, which are others now."""
        self.transformed: list[str] = []
        """Modules that ran inside of a transform whose tensors have no values to compare."""
        self._begin()

    def _begin(self) -> None:
        records = self.calls, self.captured, self.kept
        for each in (*records, self.unknown, self.written, self.transformed):
            each.clear()
        self._events = 0
        self._counts: Counter[str] = Counter()
        self._open: list[Call] = []

    def run(self, inputs: object, setting: Setting) -> object:
        """The network's output. Its modes and torch's random state are as before afterwards; what
        fails in the network raises InputError.
        """
        return setting.run(lambda setting: self._run(inputs, setting))

    def _run(self, inputs: object, setting: Setting) -> object:
        self._begin()
        args, kwargs = arguments(inputs)
        if not can_be_hooked(self._module):
            raise InputError(
                type(self._module).__name__,
                "is TorchScript, whose modules take no hooks",
                "trace the module that it was made from",
            )
        with ExitStack() as stack:
            stack.enter_context(quiet(self._module, setting))
            for path, each in self._module.named_modules():
                if (path in self._paths or self._keeps(path)) and can_be_hooked(each):
                    for handle in self._hooks(path, each):
                        stack.callback(handle.remove)
            stack.callback(self._note_written, _versions(self._module))
            try:
                return self._module(*copied(args), **copied(kwargs))
            except Exception as error:
                name = type(self._module).__name__
                where = f" in `{self._open[-1][0]}`" if self._open and self._open[-1][0] else ""
                fact = f"can't be run on this input{where}: {raised(error)}"
                raise InputError(name, fact, "give inputs as its forward takes them") from error

    def _hooks(self, path: str, module: nn.Module) -> Iterator[Any]:
        orders = self._orders if path else NO_ORDERS

        def before(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            call = path, self._counts[path]
            self._counts[path] += 1
            self._open.append(call)
            if call in self._wanted:
                self.captured[call] = Captured(copied(args), copied(kwargs))
            if path in self._paths:
                self.calls[call] = Recorded(sketches_in((args, kwargs), orders), self._event())

        def after(
            module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object
        ) -> None:
            while self._open[-1][0] != path:  # a module whose error its caller has caught
                self._open.pop()
            call = self._open.pop()
            if call in self._wanted:
                self.captured[call].output = copied(output)
            if path in self._paths:
                self.calls[call].outputs = sketches_in(output, orders)
                if call == ("", 0):
                    self.unknown, self.given = unknown_in(output), copied(output)
                self.calls[call].ended = self._event()
            if self._keeps(path):
                self.kept.setdefault(path, []).append(copied(output))

        begin, end = (self._where_values_are(path, hook) for hook in (before, after))
        yield module.register_forward_pre_hook(begin, with_kwargs=True, prepend=True)
        yield module.register_forward_hook(end, with_kwargs=True)

    def _where_values_are(self, path: str, hook: Callable[..., None]) -> Callable[..., None]:
        """A hook that leaves out the calls inside of transforms."""

        def run(*given: Any) -> None:
            if is_transformed():
                self.transformed.append(path)
            else:
                hook(*given)

        return run

    def _note_written(self, before: Mapping[str, int]) -> None:
        now = _versions(self._module)
        self.written += [name for name in now if now[name] != before.get(name, now[name])]

    def _event(self) -> int:
        self._events += 1
        return self._events


def _versions(module: nn.Module) -> dict[str, int]:
    """How often the parameters were written to; those that a trace puts back are not counted."""
    back = {id(tensor) for tensor in _rewritten(module)}
    return {
        name: version_of(each) for name, each in module.named_parameters() if id(each) not in back
    }


def can_be_hooked(module: nn.Module) -> bool:
    """Whether a module takes hooks; TorchScript's take none."""
    import torch

    return not isinstance(module, torch.jit.ScriptModule)


def is_transformed() -> bool:
    """Whether torch.func maps a function, or removes what it writes in place: the tensors inside
    have no values then, and hooks can't compare them.
    """
    import torch
    from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters

    functorch = torch._C._functorch
    if functorch.peek_interpreter_stack() is None:
        return False
    without_values = functorch.TransformType.Vmap, functorch.TransformType.Functionalize
    return any(each.key() in without_values for each in retrieve_all_functorch_interpreters())


def arguments(inputs: object) -> tuple[tuple[object, ...], dict[str, object]]:
    """Positional and named arguments: of a tuple or a list, one each; of a mapping, by name."""
    if isinstance(inputs, Mapping):
        return (), {str(name): value for name, value in inputs.items()}
    return (tuple(inputs), {}) if isinstance(inputs, tuple | list) else ((inputs,), {})


def copied(value: Any) -> Any:
    """The same with copies of its tensors and of objects that may hold some, as caches of keys and
    values do: what comes later may write into them.
    """
    from torch.utils import _pytree

    return _pytree.tree_map(_copy, value)


def _copy(value: Any) -> Any:
    import torch
    from torch import nn

    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, (*SIMPLE, nn.Module, type)) or callable(value):
        return value
    tensors = [each for each in held(value) if isinstance(each, torch.Tensor)]
    try:  # tensors of a graph can't be copied by themselves
        return deepcopy(value, {id(each): each.detach().clone() for each in tensors})
    except Exception:  # of classes of the user's own: then it is as it was before
        return value


@contextmanager
def quiet(module: nn.Module, setting: Setting) -> Iterator[None]:
    """A network in eval mode (or not), without gradients (or with), from a known random state."""
    import torch

    modes = [(each, each.training) for each in module.modules()]
    buffers = _written(module)
    owners = [each for each in module.modules() if can_be_hooked(each)]
    named = [(each._buffers, dict(each._buffers)) for each in owners]
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    gradients = [(each, each.grad) for each in module.parameters()]
    with torch.random.fork_rng(devices), torch.set_grad_enabled(setting.gradients):
        torch.manual_seed(setting.seed)
        for parameter, _ in gradients:  # forward may add to them
            parameter.grad = None
        for each, _ in modes:  # not by `train()`, whose overrides may merge weights
            each.training = setting.train
        if setting.train:
            module.train()
        try:
            yield
        finally:
            for each, mode in modes:
                each.training = mode
            for buffers_now, before in named:  # what forward has put in their place
                buffers_now.update(before)
            for buffer, values in buffers:
                buffer.detach().copy_(values)
            for parameter, gradient in gradients:
                parameter.grad = gradient


def _rewritten(module: nn.Module) -> list[torch.Tensor]:
    """What a forward pass is known to write: buffers, and embeddings that it renorms."""
    some: list[torch.Tensor] = list(module.buffers())
    for each in module.modules():
        if getattr(each, "max_norm", None) is not None:
            some += each.parameters(recurse=False)
    return some


def _written(module: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The same, with their values."""
    return [(each, each.detach().clone()) for each in _rewritten(module) if not each.is_meta]
