"""Variants of pickles: every opcode where it does not belong, bombs, calls of everything, persistent ids and geometry of every wrong kind."""

import pickle
import pickletools
import struct
from collections.abc import Iterator
from itertools import pairwise, product

from tests.hostile.broken_files import archive, records, tensor_pickle
from tests.hostile.variants_safetensors import Variant

HEAD = b"\x80\x02"
W = tensor_pickle()[2:-1]
"""The opcodes that make {"w": tensor}."""
BAD_NUMBERS: tuple[object, ...] = (
    -1, -(1 << 31), -(1 << 63), 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, 1 << 2000, True, False, None, 4.0, float("nan"),
    float("inf"), "4", b"4", (4,), [4], {}, {4}, 1j,
)  # fmt: skip


def plain(value: object) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def called(module: str, name: str, arguments: bytes = b")", how: str = "R") -> bytes:
    """The opcodes of a call."""
    got = b"c" + module.encode() + b"\n" + name.encode() + b"\n"
    if how == "o":
        return b"(" + got + arguments + b"o"
    if how == "i":
        return b"(" + arguments + b"i" + got[1:]
    return got + arguments + {"R": b"R", "new": b"\x81", "new with names": b"}\x92"}[how]


def pickle_variants() -> Iterator[Variant]:
    for made in (_opcodes_alone, _opcodes_inside, _arguments, _bombs, _calls, _names, _identities, _geometry, _forms):
        for name, raw, verdict in made():
            yield f"{made.__name__[1:]}-{name}.pth", archive({**records(), "data.pkl": raw}), verdict
            if made not in (_opcodes_inside, _bombs, _geometry):
                yield f"{made.__name__[1:]}-{name}.pkl", raw, "either"


def _samples() -> Iterator[tuple[str, bytes]]:
    """Each opcode with an argument or two."""
    for one in pickletools.opcodes:
        code = one.code.encode("latin-1")
        if one.arg is None:
            yield one.name, code
        elif one.arg.n > 0:
            yield one.name, code + bytes(one.arg.n)
            yield f"{one.name} most", code + b"\xff" * one.arg.n
        elif one.arg.n == pickletools.UP_TO_NEWLINE:
            yield one.name, code + (b"bait\nrun\n" if one.arg.name == "stringnl_noescape_pair" else b"'0'\n" if one.name == "STRING" else b"0\n")
            yield f"{one.name} empty", code + b"\n\n"
            yield f"{one.name} without an end", code + b"abc"
        else:
            size = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4, pickletools.TAKEN_FROM_ARGUMENT4U: 4}.get(one.arg.n, 8)
            yield one.name, code + (1).to_bytes(size, "little") + b"a"
            yield f"{one.name} too long", code + b"\xff" * (size - 1) + b"\x7f" + b"a"
            yield f"{one.name} most", code + b"\xff" * size + b"a"


def _opcodes_alone() -> Iterator[Variant]:
    for name, code in _samples():
        for place, raw in {"alone": code + b".", "first": code + W + b".", "last": W + code + b".", "twice": code * 2 + W + b".", "many": code * 300 + b"."}.items():
            yield f"{name} {place}", HEAD + raw, "either"
    for byte in range(256):
        yield f"byte {byte}", bytes([byte]), "either" if byte else "refuse"
    for protocol in (0, 1, 3, 4, 5, 6, 99, 255):
        yield f"protocol {protocol}", b"\x80" + bytes([protocol]) + W + b".", "refuse" if protocol > 5 else "read"
    for end in range(len(W)):
        yield f"cut at {end}", HEAD + W[:end], "refuse"


def _opcodes_inside() -> Iterator[Variant]:
    """Each opcode that takes no argument before every opcode of a tensor."""
    ends = [0, *(place for _, _, place in pickletools.genops(HEAD + W + b".") if place)]
    steps = [(HEAD + W + b".")[start:end] for start, end in pairwise([*ends, len(HEAD + W) + 1])]
    for (name, code), at in product([(one.name, one.code.encode("latin-1")) for one in pickletools.opcodes if one.arg is None], range(1, len(steps))):
        yield f"{name} at {at}", b"".join([*steps[:at], code, *steps[at:]]), "either"


