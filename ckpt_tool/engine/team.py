"""Several processes that write one output together, as `torchrun -m ckpt_tool map …` starts them:
each writes some of the files, the first makes the folder, and gives it its name when all are done.
"""

from __future__ import annotations

import os
import pickle
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ckpt_tool.engine.durable.file import plain_errors
from ckpt_tool.engine.durable.folder import atomic_folder
from ckpt_tool.errors import CkptError, OutputError

if TYPE_CHECKING:
    import torch
    from torch._C._distributed_c10d import Store

T = TypeVar("T")
Progress = Callable[[int], None]
WRITTEN = "written"
"""The bytes that all have written, in the store."""
MOMENT = 0.1
"""Seconds between two looks at what the others have done."""
SILENCE = 1800
"""Seconds without a byte after which another process counts as gone: torch.distributed's own."""


class Team:
    """The processes of a run. Whatever they exchange, each must come to it; the error of one is
    raised by all.
    """

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._store = store
        self._met = 0
        self._held: list[torch.Tensor] = []
        self._is_over = False
        self._watch: Callable[[], None] = lambda: None

    @property
    def is_leader(self) -> bool:
        """Whether it is the first process, which says what was done."""
        return self.rank == 0

    def exchange(self, value: T, error: BaseException | None = None) -> list[T]:
        """What each process gives, in their order. Raises OutputError where another has failed."""
        if self._is_over:
            return []
        self._met += 1
        said = None if error is None else str(error) or repr(error)
        try:
            self._store.add(f"met/{self._met}", 1)
            self._wait()
            given = self._gathered((value, said))
        except RuntimeError as lost:  # torch's error for a peer that is gone
            self._is_over = True
            text = str(lost).strip().split("\n")[0][:200]
            raise OutputError(
                f"process {self.rank}", f"another process stopped: {text}", "nothing was written"
            ) from lost
        faults = [(rank, fault) for rank, (_, fault) in enumerate(given) if fault]
        if faults:
            self._is_over = True
            rank, fault = faults[0]
            if error is None:
                fact = f"has failed: {fault}"
                failed = OutputError(f"process {rank}", fact, "nothing was written")
                failed.is_reported = not self.is_leader
                raise failed
            if isinstance(error, CkptError):
                is_heard = rank == self.rank or given[0][1] == said
                error.is_reported |= is_heard and not self.is_leader
        return [each for each, _ in given]

    def _gathered(self, value: object) -> list[Any]:
        """As `all_gather_object`, with tensors that live as long as the team. Before torch 2.8 a
        thread of gloo that is the last to let go of one waits for the interpreter, which waits for
        that thread in `destroy_process_group`: for ever.
        """
        import torch

        data = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        sizes = [int(each) for each in self._all_gather(torch.tensor([len(data)]))]
        padded = torch.nn.functional.pad(data, (0, max(sizes) - len(data)))
        parts = zip(self._all_gather(padded), sizes, strict=True)
        return [pickle.loads(part[:size].numpy().tobytes()) for part, size in parts]

    def _all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        import torch
        import torch.distributed as dist

        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        self._held += [tensor, *parts]
        dist.all_gather(parts, tensor)
        return parts

    def _wait(self) -> None:
        """In the first process, waits for the others. Raises OutputError where nothing happens for
        so long that one must be gone.
        """
        seen, since = -1, time.monotonic()
        while self.is_leader and self._store.add(f"met/{self._met}", 0) < self.size:
            self._watch()
            done = self._store.add(WRITTEN, 0)
            if done != seen:
                seen, since = done, time.monotonic()
            elif time.monotonic() - since > SILENCE:
                self._is_over = True
                fact = f"no sign of another process for {SILENCE // 60} minutes"
                raise OutputError("process 0", fact, "nothing was written")
            time.sleep(MOMENT)
        self._watch()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is raised inside is raised by all processes, at their next exchange."""
        try:
            yield
        except Exception as error:
            self.exchange(None, error)
            raise

    def lead(self, work: Callable[[], T]) -> T:
        """What the first process makes, for all of them."""
        made: list[T | None] = [None]
        with self.together():
            if self.is_leader:
                made = [work()]
        return self.exchange(made[0])[0]  # type: ignore[return-value]

    def share(self, sizes: Mapping[str, int]) -> set[str]:
        """The names that this process takes, so that all have about as many bytes: the largest go
        first, each to who has least.
        """
        loads = [0] * self.size
        mine = set()
        for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
            taker = loads.index(min(loads))
            loads[taker] += sizes[name]
            if taker == self.rank:
                mine.add(name)
        return mine

    def summed(self, progress: Progress) -> Progress:
        """Hears what this process does; the first process passes on the sum of all."""
        shown = 0

        def update(nbytes: int) -> None:
            nonlocal shown
            done = self._store.add(WRITTEN, nbytes)
            if self.is_leader and done > shown:
                progress(done - shown)
                shown = done

        self._watch = lambda: update(0)
        return update


@contextmanager
def team_of_this_run() -> Iterator[Team | None]:
    """The processes that torchrun has started with this one, by gloo; None for a process alone."""
    if not os.environ.get("WORLD_SIZE", "").isdigit() or int(os.environ["WORLD_SIZE"]) < 2:
        yield None
        return
    import torch.distributed as dist

    store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    store = dist.PrefixStore("ckpt", store)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    team = Team(store, rank, size)
    try:
        yield team
    except CkptError as error:
        team.exchange(None, error)
        raise
    finally:
        dist.destroy_process_group()


@contextmanager
def output_folder(
    team: Team | None, path: str, size: int, own: re.Pattern[str], replace: bool, work: str
) -> Iterator[str]:
    """As `atomic_folder`, made and published by the first process of a team, for all of them.

    `work` tells one job from another: raises OutputError where the processes have different ones.
    """
    if team is None:
        with atomic_folder(path, size, own, replace) as stage:
            yield stage
        return
    with team.together():
        if team.is_leader:
            with atomic_folder(path, size, own, replace) as stage:
                _check_same(team.exchange((stage, work)))
                yield stage
        else:
            given = team.exchange(("", work))
            _check_same(given)
            with _filled_for_another(path, size, given[0][0]):
                yield given[0][0]
    team.exchange(None)


@contextmanager
def _filled_for_another(path: str, size: int, stage: str) -> Iterator[None]:
    """Raises the system's errors in words; where the folder is gone, the first process has failed,
    and reports it.
    """
    try:
        with plain_errors(path, size):
            yield
    except OutputError as error:
        error.is_reported |= not os.path.isdir(stage)
        raise


def _check_same(given: list[tuple[str, str]]) -> None:
    """Raises OutputError unless all processes have the same job."""
    for rank, (_, work) in enumerate(given):
        if work != given[0][1]:
            raise OutputError(
                f"process {rank}",
                "would write something else than process 0: their sources or rules differ",
                "give all processes the same files",
            )
