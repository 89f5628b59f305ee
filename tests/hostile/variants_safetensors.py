"""Variants of broken and hostile safetensors headers, class by class: what each is, its bytes, and what it must get."""

import json
from collections.abc import Iterator
from itertools import product

Variant = tuple[str, bytes, str]
"""A file's name, its bytes, and `refuse`, `read` (the tensor `w` of the floats 0 to 3 is there) or `either`."""

DATA = b"\0\0\0\0\0\0\x80?\0\0\0@\0\0@@"
NO_SIZES = (
    "NaN", "Infinity", "-Infinity", "1e5", "4e0", "4.0", "0.5e1", "-0", "-1", "-4", "true", "false", "null", '"4"', "[4]", "{}", "[]", "04", "+4", "0x4",
    "4_0", "٤", "4 4", "18446744073709551615", "18446744073709551616", "9223372036854775807", "9223372036854775808", "4611686018427387904", "1e400",
    "4" * 25, "9" * 5000, "1" + "0" * 20,
)  # fmt: skip
"""What is no size of a dimension, or not the right one, and no offset either."""


def pack(header: str | bytes, data: bytes = DATA, length: int | None = None) -> bytes:
    raw = header.encode() if isinstance(header, str) else header
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def entry(dtype: str = '"F32"', shape: str = "[4]", offsets: str = "[0,16]") -> str:
    return f'{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}'


def tensors(*places: tuple[str, str, int, int], size: int = 16) -> bytes:
    """A file of tensors by dtype, shape, start and end."""
    header = {
        f"t{number}": {"dtype": dtype, "shape": json.loads(shape), "data_offsets": [start, end]} for number, (dtype, shape, start, end) in enumerate(places)
    }
    return pack(json.dumps(header), bytes(size))


def safetensors_variants() -> Iterator[Variant]:
    for made in (_numbers, _types, _places, _names, _json, _lengths, _valid):
        for name, raw, verdict in made():
            yield f"{made.__name__[1:]}-{name}.safetensors", raw, verdict


def _numbers() -> Iterator[Variant]:
    for number, text in enumerate(NO_SIZES):
        yield f"shape-{number}", pack(f'{{"w":{entry(shape=f"[{text}]")}}}'), "refuse"
        yield f"rank2-{number}", pack(f'{{"w":{entry(shape=f"[4,{text}]")}}}'), "refuse"
        yield f"start-{number}", pack(f'{{"w":{entry(offsets=f"[{text},16]")}}}'), "refuse"
        yield f"end-{number}", pack(f'{{"w":{entry(offsets=f"[0,{text}]")}}}'), "refuse"
    for number, shape in enumerate(("4", "null", '"[4]"', "{}", "true", '{"0":4}', "[3]", "[5]", "[]", "[4,0]", "[0]", "[2,3]", "[-2,-2]", "[[4]]", "[4,null]",
        "[4294967296,4294967296]", "[9223372036854775808,2]", "[4611686018427387904,4,4]", f"[{'65536,' * 4}4]", f"[{'1,' * 100}2]")):  # fmt: skip
        yield f"shapes-{number}", pack(f'{{"w":{entry(shape=shape)}}}'), "refuse"
    for number, offsets in enumerate(("0", "null", "[]", "[0]", "[0,16,32]", "[16,0]", "[16,16]", "[0,0]", "[0,15]", "[0,17]", "[1,17]", "[4,16]", "[0,[16]]",
        '{"0":0,"1":16}', '"0,16"', "[8,24]", "[18446744073709551600,0]", "[-16,0]")):  # fmt: skip
        yield f"offsets-{number}", pack(f'{{"w":{entry(offsets=offsets)}}}'), "refuse"


def _types() -> Iterator[Variant]:
    for number, dtype in enumerate(('"f32"', '"F33"', '""', "null", "5", '["F32"]', '"FLOAT32"', '"F32 "', '"F32\\u0000"', '"torch.float32"', '"BOOL"', '"F64"',
        '"I16"', '"F4"', '"F8_E4M3"', '"C64"', '"F6_E2M3"', "true", "{}", '"Ｆ32"')):  # fmt: skip
        yield str(number), pack(f'{{"w":{entry(dtype=dtype)}}}'), "refuse"


