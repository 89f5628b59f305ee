"""What DistributedDataParallel makes of parameters that are frozen or thawed after it was built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.training.registered import registered_parameters

if TYPE_CHECKING:
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

_BUILD_LATER = (
    "freeze and thaw the inner module, then wrap; or wrap while all parameters are trainable, "
    "with `find_unused_parameters=True`"
)


def check_wrapped(
    model: nn.Module, frozen: Mapping[str, nn.Parameter], thawed: Mapping[str, nn.Parameter]
) -> None:
    """Raises InputError where a model is in a DistributedDataParallel that would wait for gradients
    of what is frozen now, or wouldn't average those of what is thawed.
    """
    wrapper = _wrapper_of(model)
    if wrapper is None:
        return
    stopped = [key for key, one in frozen.items() if one.requires_grad]
    started = {key: one for key, one in thawed.items() if not one.requires_grad}
    if (stopped or started) and wrapper.static_graph:
        fact = "has `static_graph=True`, and what trains would change"
        raise InputError("DistributedDataParallel", fact, "wrap without it")
    reduced = _reduced_by(wrapper)
    waited = next((key for key in stopped if id(frozen[key]) in reduced), None)
    if waited and not wrapper.find_unused_parameters:
        fact = f"was built to wait for the gradient of `{waited}`, which would be frozen"
        raise InputError("DistributedDataParallel", fact, _BUILD_LATER)
    if unknown := next((key for key, one in started.items() if id(one) not in reduced), None):
        fact = f"was built while `{unknown}` was frozen, and would not average its gradient"
        raise InputError("DistributedDataParallel", fact, _BUILD_LATER)


def _wrapper_of(model: nn.Module) -> DistributedDataParallel | None:
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    inner: object = model
    while isinstance(inner, nn.Module):
        if isinstance(inner, DistributedDataParallel):
            return inner
        is_parallel = isinstance(inner, nn.DataParallel)
        inner = inner.module if is_parallel else getattr(inner, "_orig_mod", None)
    return None


def _reduced_by(wrapper: DistributedDataParallel) -> set[int]:
    """The parameters whose gradients it averages: those that took one when it was built. It tells
    their number alone.
    """
    count = wrapper._get_ddp_logging_data()["num_parameter_tensors"]  # type: ignore[no-untyped-call]
    parameters = list({id(one): one for _, one in registered_parameters(wrapper.module)}.values())
    trainable = [one for one in parameters if one.requires_grad]
    known = parameters if count == len(parameters) else trainable if count == len(trainable) else []
    return {id(parameter) for parameter in known}
