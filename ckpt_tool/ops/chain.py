"""Several ops in a row, for all tensors or for some of them: parsed from a rule, inferred, run,
inverted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar, get_args

from ckpt_tool.ops.arithmetic import Affine, Unary
from ckpt_tool.ops.casts import Cast
from ckpt_tool.ops.combining import Concat, Split
from ckpt_tool.ops.copies import Copy, Repeat, Same
from ckpt_tool.ops.fits import FITS
from ckpt_tool.ops.init import Init
from ckpt_tool.ops.op import (
    Inverse,
    Labels,
    Leaf,
    Node,
    Op,
    OpError,
    Part,
    TensorForm,
    Verdict,
    infer_chain,
)
from ckpt_tool.ops.permuting import Rearrange, Reshape, Transpose
from ckpt_tool.ops.reductions import Mean, Sum, WeightNorm
from ckpt_tool.ops.slicing import Index, Pad, Slice
from ckpt_tool.ops.stacking import Stack, Unstack
from ckpt_tool.regions import Region

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Each(Op):
    """Ops for some of the tensors only: for those that a word of a choice, or one of the rule's
    patterns, stands for.

    `labels` are the words of each tensor, `mixed` those that stand for parts of one only; the
    rule's group gives them.
    """

    name: ClassVar[str] = "each"
    chains: tuple[tuple[str, tuple[Op, ...]], ...] = ()
    labels: Labels | None = None
    mixed: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From a mapping of words to ops, none of which may collect, produce, or be `each`."""
        if not isinstance(argument, Mapping) or not argument:
            raise OpError("`each` gives ops for words, as in `{q: transpose}`")
        chains = tuple((str(word), parse_ops(ops)) for word, ops in argument.items())
        ops = [op for _, chain in chains for op in chain]
        if stray := [op.name for op in ops if not _works_on_one_tensor(op)]:
            raise OpError(f"`each`: `{stray[0]}` can't be inside; it works on several tensors")
        return cls(chains)

    def argument(self) -> object:
        """The words, each with its op or with the list of its ops."""
        plain = {word: ops_argument(ops) for word, ops in self.chains}
        return {word: ops[0] if len(ops) == 1 else ops for word, ops in plain.items()}

    def parameters(self) -> frozenset[str]:
        """The parameters of all the ops inside."""
        return frozenset(name for _, ops in self.chains for op in ops for name in op.parameters())

    def bind(self, values: Mapping[str, int]) -> Self:
        """With the ops inside bound."""
        return replace(
            self,
            chains=tuple((word, tuple(op.bind(values) for op in ops)) for word, ops in self.chains),
        )

    def with_labels(self, labels: Labels, mixed: frozenset[str]) -> Self:
        """With the words that the tensors stand for, in the order of the tensors."""
        return replace(self, labels=labels, mixed=mixed)

    def chain(self, index: int) -> tuple[Op, ...]:
        """The ops for the tensor at this place: none where no word is its own."""
        labels = self.labels[index] if self.labels and index < len(self.labels) else frozenset()
        found = [(word, ops) for word, ops in self.chains if word in labels]
        if len(found) > 1:
            raise OpError(f"`each`: `{found[0][0]}` and `{found[1][0]}` stand for one tensor")
        return found[0][1] if found else ()

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """What its own chain makes of each tensor. Raises OpError for words that don't fit."""
        if self.labels is None or len(self.labels) != len(inputs):
            raise OpError(
                "`each` does not know which tensor a word stands for; "
                "it belongs beside the choice's own op"
            )
        if stray := [word for word, _ in self.chains if word in self.mixed]:
            raise OpError(
                f"`each`: `{stray[0]}` is a part of a tensor here; "
                "put it before the op that joins, or after the one that splits"
            )
        return tuple(
            form
            for index, given in enumerate(inputs)
            for form in infer_chain(self.chain(index), [given])
        )

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What its own chain makes of each tensor; tensors without a chain pass on as they are."""
        return [
            result
            for index, tensor in enumerate(inputs)
            for result in run_chain(self.chain(index), [tensor])
        ]

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """What the tensor's own chain needs."""
        found = needed_part(self.chain(output), inputs[output : output + 1], 0, region)
        return found and _replaced(found, lambda leaf: Leaf(output, leaf.region))

    def invert(self) -> Inverse:
        """`each` of the inverse chains, as good as the worst; nothing where one has none."""
        return self._inverted({word: invert_chain(ops) for word, ops in self.chains})

    def invert_for(self, inputs: Sequence[TensorForm]) -> Inverse:
        """As `invert`, each chain inverted for the form of the first tensor of its word."""
        first = {
            word: i
            for word, _ in self.chains
            for i in reversed(range(len(inputs)))
            if self.labels and word in self.labels[i]
        }
        return self._inverted(
            {
                word: invert_chain(ops, [inputs[first[word]]])
                if word in first
                else invert_chain(ops)
                for word, ops in self.chains
            }
        )

    def _inverted(self, inverses: Mapping[str, Inverse]) -> Inverse:
        worst = weakest(list(inverses.values()))
        if any(not each.ops for each in inverses.values()):
            return worst
        return replace(
            worst,
            ops=(replace(self, chains=tuple((word, each.ops) for word, each in inverses.items())),),
        )