def _arguments() -> Iterator[Variant]:
    for number, line in enumerate((b"", b"-", b"+1", b"1_0", b"0x10", b"1.0", b" 1", b"1 ", b"00", b"01", b"nan", b"9" * 5000, b"-" * 5, "٤".encode(), b"\xff", b"1L", b"1LL", b"1e5")):
        for code in (b"I", b"L", b"F", b"g", b"p", b"S", b"V", b"P"):
            yield f"{code.decode()} {number}", HEAD + code + line + b"\n" + W + b".", "either"
    for number, line in enumerate((b"'", b"''", b"'a", b"\"a'", b"'\\x4'", b"'\\'", b"'\\u0041'", b"'\\N{BULLET}'", b"'\\777'", b"'a' 'b'", b"b'a'", b"'a'+'b'", b"`a`", b"'" * 9)):
        yield f"string {number}", HEAD + b"S" + line + b"\n.", "either"
        yield f"unicode {number}", HEAD + b"V" + line.replace(b"'", b"") + b"\n.", "either"
    for size in (0, 1, 4, 8, 4096, 4097, 100_000):
        yield f"an integer of {size} bytes", HEAD + b"\x8b" + struct.pack("<i", size) + b"\xff" * size + b".", "either"
    for raw in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"):
        yield f"no text {raw.hex()}", HEAD + b"}X" + struct.pack("<I", len(raw)) + raw + b"K\x01s.", "either"


def _bombs() -> Iterator[Variant]:
    laughs = b"]q\0(" + b"K\x01" * 10 + b"e" + b"".join(b"]" + bytes([ord("q"), number]) + b"(" + bytes([ord("h"), number - 1]) * 10 + b"e" for number in range(1, 40))
    yield "laughs by lists", HEAD + laughs + b".", "either"
    yield "laughs in a dict", HEAD + b"}" + text("a") + laughs + b"s.", "either"
    dicts = b"}q\0" + b"".join(b"}" + bytes([ord("q"), number]) + b"(" + b"".join(text(c) + bytes([ord("h"), number - 1]) for c in "abcdefgh") + b"u" for number in range(1, 40))
    yield "laughs by dicts", HEAD + dicts + b".", "either"
    shared = b"}q\0" + W[1:] + b"".join(b"}" + bytes([ord("q"), number]) + b"(" + text("a") + bytes([ord("h"), number - 1]) + text("b") + bytes([ord("h"), number - 1]) + b"u" for number in range(2, 60) if number != 1)  # fmt: skip
    yield "laughs with a tensor", HEAD + shared.replace(b"h\x01", b"h\0") + b".", "either"
    for name, (before, one, after) in {"tuples": (b")", b"\x85", b""), "lists": (b"", b"]", b"a" * 199_999), "dicts": (b"", b"}" + text("a"), b"}" + b"s" * 200_000),
        "sets": (b"", b"\x8f(", b"\x90" * 200_000), "calls": (b")", b"\x85cbait\nrun\n", b""), "states": (b"cbait\nrun\n)\x81", b"0cbait\nrun\n)\x81}b", b""),
        "marks": (b"", b"(", b""), "dups": (b")", b"2", b""), "puts": (b")", b"\x94", b""), "frames": (b"", b"\x95" + bytes(8), b"}")}.items():  # fmt: skip
        yield f"deep {name}", HEAD + before + one * 200_000 + after + b".", "either"
    yield "a memo of millions", b"\x80\x04]" + b"\x94" * 3_000_000 + b".", "either"
    yield "a stack of millions", HEAD + b"N" * 5_000_000 + b".", "either"
    yield "lists of millions", HEAD + b"]" * 3_000_000 + b".", "either"
    yield "a far memo", HEAD + b"}r\xff\xff\xff\xffj\xff\xff\xff\xff.", "either"
    for name, keys in {"same hashes": b"".join(plain(i * ((1 << 61) - 1)) + b"N" for i in range(30_000)), "long": plain("k" * 5_000_000) + b"N",
        "floats": b"".join(plain(float(i) * (1 << 61)) + b"N" for i in range(20_000)), "tuples": b"".join(plain((i, (i, (i,)))) + b"N" for i in range(20_000))}.items():  # fmt: skip
        yield f"keys, {name}", HEAD + b"}(" + keys + b"u.", "either"
    for name in ("bytearray", "bytes", "range", "list", "tuple", "str", "complex"):
        yield f"{name} of 2**40", HEAD + called("builtins", name, plain(1 << 40) + b"\x85") + b".", "either"
    yield "an array of 2**60", HEAD + called("numpy", "empty", plain((1 << 60,)) + b"\x85") + b".", "either"
    yield "a tensor of 2**60", HEAD + called("torch", "FloatTensor", plain(1 << 60) + b"\x85") + b".", "either"


