"""Runs `ckpt` as a user does: its exit status, what it prints where. In this process, or in one of its own where a test needs that."""

import gc
import io
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MAX_VALIDATED = 1 << 20


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


def ckpt(*arguments, cwd=None, stdin=None, env=None) -> Ran:
    """The command in this process, where torch is loaded but once. What it gets from stdin or the environment asks for a process."""
    if stdin is not None or env:
        return ckpt_process(*arguments, cwd=cwd, stdin=stdin, env=env)
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
    with _as_if_alone(["ckpt", *map(str, arguments)], cwd), redirect_stdout(out), redirect_stderr(err):
        status = _status_of_main()
    ran = Ran(status, *(_text_of(stream) for stream in (out, err)))
    if "--json" in arguments and ran.out.startswith("{") and len(ran.out) < MAX_VALIDATED:
        validate(ran.out, arguments)
    return ran


def validate(text, arguments) -> None:
    """Holds what a command prints against the schema that is published for it; in whichever test that is."""
    name = {"--health": "health", "--invert": "inverse"}.get(next((each for each in arguments if each in ("--health", "--invert")), ""), arguments[0])
    problems = [f"{'.'.join(map(str, each.absolute_path))}: {each.message[:300]}" for each in _validator(name).iter_errors(json.loads(text))]
    assert not problems, f"docs/schemas/ckpt.schema.json: {name}: {problems[:5]}"


@cache
def _validator(name):
    import jsonschema

    schema = json.loads((Path(__file__).parent.parent / "docs" / "schemas" / "ckpt.schema.json").read_text())
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]})


def ckpt_process(*arguments, cwd=None, stdin=None, env=None) -> Ran:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "ckpt_tool", *map(str, arguments)]
    process = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False)
    return Ran(process.returncode, process.stdout, process.stderr)


def in_shell(line, cwd) -> Ran:
    """Runs a line of the shell, in which `"$0" -m ckpt_tool` is `ckpt`: for its redirections and limits."""
    process = subprocess.run(["sh", "-c", line, sys.executable], cwd=cwd, capture_output=True, text=True, check=False)
    return Ran(process.returncode, process.stdout, process.stderr)


def _status_of_main() -> int:
    from ckpt_tool.__main__ import main

    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    return 0


@contextmanager
def _as_if_alone(arguments, cwd):
    """What a command changes of its process, put back: arguments, folder, path of modules, signals, garbage collection."""
    before = sys.argv, os.getcwd(), sys.path[:], {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    modules = set(sys.modules)
    sys.argv = arguments
    os.chdir(cwd or before[1])
    try:
        yield
    finally:
        sys.argv, folder, sys.path[:], handlers = before
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.chdir(folder)
        gc.enable()
        for name in set(sys.modules) - modules:
            if _is_in(sys.modules[name], cwd):
                del sys.modules[name]


def _is_in(module, folder) -> bool:
    return folder is not None and str(getattr(module, "__file__", None) or "").startswith(str(folder))


def _text_of(stream) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()