def _works_on_one_tensor(op: Op) -> bool:
    return not (op.collects or op.produces or isinstance(op, Each))


OPS: dict[str, type[Op]] = {
    "transpose": Transpose, "rearrange": Rearrange, "reshape": Reshape,
    "concat": Concat, "split": Split, "stack": Stack, "unstack": Unstack,
    "copy": Copy, "same": Same,
    "slice": Slice, "pad": Pad, "index": Index, "repeat": Repeat,
    "each": Each,
    "cast": Cast, "affine": Affine, "unary": Unary, "sum": Sum, "mean": Mean,
    "weight_norm": WeightNorm, "init": Init,
}  # fmt: skip
"""All ops, by the names that rules use."""


def parse_ops(argument: object) -> tuple[Op, ...]:
    """The ops of a rule: `transpose`, `{split: 0}`, `{rearrange: "…", h: heads}`, or a list of
    these. Raises OpError.
    """
    if isinstance(argument, list | tuple):
        return tuple(op for item in argument for op in parse_ops(item))
    if isinstance(argument, str):
        return (_class(argument).parse(None),)
    if not isinstance(argument, Mapping) or not argument:
        raise OpError(f"an op is a name, or a name with its argument, not {argument!r}")
    return (_op_with_fields(argument),)


MAIN_FIELDS = {"rearrange": "pattern", "unary": "function", "init": "kind"}
"""The field whose value stands beside an op's name; it is `dim` for all others."""


def _op_with_fields(argument: Mapping[object, object]) -> Op:
    """The op that a mapping names, its other fields in the same mapping."""
    names = [str(name) for name in argument if name in OPS]
    if len(names) > 1:
        raise OpError(
            f"`{names[0]}` and `{names[1]}` in one mapping; ops that follow each other are a list"
        )
    if not names:
        return _class(str(next(iter(argument)))).parse(None)
    (name,) = names
    if len(argument) == 1 or name == "each":
        return OPS[name].parse(argument[name])
    others = {str(key): value for key, value in argument.items() if key != name}
    return OPS[name].parse({MAIN_FIELDS.get(name, "dim"): argument[name], **others})


def _class(name: str) -> type[Op]:
    if name in FITS:
        raise OpError(
            f"`{name}` is not an op but a fit, which goes under `fit:`, "
            f'as in `fit: [{{"PATTERN OF THE TARGET": {name}}}]`'
        )
    if name not in OPS:
        meant = "".join(f"did you mean `{near}`? " for near in get_close_matches(name[:99], OPS, 1))
        raise OpError(f"`{name}` is not an op; {meant}there are {', '.join(OPS)}")
    return OPS[name]


def ops_argument(ops: Sequence[Op]) -> list[object]:
    """Plain data from which `parse_ops` makes these ops again."""
    return [_plain(op) for op in ops]


