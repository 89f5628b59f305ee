"""A bare pickle, as Paddle, detectron2 and `pickle.dump` write it: arrays and storages inside the
pickle itself.
"""

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Contents
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.limits import PICKLE_BYTES
from ckpt_tool.formats.pickle.machine import PickleMachine
from ckpt_tool.formats.pickle.values import StorageRef
from ckpt_tool.formats.placements.byte_ranges import Storage
from ckpt_tool.formats.torch_files import legacy_stream
from ckpt_tool.formats.torch_files.contents import PickledFile, pickled_contents
from ckpt_tool.formats.torch_files.legacy_stream import MAGIC


def read(file: SourceFile, wanted: str) -> Contents:
    """Raises FormatError for a damaged pickle, and for one that is longer than a pickle may
    be.
    """
    if file.size > PICKLE_BYTES:
        raise FormatError(
            file.path, f"is a pickle of {file.size} bytes; at most {PICKLE_BYTES} are read"
        )
    machine = PickleMachine(file.read(0, file.size))
    value = machine.load(file.path, "the pickle")
    if (
        value == MAGIC and type(value) is int
    ):  # written in other opcodes than torch's, which torch doesn't mind
        return legacy_stream.read(file, wanted)
    after = file.size - machine.pos
    notes = (f"{after} bytes follow the pickle",) if after else ()

    def locate(storage: StorageRef) -> Storage:
        raise FormatError(file.path, "refers to a storage outside of the pickle")

    return pickled_contents(PickledFile(value, file.path, locate, machine.asked, notes), wanted)
