"""Numbers as people read them: sizes in decimal units, counts with their noun."""

from functools import lru_cache


@lru_cache(maxsize=1 << 12)
def size_text(nbytes: int) -> str:
    """Decimal units, as disks and downloads are sold: `102.4 MB`."""
    value, unit = float(nbytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 999.95 or unit == "PB":
            break
        value /= 1000
    return f"{nbytes} B" if unit == "B" else f"{value:.1f} {unit}"


def plural(count: int, noun: str) -> str:
    """`1 tensor`, `2,166 tensors`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
