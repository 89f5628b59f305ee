"""What can go wrong, as values with fields; their text is made in one place, `ckpt_tool.report`.

- CkptError: anything that ckpt_tool raises on purpose

  - InputError: a file, an address or an argument can't be used: there is no answer (exit status 2)

    - FormatError: a file that is broken, hostile, or of no known format
    - RuleFileError: a rule file that can't be read as YAML

  - OutputError: the output can't be written; what was there before is untouched (exit status 2)
  - RuleError: the rules, or another way of mapping, don't fit: carries every Problem (exit
    status 1)
"""

from collections.abc import Mapping, Sequence
from dataclasses import field

from ckpt_tool.frozen import frozen


@frozen
class Location:
    """A place in a rule file: 1-based line and column, the length of what is meant, and the line's
    text to show it in.
    """

    file: str
    line: int
    column: int
    length: int = 1
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@frozen
class Problem:
    """One reason why rules are wrong, or don't fit these checkpoints. `notes` say what to do, or
    what else is known.

    >>> import ckpt_tool
    >>> problem = ckpt_tool.check("a.{n} -> b").problems[0]
    >>> problem.code, problem.where.line, problem.where.column
    ('unbalanced', 1, ...)
    """

    code: str
    message: str
    where: Location | None = None
    notes: tuple[str, ...] = ()


@frozen
class Tally:
    """How far a plan that was refused would have come: keys of the target mapped and left fresh,
    keys of the source left.

    `fresh_elements` are the numbers in the target's fresh tensors, out of `elements` in all;
    `keys` how many keys the target has, those included that somebody keeps.
    """

    mapped: int
    fresh: int
    left: int
    fresh_elements: int
    elements: int
    keys: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        share = f" ({self._share()} % of the target's elements)" if self.fresh_elements else ""
        count = self.mapped + self.fresh if self.keys is None else self.keys
        of = f"{count:,} target {'key' if count == 1 else 'keys'}"
        left = f"{self.left:,} source {'key' if self.left == 1 else 'keys'} left over"
        return f"{self.mapped:,} mapped; {self.fresh:,} of {of} would stay fresh{share}; {left}"

    def _share(self) -> str:
        """Per cent of the target's elements that would stay fresh; never none where some would, nor
        all where some would not.
        """
        share = 100 * self.fresh_elements / self.elements
        if 99.95 <= share < 100:
            return "more than 99.9"
        return f"{share:.1f}" if share >= 0.05 else "less than 0.1"


class CkptError(Exception):
    """Anything that ckpt_tool raises on purpose.

    `is_reported` where another process of the same run reports it, so that this one needn't.

    >>> import ckpt_tool
    >>> try:
    ...     ckpt_tool.open("missing.pth")
    ... except ckpt_tool.CkptError as error:
    ...     print(error)
    missing.pth: no such file...
    """

    is_reported = False


class InputError(CkptError):
    """`path` (a file, an address, an argument) can't be used: `fact` says why, `hint` what to do,
    `place` where in it.

    >>> error = InputError("a.pth", "is empty", "download it again")
    >>> print(error)
    a.pth: is empty; download it again
    >>> error.path, error.fact
    ('a.pth', 'is empty')
    """

    def __init__(
        self, path: str, fact: str, hint: str | None = None, place: str | None = None
    ) -> None:
        super().__init__(path, fact, hint, place)
        self.path, self.fact, self.hint, self.place = path, fact, hint, place

    def __str__(self) -> str:
        place = f": {self.place}" if self.place else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.path}{place}: {self.fact}{hint}"


def not_installed(name: str, purpose: str, distribution: str | None = None) -> InputError:
    """What is said of a package that something needs and that isn't there."""
    fact = f"is not installed, and this needs it for {purpose}"
    return InputError(name, fact, f"pip install {distribution or name}")


def need_torch() -> None:
    """Raises InputError, which says what to install, where torch isn't."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise not_installed("torch", "tensor arithmetic") from None


def has_torch() -> bool:
    """Whether torch is installed; it isn't imported to know."""
    from importlib.util import find_spec

    return find_spec("torch") is not None


class FormatError(InputError):
    """A file that is broken, hostile, or of no known format.

    >>> import pathlib, ckpt_tool
    >>> _ = pathlib.Path("broken.safetensors").write_bytes(bytes(8) + b"{")
    >>> ckpt_tool.open("broken.safetensors")
    Traceback (most recent call last):
    ckpt_tool.errors.FormatError: broken.safetensors: ...
    """


class WithoutTensors(FormatError):
    """A pickle that holds no tensor; `asked` are the names that unpickling it would call or
    import, `values` what it holds instead.
    """

    def __init__(
        self, path: str, fact: str, hint: str | None, asked: Sequence[str], values: object
    ) -> None:
        super().__init__(path, fact, hint)
        self.asked = tuple(asked)
        self.values = values


class RuleFileError(InputError):
    """A rule file that can't be read as YAML; `path` is file:line:column."""


class OutputError(InputError):
    """The output can't be written; what was there before is untouched.

    >>> import ckpt_tool, torch
    >>> state = {"weight": torch.ones(2)}
    >>> _ = ckpt_tool.map(state, None, "out.pth", rules="** -> net.**")
    >>> ckpt_tool.map(state, None, "out.pth", rules="** -> net.**")
    Traceback (most recent call last):
    ckpt_tool.errors.OutputError: out.pth: ...
    """


class RuleError(CkptError):
    """Rules, names or positions that don't fit; `problems` lists every reason, `tally` how far they
    would have come.

    `next` are keyword arguments with which the same call succeeds, if some are known; they were
    tried. `draft` is what there was of a plan when it was refused: to be shown, not to be run.

    >>> import ckpt_tool, torch
    >>> try:
    ...     ckpt_tool.plan({"a": torch.ones(2), "old": torch.ones(3)}, {"a": torch.ones(2)})
    ... except ckpt_tool.RuleError as error:
    ...     print(error.problems[0].message)
    `old`: 1 key of the source is neither mapped nor dropped
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        tally: Tally | None = None,
        next: Mapping[str, object] | None = None,
        draft: object = None,
    ) -> None:
        self.problems, self.tally, self.next = tuple(problems), tally, dict(next or {})
        self.draft = draft
        super().__init__(self.problems)

    def __str__(self) -> str:
        lines = [line for problem in self.problems[:MAX_REPORTED] for line in _lines(problem)]
        more = len(self.problems) - MAX_REPORTED
        lines += [f"and {more} more problem{'s' if more > 1 else ''}"] if more > 0 else []
        lines += [str(self.tally)] if self.tally else []
        lines += (
            [f"next: {', '.join(f'{name}={value!r}' for name, value in self.next.items())}"]
            if self.next
            else []
        )
        return "\n".join(lines)


MAX_REPORTED = 10
"""Problems that an exception's text has; `problems` has all."""


def _lines(problem: Problem) -> list[str]:
    where = f"{problem.where}: " if problem.where else ""
    return [f"{where}{problem.message}", *(f"  = {note}" for note in problem.notes)]
