"""What other tools pair by names and shapes: weightbridge and lit-wsl, each job in a process of its own with a time limit.

`python benchmarks/align_peers.py NAME` reads two lists of keys and shapes as JSON and prints the target keys with their source keys.
"""

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECONDS = 20
Shapes = dict[str, tuple[int, ...]]


@dataclass
class Peer:
    """A tool, and how often it took too long or refused a job as a whole."""

    name: str
    timeouts: int = 0
    refusals: int = 0
    is_there: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_there = subprocess.run(self._command("--try"), capture_output=True, check=False).returncode == 0

    def pairs(self, source: Shapes, target: Shapes) -> dict[str, str]:
        """The source key of each target key that it pairs; none where it refuses or takes longer than SECONDS."""
        try:
            ran = subprocess.run(
                self._command(), input=json.dumps([source, target]), capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            self.timeouts += 1
            return {}
        self.refusals += ran.returncode != 0
        return json.loads(ran.stdout) if ran.returncode == 0 else {}

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, __file__, self.name, *arguments]


def by_weightbridge(source: Shapes, target: Shapes) -> dict[str, str]:
    """Each source tensor holds its own number, and the target's are below 0, so that what comes back says where it is from."""
    import numpy
    import weightbridge

    keys = list(source)
    ours = {key: numpy.broadcast_to(numpy.float32(place), source[key]) for place, key in enumerate(keys)}
    theirs = {key: numpy.broadcast_to(numpy.float32(-1), shape) for key, shape in target.items()}
    made = weightbridge.adapt(
        ours, theirs, in_separator=".", out_separator=".", ignore_unmatched_inputs=True, ignore_unmatched_outputs=True
    )
    found = {key: int(numpy.asarray(value).reshape(-1)[0]) for key, value in made.items() if numpy.size(value)}
    return {key: keys[place] for key, place in found.items() if place >= 0}


def by_lit_wsl(source: Shapes, target: Shapes) -> dict[str, str]:
    """With buffers, of equal shape, and with the threshold and the strategy that it recommends."""
    sys.path.insert(0, str(ROOT / "examples"))
    from seeded import import_torchvision

    import_torchvision()
    import torch
    from lit_wsl.mapper.weight_mapper import WeightMapper

    sides = [{key: torch.empty(shape, device="meta") for key, shape in side.items()} for side in (source, target)]
    mapper = WeightMapper(source_params=sides[0], target_params=sides[1], buffer_matching_mode="strict")
    found = mapper.suggest_mapping(threshold=0.6, validate_outputs=False, strategy="optimal")
    return {target: source for source, target in found.get_mapping().items()}


WAYS = {"weightbridge": by_weightbridge, "lit-wsl": by_lit_wsl}


def main() -> None:
    way = WAYS[sys.argv[1]]
    sides = [{"a.weight": (2, 3)}] * 2 if "--try" in sys.argv else json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        found = way(*({key: tuple(shape) for key, shape in side.items()} for side in sides))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
