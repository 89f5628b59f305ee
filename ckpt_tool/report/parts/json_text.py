"""Values as JSON text: ASCII, so that no terminal is told anything; NaN and infinities are null."""

import json
from math import isfinite


def to_json(value: object) -> str:
    """A value as one line of JSON in ASCII; NaN and infinities become null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value))


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