def _calls() -> Iterator[Variant]:
    names = ("bait run", "os system", "posix system", "nt system", "subprocess Popen", "builtins eval", "builtins exec", "builtins __import__", "__builtin__ eval",
        "builtins open", "builtins getattr", "builtins globals", "io open", "_io FileIO", "importlib import_module", "runpy run_path", "runpy _run_code", "pickle loads",
        "_pickle loads", "torch load", "torch.serialization load", "torch.hub load", "torch.jit load", "torch._utils _import_dotted_name", "torch._tensor._rebuild_from_type_v2 x",
        "torch.package.package_importer PackageImporter", "numpy load", "numpy.core.multiarray fromfile", "numpy.lib.npyio load", "operator attrgetter", "operator methodcaller",
        "functools partial", "functools reduce", "types FunctionType", "types CodeType", "marshal loads", "code interact", "pdb run", "timeit timeit", "cProfile run",
        "pip main", "pkgutil resolve_name", "shutil rmtree", "pathlib Path", "logging FileHandler", "ctypes CDLL", "webbrowser open", "socket create_connection", "sys exit",
        "os _exit", "signal raise_signal", "multiprocessing.util spawnv_passfds", "asyncio run", "threading Thread", "tempfile mktemp", "zipfile ZipFile", "copyreg __newobj__",
        "copyreg add_extension", "collections namedtuple", "typing ForwardRef", "ast literal_eval", "dill loads", "joblib load", "cloudpickle loads", "torch.distributed.rpc rpc_sync")  # fmt: skip
    evil = text("open('marker', 'w')") + b"\x85"
    for name in names:
        module, _, attribute = name.partition(" ")
        for how in ("R", "o", "i", "new", "new with names"):
            arguments = evil if how in ("R", "new", "new with names") else text("open('marker', 'w')")
            made = called(module, attribute, arguments, how)
            yield f"{name} {how}", HEAD + made + b".", "either"
            yield f"{name} {how} dropped", HEAD + made + b"0" + W + b".", "either"
        yield f"{name} state", HEAD + called(module, attribute) + b"}" + text("__class__") + text("x") + b"sb.", "either"
        yield f"{name} as a class", HEAD + b"c" + f"{module}\n{attribute}\n".encode() + b"}" + text("x") + text("y") + b"sb.", "either"
        yield f"{name} items", HEAD + b"c" + f"{module}\n{attribute}\n".encode() + text("x") + text("y") + b"s.", "either"
        inner = W[:-1].replace(b"ctorch._utils\n_rebuild_tensor_v2\n", f"c{module}\n{attribute}\n".encode())
        yield f"{name} instead of the tensor", HEAD + inner + b"s.", "either"
    for number, callee in enumerate((b"N", b"K\x01", text("os.system"), b")", b"]", b"}", W, b"\x88", plain(b"x"), plain(1.5))):
        yield f"no callable {number}", HEAD + callee + b")R.", "either"
    for number, arguments in enumerate((b"N", b"K\x01", text("ab"), b"]", b"}", W, b"\x8f")):
        yield f"no arguments {number}", HEAD + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R.", "either"


