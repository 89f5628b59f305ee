"""`ckpt_tool.open`: a checkpoint as a mapping of tensors, as `ckpt show` is for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.formats import Checkpoint
from ckpt_tool.formats.placements.byte_ranges import CHUNK
from ckpt_tool.keys.nearest import nearest
from ckpt_tool.library.lazy_tensor import LazyTensor
from ckpt_tool.library.words import speaks_python
from ckpt_tool.report.parts.style import size_text
from ckpt_tool.report.show import show_text
from ckpt_tool.tensors import Catalog
from ckpt_tool.wording import plural, type_text

if TYPE_CHECKING:
    import os
    from typing import Self

    import torch

    from ckpt_tool.formats import Extent


class UnknownKeyError(KeyError):
    """A key that a checkpoint doesn't have; its text names the most similar one that it has."""

    def __init__(self, key: object, catalog: Catalog) -> None:
        super().__init__(key)
        self._catalog = catalog

    def __str__(self) -> str:
        # Looked for only where the text is asked for: `get` and `in` raise it for nobody to read.
        key = self.args[0]
        near = nearest(key, self._catalog) if isinstance(key, str) else None
        return f"{key!r}; did you mean {near!r}?" if near else repr(key)


class OpenCheckpoint(Checkpoint, Mapping[str, LazyTensor]):
    """An open checkpoint: a mapping from keys to tensors that are read when they are asked for.

    Close it, or open it in a `with` block. `print()` shows what `ckpt show` does; `catalog` has
    names, dtypes and shapes, `metadata` the file's own texts, `extras` what is no tensor.

    >>> import ckpt_tool, torch
    >>> torch.save({"fc.weight": torch.zeros(10, 4), "fc.bias": torch.ones(10)}, "model.pth")
    >>> with ckpt_tool.open("model.pth") as checkpoint:
    ...     "fc.bias" in checkpoint, len(checkpoint), checkpoint.get("head"), checkpoint["fc.bias"]
    (True, 2, None, LazyTensor('fc.bias', F32 10))
    """

    __hash__ = object.__hash__
    is_closed = False

    def __eq__(self, other: object) -> bool:
        return self is other

    def __getitem__(self, key: str) -> LazyTensor:
        """The tensor of a key, unread: `.read()` reads it. Raises KeyError."""
        if key not in self.catalog:
            raise UnknownKeyError(key, self.catalog)
        return LazyTensor(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.catalog)

    def __len__(self) -> int:
        return len(self.catalog)

    def __contains__(self, key: object) -> bool:
        return key in self.catalog

    def __bool__(self) -> bool:
        """True, also without tensors: it is an open file."""
        return True

    def close(self) -> None:
        """Closes its files. What was read stays; reading more raises InputError."""
        self.is_closed = True
        super().close()

    def extent(self, key: str) -> Extent | None:
        """As for any checkpoint. Raises InputError where it is closed."""
        self._check_open()
        return super().extent(key)

    def extents(self, key: str) -> tuple[Extent, ...]:
        """As for any checkpoint. Raises InputError where it is closed."""
        self._check_open()
        return super().extents(key)

    def chunks(self, key: str, size: int = CHUNK) -> Iterator[bytes]:
        """As for any checkpoint. Raises InputError where it is closed."""
        self._check_open()
        return super().chunks(key, size)

    def has_parts(self, key: str) -> bool:
        """As for any checkpoint. Raises InputError where it is closed."""
        self._check_open()
        return super().has_parts(key)

    def _check_open(self) -> None:
        if self.is_closed:
            raise InputError(self.path, "is closed", "open it again, or read inside the block")

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All tensors, read into memory, in the file's order. Keys of a tied weight get one tensor,
        as from `torch.load`; other views of a storage get memory of their own. Raises FormatError
        where a checksum is wrong.

        >>> import ckpt_tool, torch
        >>> torch.save({"fc.bias": torch.ones(2)}, "model.pth")
        >>> with ckpt_tool.open("model.pth") as checkpoint:
        ...     checkpoint.state_dict()
        {'fc.bias': tensor([1., 1.])}
        """
        found: dict[str, torch.Tensor] = {}
        for key, info in self.catalog.items():
            tied = found.get(info.tied_to) if info.tied_to is not None else None
            found[key] = self.read(key) if tied is None else tied
        return found

    def __enter__(self) -> Self:
        return self

    def __repr__(self) -> str:
        tensors = plural(len(self), "tensor")
        size = size_text(self.catalog.distinct_nbytes)
        return f"OpenCheckpoint({self.path!r}, {tensors}, {size})"

    def _repr_html_(self) -> str:
        from ckpt_tool.report.notebook.reprs import show_html

        return show_html(self)

    def __str__(self) -> str:
        return show_text(self)


@speaks_python
def open(
    path: str | os.PathLike[str],
    *,
    sha256: str | Sequence[str] = (),
    offline: bool = False,
    refresh: bool = False,
) -> OpenCheckpoint:
    """Opens a checkpoint of any format: a file, a folder, an index, an address (`https://`,
    `hf://`, `s3://`), `FILE#NAME` for a state dict inside of a file. Nothing of it is executed, and
    no tensor is read.

    `sha256` is the digest that the file must have, or several of which it must have one. For an
    address, `offline` asks no server, and `refresh` asks whether the cached file is still the
    server's. Costs reading the header. Raises InputError for a file that can't be opened or that
    holds several equally likely state dicts, FormatError for a broken file.

    >>> import ckpt_tool, torch
    >>> torch.save({"fc.weight": torch.zeros(10, 4), "fc.bias": torch.ones(10)}, "model.pth")
    >>> checkpoint = ckpt_tool.open("model.pth")
    >>> checkpoint
    OpenCheckpoint('model.pth', 2 tensors, 200 B)
    >>> list(checkpoint.keys()), checkpoint["fc.weight"].shape
    (['fc.weight', 'fc.bias'], (10, 4))
    >>> checkpoint["fc.weight"].read().sum(), checkpoint["fc.weight"][:2].sum()
    (tensor(0.), tensor(0.))
    >>> checkpoint.state_dict()["fc.bias"].sum()
    tensor(10.)
    >>> checkpoint.close()
    """
    import os

    from ckpt_tool.formats import open_checkpoint
    from ckpt_tool.formats.opening import split_fragment
    from ckpt_tool.formats.remote.access import Access, accessing, remembering
    from ckpt_tool.formats.remote.addresses import is_address

    if not isinstance(path, str | os.PathLike):
        fact = f"is {type_text(path)}, and a path is a text"
        raise InputError("path", fact, "give the file's path or its address")
    digests = (sha256,) if isinstance(sha256, str) else tuple(sha256 or ())
    plain = not (digests or offline or refresh)
    with remembering() if plain else accessing(Access(digests, offline, refresh)) as access:
        location = split_fragment(os.fspath(path))[0]
        if not plain and not is_address(location):
            access.check_file(location, location)
        opened = open_checkpoint(path)
    try:
        opened.definite()
    except BaseException:
        opened.close()
        raise
    return OpenCheckpoint(opened.path, opened.format, opened.contents, opened.files)
