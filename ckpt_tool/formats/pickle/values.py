"""What the pickle machine makes: plain containers, descriptions of tensors and storages, and inert
stand-ins for all else.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from ckpt_tool.frozen import frozen
from ckpt_tool.tensors import DType, Shape


class PickleFault(Exception):
    """Something that no pickle of a checkpoint has; the machine adds where."""


class PickleTooLarge(PickleFault):
    """A pickle asks for more than a reader gives."""


@dataclass(slots=True, eq=False)
class Global:
    """A name that a pickle would have imported. It is only a name here; `known` describes what
    calling it would make.
    """

    module: str
    name: str
    known: Callable[[tuple[object, ...]], object] | None = None

    @property
    def full_name(self) -> str:
        """`module.name`."""
        return f"{self.module}.{self.name}"


@frozen
class Asked:
    """What unpickling would have done besides making tensors: the names that it would have called,
    and the others imported.
    """

    calls: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()

    def and_also(self, other: "Asked") -> "Asked":
        """What either asks for, each once; a call is no import as well."""
        calls = dict.fromkeys((*self.calls, *other.calls))
        return Asked(
            tuple(calls),
            tuple(
                name for name in dict.fromkeys((*self.imports, *other.imports)) if name not in calls
            ),
        )


@dataclass(slots=True, eq=False)
class Opaque:
    """An object of a class that was not imported: what it would have been made from, and what it
    was then given.
    """

    callee: object
    args: tuple[object, ...] = ()
    state: object = None
    items: dict[object, object] = field(default_factory=dict)
    appended: list[object] = field(default_factory=list)
    innermost: object = field(init=False)
    """Of nested calls, what is called first. Each call notes it: to look for it each time would
    take squared time.
    """

    def __post_init__(self) -> None:
        self.innermost = self.callee.innermost if type(self.callee) is Opaque else self.callee

    @property
    def type_name(self) -> str:
        """The name of its class or function; of nested calls, the innermost."""
        callee = self.innermost
        return callee.full_name if type(callee) is Global else f"a {type(callee).__name__}"


@frozen
class UnreadObject:
    """An object that was not looked into; `text` says what is known of it."""

    text: str


class ObjectDict(dict[object, object]):
    """A dict that also carries attributes, as an OrderedDict with `_metadata` does."""

    __slots__ = ("_attributes",)

    @property
    def attributes(self) -> dict[object, object]:
        """Its attributes, empty until it is given some."""
        return getattr(self, "_attributes", {})

    def give_attributes(self, attributes: dict[object, object]) -> None:
        """Adds attributes, in place of those of the same names."""
        self._attributes = self.attributes | attributes


@dataclass(slots=True, eq=False)
class SetValue:
    """A set. Its members are never hashed: their hashes and comparisons could be made to take
    forever.
    """

    members: list[object]


@dataclass(slots=True, eq=False)
class UnhashableKey:
    """A dict key whose hash a file could choose (a tuple, a huge integer): it is compared by
    identity.
    """

    value: object


@dataclass(slots=True, eq=False)
class StorageRef:
    """A storage of `count` elements. `dtype` is None for untyped ones, which count bytes, and for
    quantised ones.
    """

    key: str
    type_name: str
    dtype: DType | None
    itemsize: int
    count: int
    start: int = 0
    """Of a storage that is a view of another (torch before 0.4): the first element."""
    content: bytes | None = None
    """The bytes of a storage that is inside the pickle."""


@dataclass(slots=True, eq=False)
class TensorRef:
    """A strided tensor in a storage. `shape` and `stride` are as the file has them: unchecked,
    torch's way of counting F4.

    `takes` says what state BUILD may still give it: none (an empty text), `flags` (a Parameter's)
    or `place` (a tensor of torch 0.3). `attributes` are the Python attributes that it was given.
    """

    storage: StorageRef
    dtype: DType
    shape: object
    stride: object
    offset: object
    conjugate: bool = False
    negative: bool = False
    takes: str = ""
    attributes: tuple[dict[object, object], ...] = ()


@dataclass(slots=True, eq=False)
class OpaqueTensor:
    """A tensor that is no strided view of plain elements; `inside` is what it is made of, `shape`
    what the file says, unchecked.

    `kind` and `text` are those of `UnreadableTensor`.
    """

    kind: str
    text: str
    shape: object = None
    inside: tuple[object, ...] = ()
    takes: str = ""


@dataclass(slots=True, eq=False)
class ArrayType:
    """A numpy dtype by numpy's own text (`<f4`), or an empty text where it is a structure. Once an
    array has it, it is fixed.
    """

    text: str
    is_taken: bool = False


@dataclass(slots=True, eq=False)
class ArrayRef:
    """A numpy array; its content comes with its state. An array of objects has `objects` instead of
    bytes.
    """

    type_text: str = ""
    shape: Shape = ()
    is_fortran: bool = False
    content: bytes = b""
    objects: tuple[object, ...] = ()


SMALL_INTEGER = 1 << 60
"""Integers below it hash to themselves; of larger ones a file could choose any number with the same
hash.
"""


def set_items(target: dict[object, object], values: list[object]) -> None:
    """Gives a dict keys and values, which alternate. Raises PickleFault."""
    if len(values) % 2:
        raise PickleFault("has a key without a value")
    keys = values[::2]
    if set(map(type, keys)) != {str}:
        keys = [key if type(key) is str else plain_key(key) for key in keys]
    target.update(zip(keys, values[1::2], strict=True))


def plain_key(key: object) -> object:
    """A dict key whose hash and comparison are harmless. Raises PickleFault for what can't be one
    in Python either.
    """
    if isinstance(key, list | dict | ArrayRef):
        raise PickleFault(f"has {type_text(key)} as a dict key")
    is_odd = isinstance(key, tuple) or (isinstance(key, int) and abs(key) >= SMALL_INTEGER)
    return UnhashableKey(key) if is_odd else key


def type_text(value: object) -> str:
    """What a value is, for a message."""
    return f"a {type(value).__name__}"
