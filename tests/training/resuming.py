"""Training that stops, goes through a plan, and goes on with the same arithmetic on other parameters.

The new parameters are what the plan's ops make of the old ones; before each loss the ops' inverse makes the old ones of them
again, so that both runs calculate the very same, and any difference is the optimizer's state.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from ckpt_tool.mapping.plan import Origin, Plan, Step
from ckpt_tool.ops import invert_chain, parse_ops, run_chain
from ckpt_tool.tensors import Catalog
from ckpt_tool.torch_bridge import tensor_info

OPTIMIZERS: dict[str, Callable[[object], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "SGD-dampening": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, dampening=0.3),
    "Adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True, weight_decay=0.01),
    "Adam-single": lambda p: torch.optim.Adam(p, 0.01, foreach=False),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.01),
    "Adamax": lambda p: torch.optim.Adamax(p, 0.01),
    "NAdam": lambda p: torch.optim.NAdam(p, 0.01),
    "RAdam": lambda p: torch.optim.RAdam(p, 0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.05, lr_decay=0.01, initial_accumulator_value=0.1),
    "Adadelta": lambda p: torch.optim.Adadelta(p, 1.0),
    "Rprop": lambda p: torch.optim.Rprop(p, 0.01),
    "ASGD": lambda p: torch.optim.ASGD(p, 0.05, t0=5),
}


def step(inputs: Sequence[str], outputs: Sequence[str], *ops: object) -> Step:
    """A step of a plan; ops as rules write them."""
    return Step(tuple(inputs), tuple(outputs), parse_ops(list(ops)), Origin("name"))


def plan_of(steps: Sequence[Step], source: Mapping[str, torch.Tensor], order: Sequence[str] = (), kept: Mapping[str, torch.Tensor] | None = None) -> Plan:
    """The plan of these steps; the target has its keys in `order`, else as the steps give them."""
    values = {**moved(steps, source), **(kept or {})}
    target = catalog_of({key: values[key] for key in order or values})
    used = {key for each in steps for key in each.inputs}
    return Plan(tuple(steps), tuple(key for key in source if key not in used), tuple(kept or ()), catalog_of(source), target)


def catalog_of(tensors: Mapping[str, torch.Tensor]) -> Catalog:
    """That of a model with these parameters."""
    return Catalog([tensor_info(key, tensor) for key, tensor in tensors.items()], is_declared=True)


def moved(steps: Sequence[Step], values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the steps make."""
    made = {}
    for each in steps:
        results = run_chain(each.ops, [values[key].detach() for key in each.inputs])
        made |= {key: result.clone(memory_format=torch.contiguous_format) for key, result in zip(each.outputs, results, strict=True)}
    return made


class Net(nn.Module):
    """Parameters by any names, in any order; `canonical` gives those that the loss is made of."""

    def __init__(self, values: Mapping[str, torch.Tensor], canonical: Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]]) -> None:
        super().__init__()
        for key, value in values.items():
            self.register_parameter(key, nn.Parameter(value.clone()))
        self.canonical = canonical

    def loss(self, number: int) -> torch.Tensor:
        """A loss that depends on the step's number and on nothing else."""
        total = torch.zeros(())
        for place, (_, value) in enumerate(sorted(self.canonical(dict(self.named_parameters())).items())):
            data = torch.randn(value.shape, generator=torch.Generator().manual_seed(100 * number + place))
            total = total + ((value.contiguous() * 1.5 - data) ** 2).sum()
        return total


def inverse(steps: Sequence[Step], source: Mapping[str, torch.Tensor]) -> Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]]:
    """The source's tensors from the target's."""
    catalog = catalog_of(source)
    from ckpt_tool.mapping.plan import input_forms

    chains = [(each, invert_chain(each.ops, input_forms(each, catalog)).ops) for each in steps]

    def canonical(values: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        back = {}
        for each, ops in chains:
            back |= dict(zip(each.inputs, run_chain(ops, [values[key] for key in each.outputs]), strict=True))
        return back

    return canonical


def train(net: Net, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        optimizer.zero_grad()
        net.loss(number).backward()
        optimizer.step()


def trained(source: Mapping[str, torch.Tensor], make: Callable[[object], torch.optim.Optimizer], steps: int) -> tuple[Net, torch.optim.Optimizer]:
    """A net with these parameters after some steps."""
    net = Net(source, dict)
    optimizer = make(net.parameters())
    train(net, optimizer, range(steps))
    return net, optimizer


def saved(net: Net, optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """What a checkpoint has of both."""
    return copy.deepcopy(dict(net.state_dict())), copy.deepcopy(optimizer.state_dict())