def _places() -> Iterator[Variant]:
    yield "same range", tensors(("F32", "[4]", 0, 16), ("F32", "[4]", 0, 16)), "refuse"
    yield "over each other", tensors(("F32", "[3]", 0, 12), ("F32", "[2]", 8, 16)), "refuse"
    yield "inside", tensors(("F32", "[4]", 0, 16), ("F32", "[1]", 4, 8)), "refuse"
    yield "same start", tensors(("F32", "[4]", 0, 16), ("F32", "[2]", 0, 8)), "refuse"
    yield "same end", tensors(("F32", "[4]", 0, 16), ("F32", "[2]", 8, 16)), "refuse"
    yield "other order, over", tensors(("F32", "[2]", 8, 16), ("F32", "[3]", 0, 12)), "refuse"
    yield "empty inside", tensors(("F32", "[4]", 0, 16), ("F32", "[0]", 8, 8)), "refuse"
    yield "empty after the end", tensors(("F32", "[4]", 0, 16), ("F32", "[0]", 20, 20)), "refuse"
    yield "hole first", tensors(("F32", "[3]", 4, 16)), "refuse"
    yield "hole between", tensors(("F32", "[1]", 0, 4), ("F32", "[2]", 8, 16)), "refuse"
    yield "hole last", tensors(("F32", "[3]", 0, 12)), "refuse"
    yield "hole of a byte", tensors(("U8", "[7]", 0, 7), ("U8", "[8]", 8, 16)), "refuse"
    yield "more elements than can be counted, times 0", tensors(("F32", "[4]", 0, 16), ("F32", "[4294967296,4294967296,0]", 16, 16)), "refuse"
    yield "0 times more elements than can be counted", tensors(("F32", "[4]", 0, 16), ("F32", "[0,4294967296,4294967296]", 16, 16)), "either"
    yield "no tensor, data", pack("{}", bytes(16)), "refuse"
    yield "data missing", tensors(("F32", "[4]", 0, 16), size=0), "refuse"
    yield "a byte missing", tensors(("F32", "[4]", 0, 16), size=15), "refuse"
    yield "a byte more", tensors(("F32", "[4]", 0, 16), size=17), "refuse"
    many = tuple(("U8", "[8]", 0, 8) for _ in range(5000))
    yield "many over each other", tensors(*many, size=8), "refuse"
    yield "a chain over each other", tensors(*(("U8", "[2]", at, at + 2) for at in range(5000)), size=5001), "refuse"


def _names() -> Iterator[Variant]:
    w, other = entry(), entry(offsets="[16,32]")
    twice = DATA * 2
    for number, (one, two) in enumerate((("w", "w"), ("w", "\\u0077"), ("\\u0077", "w"), ("é", "\\u00e9"), ("\\ud83d\\ude00", "😀"), ("a/b", "a\\/b"), ("", ""))):
        yield f"twice-{number}", pack(f'{{"{one}":{w},"{two}":{other}}}', twice), "refuse"
        yield f"same twice-{number}", pack(f'{{"{one}":{w},"{two}":{w}}}'), "refuse"
    for field, again in (("dtype", '"F32"'), ("shape", "[4]"), ("data_offsets", "[0,16]")):
        yield f"{field} twice", pack(f'{{"w":{w[:-1]},"{field}":{again}}}}}'), "refuse"
        yield f"{field} twice, escaped", pack(f'{{"w":{w[:-1]},"\\u{ord(field[0]):04x}{field[1:]}":{again}}}}}'), "refuse"
        yield f"no {field}", pack(json.dumps({"w": {name: value for name, value in json.loads(w).items() if name != field}})), "refuse"
        yield f"{field.title()}", pack(f'{{"w":{w.replace(field, field.title())}}}'), "refuse"
    yield "metadata twice", pack(f'{{"__metadata__":{{"a":"1"}},"__metadata__":{{"a":"2"}},"w":{w}}}'), "refuse"
    yield "metadata of two equal names", pack(f'{{"__metadata__":{{"a":"1","\\u0061":"2"}},"w":{w}}}'), "refuse"
    for number, value in enumerate(("[]", '"a"', "1", "true", '{"a":1}', '{"a":null}', '{"a":{}}', '{"a":["b"]}', w)):
        yield f"metadata-{number}", pack(f'{{"__metadata__":{value},"w":{w}}}'), "refuse"
    for number, raw in enumerate((b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"w\xc3", b"\\ud800", b"\\ude00\\ud83d", b"\n", b"\0", b"\x1b[2J",
        b"\\u00", b"\\x77", b"\\", b"\\u{77}")):  # fmt: skip
        yield f"no text-{number}", pack(b'{"' + raw + b'":' + w.encode() + b"}"), "refuse"
    yield "metadata is null", pack(f'{{"__metadata__":null,"w":{w}}}'), "either"
    yield "a field more", pack(f'{{"w":{w[:-1]},"more":1}}}}'), "either"


