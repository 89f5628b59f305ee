"""A bare pickle, as Paddle, detectron2 and `pickle.dump` write it: arrays and storages inside the
pickle itself.
"""

from collections.abc import Iterator

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Contents
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.limits import PICKLE_BYTES
from ckpt_tool.formats.pickle.machine import PickleMachine
from ckpt_tool.formats.pickle.values import Asked, StorageRef
from ckpt_tool.formats.placements.byte_ranges import Storage
from ckpt_tool.formats.torch_files import legacy_stream
from ckpt_tool.formats.torch_files.contents import PickledFile, pickled_contents
from ckpt_tool.formats.torch_files.legacy_stream import MAGIC

MAX_PICKLES = 1000
PROTO = 0x80
"""The opcode with which pickles begin, from protocol 2 on."""


def read(file: SourceFile, wanted: str) -> Contents:
    """Raises FormatError for a damaged pickle, and for one that is longer than a pickle may
    be.
    """
    if file.size > PICKLE_BYTES:
        raise FormatError(
            file.path, f"is a pickle of {file.size} bytes; at most {PICKLE_BYTES} are read"
        )
    data = file.read(0, file.size)
    machine = PickleMachine(data)
    value = machine.load(file.path, "the pickle")
    if (
        value == MAGIC and type(value) is int
    ):  # written in other opcodes than torch's, which torch doesn't mind
        return legacy_stream.read(file, wanted)
    after = file.size - machine.pos
    notes = (f"{after} bytes follow the pickle",) if after else ()

    def locate(storage: StorageRef) -> Storage:
        raise FormatError(file.path, "refers to a storage outside of the pickle")

    asked = machine.asked
    for other in _asked_behind(file.path, data, machine.pos):
        asked = asked.and_also(other)
    return pickled_contents(PickledFile(value, file.path, locate, asked, notes), wanted)


def _asked_behind(path: str, data: bytes, start: int) -> Iterator[Asked]:
    """What the pickles ask for that follow the first, as repeated dumps into one file write them.
    Bytes that are no pickle end them. Raises FormatError for more than anybody writes.
    """
    for _ in range(MAX_PICKLES):
        if start >= len(data):
            return
        machine = PickleMachine(data, start)
        try:
            machine.load(path, "a further pickle")
        except FormatError:
            if data[start] == PROTO:
                yield machine.asked  # what it asks for before it breaks off
            return
        yield machine.asked
        start = machine.pos
    raise FormatError(path, f"is a row of more than {MAX_PICKLES} pickles")