def _plain(op: Op) -> object:
    argument = op.argument()
    if argument is None:
        return op.name
    if isinstance(argument, Mapping) and isinstance(op, Rearrange):
        return {
            op.name: argument["pattern"],
            **{axis: size for axis, size in argument.items() if axis != "pattern"},
        }
    return {op.name: argument}


def run_chain(ops: Sequence[Op], tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors that the ops make, one after the other, on the CPU."""
    result = list(tensors)
    for op in ops:
        result = op.run(result)
    return result


def needed_part(
    ops: Sequence[Op], forms: Sequence[TensorForm], output: int, region: Region
) -> Part | None:
    """What a box of one result of these ops needs of their inputs; None where it may need all."""
    if not ops:
        return Leaf(output, region)
    before = infer_chain(ops[:-1], forms)
    part = ops[-1].part(output, region, before)
    return part and _replaced(
        part, lambda leaf: needed_part(ops[:-1], forms, leaf.input, leaf.region)
    )


def _replaced(part: Part, make: Callable[[Leaf], Part | None]) -> Part | None:
    """With something else for each leaf; None where there is none for one."""
    if isinstance(part, Leaf):
        return make(part)
    parts = [_replaced(each, make) for each in part.parts]
    if any(each is None for each in parts):
        return None
    return Node(part.ops, tuple(each for each in parts if each is not None))


def leaves_of(part: Part) -> Iterator[Leaf]:
    """The boxes of inputs that a part is made of."""
    if isinstance(part, Leaf):
        yield part
    else:
        for each in part.parts:
            yield from leaves_of(each)


def run_part(part: Part, read: Callable[[Leaf], torch.Tensor]) -> torch.Tensor:
    """The tensor that the ops make of the boxes."""
    if isinstance(part, Leaf):
        return read(part)
    (made,) = run_chain(part.ops, [run_part(each, read) for each in part.parts])
    return made


def run_step(
    ops: Sequence[Op],
    tensors: Sequence[torch.Tensor],
    target: Callable[[], torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """A step's ops; `target` gives the target's own tensor to a fit, wherever it stands, that takes
    what the source lacks from it.
    """
    result = list(tensors)
    for op in ops:
        if getattr(op, "needs_target", False):
            if target is None:
                raise OpError(f"`{op.name}` needs the target's values")
            result.append(target())
        result = op.run(result)
    return result


def invert_chain(ops: Sequence[Op], forms: Sequence[TensorForm] | None = None) -> Inverse:
    """The ops that undo all of these, last first; with the forms that go in, more can be undone.

    The verdict is that of the weakest link. A link without an inverse leaves the whole without ops.
    """
    inverses: list[Inverse] = []
    is_last = True
    for op in ops:
        inverses.append(_of_parts(op.invert() if forms is None else op.invert_for(forms), is_last))
        is_last = is_last and not op.collects and not op.produces
        forms = None if forms is None else op.infer(forms)
    worst = weakest(inverses)
    if any(not each.ops for each in inverses):
        return worst
    return replace(worst, ops=tuple(op for each in reversed(inverses) for op in each.ops))


def _of_parts(inverse: Inverse, is_last: bool) -> Inverse:
    """The inverse of one link: of a `split`, only the last one's parts are counted by keys, and
    have the sizes of the target's.
    """
    if not is_last and any(isinstance(op, Split) and op.is_as_target for op in inverse.ops):
        return Inverse(
            (),
            inverse.verdict,
            "the inverse needs the parts' sizes; an inverse of a concrete plan knows them",
        )
    return replace(
        inverse,
        ops=tuple(
            op.shortened() if isinstance(op, Split) and is_last else op for op in inverse.ops
        ),
    )


def weakest(inverses: Sequence[Inverse]) -> Inverse:
    """The worst verdict, with every reason, and no ops."""
    worst = max(
        inverses,
        key=lambda each: get_args(Verdict).index(each.verdict),
        default=Inverse((), "exact"),
    )
    return Inverse(
        (), worst.verdict, "; ".join(dict.fromkeys(each.why for each in inverses if each.why))
    )
