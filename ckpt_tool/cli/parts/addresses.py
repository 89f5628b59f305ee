"""The options that say how addresses are opened, and their passwords."""

from collections.abc import Callable, Sequence
from inspect import Parameter, Signature, signature
from itertools import chain
from typing import Annotated

import typer

from ckpt_tool.cli.parts.helping import ADDRESSES
from ckpt_tool.cli.parts.progress import Downloads
from ckpt_tool.errors import InputError
from ckpt_tool.formats.remote.access import Access, Memory, Silent, accessing
from ckpt_tool.formats.remote.addresses import is_address

Digests = Annotated[
    list[str] | None,
    typer.Option(
        "--sha256",
        metavar="HEX",
        rich_help_panel=ADDRESSES,
        help="The SHA-256 that a downloaded file must have. Repeat it to accept any of several.",
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        rich_help_panel=ADDRESSES,
        help="Don't use the network: open addresses from the caches only.",
    ),
]
Refresh = Annotated[
    bool,
    typer.Option(
        "--refresh",
        rich_help_panel=ADDRESSES,
        help="Ask the servers for newer versions of cached files.",
    ),
]


def _options(sha256: Digests = None, offline: Offline = False, refresh: Refresh = False) -> None:
    """The options that say how addresses are opened."""


_SECRETS: dict[str, str] = {}
"""The addresses of this command line that have a password, by what is shown of them."""


def without_passwords(arguments: Sequence[str]) -> list[str]:
    """The command line without the passwords of addresses, which are kept for opening these: its
    parser prints what it doesn't understand.
    """
    memory = Memory(secrets=_SECRETS)
    _SECRETS.clear()
    return [_without_password(argument, memory) for argument in arguments]


def _without_password(argument: str, memory: Memory) -> str:
    option, equals, value = argument.partition("=")
    if argument.startswith("--") and equals:
        return f"{option}={_without_password(value, memory)}"
    return memory.without_secret(argument) if is_address(argument) else argument


def takes_addresses(command: Callable[..., None]) -> Callable[..., None]:
    """A command that opens addresses as its options say; they stand in its usage behind its own."""
    own = signature(command, eval_str=True).parameters
    shared = signature(_options).parameters

    def run(**given: object) -> None:
        sha256, offline, refresh = (given.pop(name) for name in shared)
        reporter = Silent() if given.get("quiet") else Downloads()
        digests = tuple(str(one) for one in sha256) if isinstance(sha256, list) else ()
        values = (each if isinstance(each, list) else [each] for each in given.values())
        is_given = any(type(one) is str and is_address(one) for one in chain(*values))
        if digests and not is_given:
            raise InputError(
                "--sha256",
                "is for addresses, and none is given",
                "`ckpt show --checksum FILE` prints that of a file here",
            )
        is_fresh = bool(refresh) and is_given
        memory = Memory(secrets=_SECRETS)
        asked = Access(digests, bool(offline), is_fresh, reporter, memory, is_command=True)
        with accessing(asked):
            command(**given)

    parameters = [*own.values(), *shared.values()]
    asked_for = Signature([each.replace(kind=Parameter.KEYWORD_ONLY) for each in parameters])
    run.__signature__ = asked_for  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__doc__ = command.__doc__
    return run
