"""Shows files as `ckpt show` does, each in a process of its own that is watched, for `test_variants.py`.

show_each.py FOLDER       reads names of files in FOLDER, a line each; prints for each a line of JSON: status, stderr, seconds of work, peak
                          memory in bytes, and what happened that may not happen: a file opened elsewhere, a process, a foreign import

A forked child has everything imported already, so it is quick, and what it opens or imports is the file's doing.
"""

import json
import os
import resource
import signal
import sys
import tempfile

MAX_SECONDS = 120
"""After which a child that waits is ended."""
HARMLESS = tuple(os.path.realpath(path) for path in {*sys.path[1:], sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)} if path)
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "socket.connect", "socket.getaddrinfo", "os.remove",
             "os.rename", "os.mkdir", "os.symlink", "os.link", "pickle.find_class", "ctypes.dlopen", "webbrowser.open", "urllib.Request")  # fmt: skip


def watch(folder: str, seen: list[str]) -> None:
    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in FORBIDDEN:
            seen.append(f"{event} {arguments!r}"[:200])
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            if flags & (os.O_WRONLY | os.O_RDWR) or not path.startswith((folder, *HARMLESS, "/usr", "/etc/localtime")):
                seen.append(f"open {path}")
        elif event == "import" and str(arguments[0]).startswith(("bait", "antigravity", "this")):
            seen.append(f"import {arguments[0]}")

    sys.addaudithook(hook)


def show(path: str, folder: str, report: int) -> None:
    """What `ckpt show PATH --json` does, in a child; ends it."""
    from ckpt_tool.__main__ import main

    seen: list[str] = []
    out = os.open(os.devnull, os.O_WRONLY)
    os.dup2(out, 1)
    error = tempfile.TemporaryFile()  # noqa: SIM115, the process ends with it
    os.dup2(error.fileno(), 2)
    sys.argv = ["ckpt", "show", "--json", "--", path]
    status: object = 0
    signal.alarm(MAX_SECONDS)
    watch(folder, seen)
    try:
        main()
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException as raised:
        status = f"{type(raised).__name__}: {raised}"[:300]
    sys.stderr.flush()
    error.seek(0)
    text = error.read(20_000).decode("utf-8", "replace")
    os.write(report, json.dumps({"status": status, "error": text, "seen": seen[:5]}).encode())
    os._exit(0)


def show_in_child(path: str, folder: str) -> dict[str, object]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        show(path, folder, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as report:
        said = report.read()
    _, status, usage = os.wait4(child, 0)
    found: dict[str, object] = json.loads(said) if said else {"status": f"died: {os.waitstatus_to_exitcode(status)}", "error": "", "seen": []}
    return {**found, "seconds": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)}


def import_everything() -> None:
    """What the first commands would import, so that the children import nothing for themselves."""
    import contextlib
    import io

    from ckpt_tool.__main__ import main

    for path in sys.argv[2:]:
        sys.argv = ["ckpt", "show", "--json", path]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
            main()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    where = os.path.realpath(sys.argv[1])
    import_everything()
    os.chdir(where)
    sys.path.insert(0, where)
    for line in sys.stdin:
        print(json.dumps(show_in_child(json.loads(line), where)), flush=True)