def _json() -> Iterator[Variant]:
    w = entry()
    texts = {
        "single quotes": f"{{'w':{w}}}", "comma": f'{{"w":{w},}}', "comment": f'{{/**/"w":{w}}}', "two": f'{{"w":{w}}}{{}}', "junk": f'{{"w":{w}}}x',
        "bare name": f"{{w:{w}}}", "no colon": f'{{"w" {w}}}', "cut": f'{{"w":{w}', "empty": "", "space": " " * 8, "null": "null", "true": "true", "list": f"[{w}]",
        "number": "0" * 8, "text": f'"{"w" * 8}"', "entry null": '{"w":null}', "entry list": '{"w":[]}', "entry text": '{"w":"F32"}', "entry number": '{"w":1e999}',
        "nul padding": f'{{"w":{w}}}\0\0', "bom": f'\ufeff{{"w":{w}}}', "bom after": f'{{"w":{w}}}\ufeff', "no-break space": f'{{\xa0"w":{w}}}', "NaN": '{"w":NaN}',
        "utf-16": f'{{"w":{w}}}'.encode("utf-16-le").decode("latin-1"), "newline in name": f'{{"w\n":{w}}}', "vertical tab": f'{{"w":\v{w}}}',
    }  # fmt: skip
    for name, text in texts.items():
        yield name, pack(text.encode("latin-1") if name == "utf-16" else text), "refuse"
    for (one, other), depth in product(("[]", ["{\"a\":", "}"]), (50, 1000, 200_000)):
        deep = one * depth + "1" + other * depth
        yield f"deep {one[0]} {depth}", pack(f'{{"w":{deep}}}'), "refuse"
        yield f"deep in a shape {one[0]} {depth}", pack(f'{{"w":{entry(shape=deep)}}}'), "refuse"
        yield f"deep in metadata {one[0]} {depth}", pack(f'{{"__metadata__":{{"a":{deep}}},"w":{w}}}'), "refuse"
    for number, start in enumerate((" ", "\n", "\t", "\r\n")):
        yield f"space first-{number}", pack(f'{start}{{"w":{w}}}'), "either"


def _lengths() -> Iterator[Variant]:
    header = f'{{"w":{entry()}}}'
    size = len(header)
    for length in (0, 1, 2, 7, size - 1, size + 1, size + 15, size + 16, size + 17, size << 8, size << 32, (1 << 31) - 1, 1 << 31, 1 << 32, 99_999_999,
        100_000_000, 100_000_001, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 63) + size, (1 << 64) - 1, (1 << 64) - 8, (1 << 32) + size):  # fmt: skip
        yield str(length), pack(header, length=length), "refuse"
    whole = pack(header)
    for end in (0, 1, 7, 8, 9, 10, 8 + size // 2, 8 + size - 1, 8 + size, 8 + size + 1, len(whole) - 1):
        yield f"cut at {end}", whole[:end], "refuse"
    for shift in range(1, 8):
        yield f"shifted by {shift}", bytes(shift) + whole, "refuse"
        yield f"behind by {shift}", whole[shift:], "refuse"


def _valid() -> Iterator[Variant]:
    w = entry()
    yield "padded", pack(f'{{"w":{w}}}   '), "read"
    yield "spread out", pack(f'{{\n\t"w" : {w.replace(":", " : ").replace(",", " ,")}\r\n}}'), "read"
    yield "escaped", pack(f'{{"\\u0077":{w.replace("F32", "F3" + chr(92) + "u0032")}}}'), "read"
    yield "fields in another order", pack('{"w":{"data_offsets":[0,16],"shape":[4],"dtype":"F32"}}'), "read"
    yield "metadata last", pack(f'{{"w":{w},"__metadata__":{{"":"","a":"\\u0000"}}}}'), "read"
    yield "empty tensors beside it", pack(f'{{"e":{entry(shape="[0,5]", offsets="[0,0]")},"w":{w},"f":{entry(shape="[0]", offsets="[16,16]")}}}'), "read"
