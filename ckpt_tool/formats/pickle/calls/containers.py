"""The calls that make containers, bytes and other plain values."""

from __future__ import annotations

from ckpt_tool.formats.pickle.values import (
    Global,
    ObjectDict,
    Opaque,
    SetValue,
    set_items,
)

Args = tuple[object, ...]


def ordered_dict(args: Args) -> object:
    """`OrderedDict()`, `Counter(dict)`, or Python 2's `OrderedDict([[key, value], ..])`."""
    made = ObjectDict()
    if not args:
        return made
    pairs = args[0]
    if type(pairs) is dict:
        made.update(pairs)
        return made
    if type(pairs) is not list:
        return NotImplemented
    for key, value in pairs:
        set_items(made, [key, value])
    return made


def default_dict(args: Args) -> object:
    """`defaultdict(factory, dict)`; the factory is left out."""
    return ObjectDict() if len(args) < 2 else ordered_dict(args[1:])


def encode(args: Args) -> object:
    """`_codecs.encode(text, 'latin1')`: how protocol 2 writes bytes."""
    content, codec = args
    return (
        content.encode("latin-1")
        if type(content) is str and codec in ("latin1", "latin-1")
        else NotImplemented
    )


def plain_bytes(args: Args) -> object:
    """`bytes` or `bytearray`: of nothing, of bytes, or of (text, 'latin1')."""
    if not args:
        return b""
    if type(args[0]) is str:
        return encode(args)
    return args[0] if isinstance(args[0], bytes) and len(args) == 1 else NotImplemented


def bag(args: Args) -> object:
    """`set` or `frozenset` of a list; members are not hashed."""
    members = args[0] if args else []
    return SetValue(list(members)) if isinstance(members, list | tuple) else NotImplemented


def complex_number(args: Args) -> object:
    """`complex(real, imaginary)`."""
    real, imaginary = args
    return (
        complex(real, imaginary)
        if isinstance(real, int | float) and isinstance(imaginary, int | float)
        else NotImplemented
    )


def first(args: Args) -> object:
    """The first argument as it is: a call that changes nothing."""
    return args[0]


def size(args: Args) -> object:
    """`torch.Size` as a tuple."""
    return (
        tuple(args[0])
        if args and isinstance(args[0], list | tuple)
        else ()
        if not args
        else NotImplemented
    )


def device(args: Args) -> object:
    """`torch.device` as its text."""
    return ":".join(str(part)[:40] for part in args if isinstance(part, str | int))


def reconstruct(args: Args) -> object:
    """`copyreg._reconstructor(class, base, state)`: protocol 0 and 1's way to make an object of a
    class.
    """
    kind = args[0]
    return (
        made
        if type(kind) is Global and kind.known and (made := kind.known(())) is not NotImplemented
        else Opaque(kind)
    )
