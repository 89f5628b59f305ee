"""Prefixes that wrappers put before every key: DataParallel and DDP, torch.compile, FSDP, and one
owner's name.
"""

from collections.abc import Iterable

WRAPPERS = {
    "module.": "DataParallel or DistributedDataParallel",
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FullyShardedDataParallel",
}


def wrapper_prefix(keys: Iterable[str]) -> str:
    """The wrappers' prefixes that all keys begin with, `module._orig_mod.` say; empty when there is
    none.
    """
    names = list(keys)
    prefix = ""
    while names:
        found = next(
            (
                wrapper
                for wrapper in WRAPPERS
                if all(name.startswith(wrapper, len(prefix)) for name in names)
            ),
            None,
        )
        if found is None or any(len(name) == len(prefix) + len(found) for name in names):
            return prefix
        prefix += found
    return prefix


def wrapper_names(prefix: str) -> str:
    """Who writes such a prefix, in words."""
    return ", ".join(owner for wrapper, owner in WRAPPERS.items() if wrapper in prefix)