def _names() -> Iterator[Variant]:
    """Names that look like the one that makes tensors, and are another: nothing is a tensor for them."""
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n"
    names = (("torch._utils", "_rebuild_tensor_v2.__globals__"), ("torch", "_utils._rebuild_tensor_v2"), ("torch._utils ", "_rebuild_tensor_v2"), ("tоrch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_tensor_v2 "), ("torch._utils", "_rebuild_tensor_v２"), ("torch._utils\u200b", "_rebuild_tensor_v2"), ("Torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils\0", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor_v2\r"), ("ｔorch._utils", "_rebuild_tensor_v2"), ("", "torch._utils._rebuild_tensor_v2"),
        ("torch._utils._rebuild_tensor_v2", ""), ("bait", "_rebuild_tensor_v2"), ("torch._utils.os", "system"), ("torch.serialization", "os.system"), ("torch._utils", "__import__"))  # fmt: skip
    for number, (module, name) in enumerate(names):
        if "\n" not in module + name and "\r" not in module + name:
            yield f"global {number}", HEAD + W.replace(tensor, f"c{module}\n{name}\n".encode()) + b".", "no tensor"
        yield f"stack global {number}", b"\x80\x04" + W.replace(tensor, text(module) + text(name) + b"\x93") + b".", "no tensor"
    yield "the right one on the stack", b"\x80\x04" + W.replace(tensor, text("torch._utils") + text("_rebuild_tensor_v2") + b"\x93") + b".", "read"
    for number, (module, name) in enumerate(((b"N", b"N"), (b"K\x01", text("x")), (text("x"), b")"), (b"cos\nsystem\n", text("x")), (plain(b"torch._utils"), plain(b"_rebuild_tensor_v2")))):
        yield f"no names {number}", b"\x80\x04" + W.replace(tensor, module + name + b"\x93") + b".", "either"
    for code in (b"\x82\x01", b"\x83\x01\0", b"\x84\x01\0\0\0", b"\x84\xff\xff\xff\xff", b"\x82\0", b"\x97", b"\x98"):
        yield f"extension {code.hex()}", b"\x80\x05" + W.replace(tensor, code) + b".", "refuse"


def _identities() -> Iterator[Variant]:
    """Persistent ids of every wrong form."""
    right = [text("storage"), b"ctorch\nFloatStorage\n", text("0"), text("cpu"), plain(4)]
    start, end = W.index(b"(X\x07\0\0\0storage"), W.index(b"tQ") + 2

    def with_id(identity: bytes) -> bytes:
        return HEAD + W[:start] + identity + W[end:] + b"."

    yield "as it should be", with_id(b"(" + b"".join(right) + b"tQ"), "read"
    for number, identity in enumerate((b"NQ", b")Q", b"]Q", b"}Q", text("storage") + b"Q", plain(0) + b"Q", b"ctorch\nFloatStorage\nQ", b"(" + b"".join(right) + b"lQ",
        b"(" + b"".join(right[:4]) + b"tQ", b"(" + b"".join(right[:1]) + b"tQ", b"P0\n", b"Pstorage\n", b"P\n", b"(" + b"".join(right) + b"tQ" + b"Q")):  # fmt: skip
        yield f"form {number}", with_id(identity), "refuse"
    for number, more in enumerate((b"N", b"K\x01", b")", text("x"))):
        yield f"one more {number}", with_id(b"(" + b"".join(right) + more + b"tQ"), "either"
    for number, kind in enumerate((text("Storage"), text("module"), text(""), b"N", plain(b"storage"), b"K\x01", b")", W)):
        yield f"kind {number}", with_id(b"(" + kind + b"".join(right[1:]) + b"tQ"), "refuse"
    for number, kind in enumerate((b"N", text("FloatStorage"), text("torch.FloatStorage"), b"ctorch\nfloat32\n", b"cos\nsystem\n", b"ctorch\nFloatTensor\n", b"cbait\nFloatStorage\n",
        b"ctorch\nLongStorage\n", b"ctorch\nHalfStorage\n", b"ctorch\nfloatstorage\n", b"ctorch\nFloatStorage.__init__\n", b"ctorch.storage\n_load_from_bytes\n", b"K\x01", W)):  # fmt: skip
        yield f"class {number}", with_id(b"(" + right[0] + kind + b"".join(right[2:]) + b"tQ"), "refuse"
    for number, key in enumerate((b"N", b"K\0", plain(0.0), b")", b"]", text("1"), text("../version"), text("0\0"), text("٠"), text(""), text("data/0"), plain(b"1"), W)):
        yield f"key {number}", with_id(b"(" + b"".join(right[:2]) + key + b"".join(right[3:]) + b"tQ"), "refuse"
    for number, place in enumerate((b"N", b"K\x01", text("meta"), text("cuda:99999999999999999999"), text(""), text("\x1b[2J"), text("cpu" * 100_000), b")", W, text("privateuseone"))):
        yield f"location {number}", with_id(b"(" + b"".join(right[:3]) + place + right[4] + b"tQ"), "either"
    for number, count in enumerate((*map(plain, BAD_NUMBERS), plain(0), plain(3), plain(5), plain(8), W)):
        yield f"count {number}", with_id(b"(" + b"".join(right[:4]) + count + b"tQ"), "refuse"


def _geometry() -> Iterator[Variant]:
    for number, bad in enumerate(BAD_NUMBERS):
        is_empty = bad is False  # a size of False would be no element at all
        yield f"offset {number}", tensor_pickle(offset=bad), "refuse"
        for name, sizes, strides in (("size", (bad,), (1,)), ("first size", (bad, 4), (4, 1)), ("stride", (4,), (bad,)), ("second stride", (1, 4), (4, bad))):
            yield f"{name} {number}", tensor_pickle(size=sizes, stride=strides), "either" if is_empty and name == "second stride" else "refuse"
        yield f"sizes are {number}", tensor_pickle(size=bad), "either" if bad in ((4,), [4]) else "refuse"
        yield f"strides are {number}", tensor_pickle(stride=bad), "refuse"
    for number, (offset, size, stride) in enumerate(((1, (4,), (1,)), (0, (5,), (1,)), (0, (4,), (2,)), (3, (2,), (1,)), (4, (1,), (1,)), (0, (2, 3), (3, 1)), (0, (2, 2), (3, 1)), (5, (), ()),
        (4, (), ()), (0, (4,), ()), (0, (), (1,)), (0, (4,), (1, 1)), (0, (2, 2), (2,)), (0, (1 << 32, 1 << 32), (0, 0)), (0, (1 << 62, 2), (0, 1)), (0, (2,), (1 << 62,)), (0, (3,), (1 << 63,)),
        (0, (1 << 40,), (0,)), (1 << 62, (0,), (1,)), (-4, (4,), (1,)), (3, (4,), (-1,)), (0, (1,) * 65, (1,) * 65), (0, (2,) * 64, (0,) * 64))):  # fmt: skip
        declares_nothing = size == (0,)
        yield f"view {number}", tensor_pickle(offset=offset, size=size, stride=stride), "either" if declares_nothing or size == (1 << 40,) else "refuse"


def _forms() -> Iterator[Variant]:
    """Odd forms of the same file, that are right."""
    yield "as it should be", HEAD + W + b".", "read"
    yield "framed", b"\x80\x04\x95" + struct.pack("<Q", len(W) + 1) + W + b".", "read"
    yield "a frame that ends inside", b"\x80\x04\x95" + struct.pack("<Q", 7) + W + b".", "either"
    yield "a frame that is too long", b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + W + b".", "either"
    yield "dropped before", HEAD + b"K\x01" + b"0" + W + b".", "read"
    yield "a mark dropped", HEAD + b"(K\x011" + W + b".", "read"
    yield "left on the stack", HEAD + b"K\x01" + W + b".", "either"
    yield "a mark left open", HEAD + b"(" + W + b".", "either"
    yield "a protocol twice", HEAD + HEAD + W + b".", "either"
    yield "through the memo", HEAD + W + b"q\x05" + b"0h\x05.", "read"
    yield "after the end", HEAD + W + b".cbait\nrun\n)R.", "either"
    for key in ("é", "a.b", "", "..", "-rf", "__class__", "w" * 5000, "\x1b[31m", "\u202e", "\n", "\0", "\ud800", "w\udfff", "😀"):
        yield f"key {key[:3].encode('utf-8', 'replace').hex()}", HEAD + W.replace(text("w"), text(key)) + b".", "either"
