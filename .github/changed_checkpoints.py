"""What the action runs: a report of the checkpoints that changed since a commit, for the job's summary and the pull request.

Reads CKPT_BASE, CKPT_BEFORE, CKPT_PATHS, CKPT_ARGUMENTS, CKPT_PULL_REQUEST and CKPT_TOKEN, and GitHub's own variables. Needs git, `ckpt` on the path, and
nothing else.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from pathlib import Path

MARK = "<!-- ckpt diff -->"
MAX_LINES = 200
MAX_CHARACTERS = 60_000
"""A comment may have 65,536."""
MAX_CONCLUSION = 1000
"""Characters of a file's line, of which each may be written as several."""
MAX_FRAME = 100
"""Characters of what stands around a text that unfolds, but for its fences."""
BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Characters that Python calls printable, and that nobody sees."""
NO_COMMIT = "0" * 40
"""What GitHub gives as the commit before the first push of a branch."""


class Unusable(Exception):
    """What the action was given, and why nothing can be done with it."""


def main() -> int:
    try:
        return run()
    except Unusable as error:
        print(f"::error title=ckpt diff::{for_runner(str(error))}", flush=True)
        return 2


def run() -> int:
    base = os.environ.get("CKPT_BASE", "").strip()
    if not base or base == NO_COMMIT:
        print("there is no commit to compare with: nothing to do")
        return 0
    if base.startswith("-"):
        raise Unusable(f"base: {base!r} is no commit")
    check_arguments()
    if git("cat-file", "-e", f"{base}^{{commit}}", check=False).returncode:
        fetched = git("fetch", "--quiet", "--depth=1", "origin", base, check=False)
        if fetched.returncode:
            raise Unusable(f"base: {base!r} is no commit that can be fetched: {fetched.stderr.decode(errors='replace').strip()}")
    if base != os.environ.get("CKPT_BEFORE"):  # what was there before a push may have been pushed away: it is compared itself
        # Where the history is there: the commit at which the branch began, and not what came into its base since.
        base = git("merge-base", base, "HEAD", check=False).stdout.decode().strip() or base
    changes = changed_files(base, os.environ.get("CKPT_PATHS", "").split("\n"))
    report = report_of(base, changes)
    publish(report, len(changes))
    return 0


def arguments() -> "list[str]":
    """The options of `ckpt diff`."""
    given = os.environ.get("CKPT_ARGUMENTS", "--renames")
    try:
        return shlex.split(given)
    except ValueError as error:
        raise Unusable(f"arguments: {given!r} can't be split into words: {str(error).lower()}") from None


def check_arguments() -> None:
    """Raises Unusable for what is no option of `ckpt diff`: then no file could be compared."""
    given = arguments()
    ran = subprocess.run(["ckpt", "diff", "before", "after", *given], capture_output=True, text=True, check=False)
    if ran.stderr.startswith("Usage:"):
        reason = ran.stderr.strip().splitlines()[-1].removeprefix("error: ")
        raise Unusable(f"arguments: {shlex.join(given)}: {reason}")


def git(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["git", *arguments], capture_output=True, check=check)


def changed_files(base: str, paths: "list[str]") -> "list[tuple[str, str]]":
    """The status (A, M, D) and the path of each file that differs between the base and the checkout's commit."""
    wanted = [path.strip() for path in paths if path.strip()]
    listed = git("diff", "--name-status", "--no-renames", "--ignore-submodules", "-z", base, "HEAD", "--", *wanted, check=False)
    if listed.returncode:
        raise Unusable(f"git diff failed: {listed.stderr.decode(errors='replace').strip()}")
    fields = [os.fsdecode(field) for field in listed.stdout.split(b"\0") if field]
    return list(zip((status[0] for status in fields[::2]), fields[1::2]))  # noqa: B905


def report_of(base: str, changes: "list[tuple[str, str]]") -> str:
    """Markdown: a line a file, behind which its diff unfolds."""
    if not changes:
        return f"{MARK}\nNo checkpoint or key list changed.\n"
    parts = [MARK, f"### Checkpoints that changed since {base[:12]}", ""]
    with tempfile.TemporaryDirectory() as folder:
        sections = [section(status, path, base, Path(folder)) for status, path in changes]
    room = MAX_CHARACTERS - len("\n".join(parts))
    for at, (summary, text) in enumerate(sections):
        whole = details(summary, text)
        if len(whole) >= room:
            parts += [] if at else [details(summary, text, max(0, room - len(summary) - MAX_FRAME))]
            return "\n".join(parts) + "\n\nThe rest is in the job's log.\n"
        parts.append(whole)
        room -= len(whole) + 1
    return "\n".join(parts) + "\n"


def section(status: str, path: str, base: str, folder: Path) -> "tuple[str, str]":
    """What changed in one file: in a line, and the whole text."""
    before, after = folder / "before" / path, folder / "after" / path
    if status != "A":
        extract(base, path, before)
    if status != "D":
        extract("HEAD", path, after)
    if status == "A":
        ran = ckpt("show", f"after/{path}", folder=folder)
    elif status == "D":
        ran = ckpt("show", f"before/{path}", folder=folder)
    else:
        ran = compared(path, arguments(), folder)
    word = {"A": "added", "D": "deleted"}.get(status, "changed")
    text = ran.stdout.strip() or ran.stderr.strip()
    conclusion = text.splitlines()[-1] if text else ""
    return f"<code>{escaped(path)}</code> {word}: {escaped(conclusion[:MAX_CONCLUSION])}", text


def compared(path: str, options: "list[str]", folder: Path) -> "subprocess.CompletedProcess[str]":
    """What changed between two versions; of key lists without digests, which have no values, their keys alone."""
    sides = f"before/{path}", f"after/{path}"
    if "--values" in options:
        tried = subprocess.run(["ckpt", "diff", *sides, *options], cwd=folder, capture_output=True, text=True, check=False)
        if tried.returncode > 1 and "is a key list: it has no values" in tried.stderr:
            options = [one for one in options if one != "--values"]
    return ckpt("diff", *sides, *options, folder=folder)


def extract(commit: str, path: str, place: Path) -> None:
    """Writes a file as it is checked out: where Git LFS is installed, the file itself and not its pointer."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place, "wb") as file:
        subprocess.run(["git", "cat-file", "--filters", f"{commit}:{path}"], stdout=file, check=False)


def ckpt(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A command on files of this pull request. What it prints can't become a command to the runner."""
    ran = subprocess.run(["ckpt", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    token = uuid.uuid4().hex
    print(f"::group::ckpt {for_runner(shlex.join(arguments))}\n::stop-commands::{token}\n{ran.stdout}{ran.stderr}\n::{token}::\n::endgroup::", flush=True)
    if ran.returncode > 1 and arguments[0] == "diff":
        print(f"::warning file={for_runner(arguments[2].removeprefix('after/'))},title=ckpt diff::could not compare it", flush=True)
    return ran


def for_runner(text: str) -> str:
    """Text inside of a command to the runner."""
    return re.sub(r"[%\r\n:,]", lambda found: f"%{ord(found[0]):02X}", text)


def details(summary: str, text: str, room: "int | None" = None) -> str:
    """A line that unfolds into a text, which may hold anything; into so many characters of it."""
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES], f"… and {len(lines) - MAX_LINES} more lines", lines[-1]]
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    body = "\n".join(lines)
    if room is not None and len(body) > room - 2 * len(fence):
        body = body[: max(0, room - 2 * len(fence))] + "…"
    return f"<details><summary>{summary}</summary>\n\n{fence}text\n{body}\n{fence}\n\n</details>"


def visible(text: str) -> str:
    """Text with what can't be seen, or rearranges what stands around it, as its code."""
    return "".join(one if one.isprintable() and not BLANK.match(one) else ascii(one)[1:-1] for one in text)


def escaped(text: str) -> str:
    """Text inside of HTML and markdown."""
    plain = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"[\\`*_\[\]|#@~]", lambda found: f"&#{ord(found[0])};", plain)


def publish(report: str, changed: int) -> None:
    """Into the job's summary and outputs, and as the comment of a pull request."""
    report = report.encode(errors="backslashreplace").decode()  # names of files may be any bytes
    for variable, text in (("GITHUB_STEP_SUMMARY", report), ("GITHUB_OUTPUT", f"changed={changed}\n")):
        if place := os.environ.get(variable):
            with open(place, "a", encoding="utf-8") as file:
                file.write(text)
    if number := os.environ.get("CKPT_PULL_REQUEST"):
        comment(number, report, is_wanted=changed > 0)


def comment(number: str, report: str, is_wanted: bool) -> None:
    """Writes the comment, or the one of the last run anew; nothing where nothing changed and there is none."""
    api, repository = os.environ["GITHUB_API_URL"], os.environ["GITHUB_REPOSITORY"]
    issue, page = f"{api}/repos/{repository}/issues/{number}/comments", 1
    while found := request("GET", f"{issue}?per_page=100&page={page}"):
        for one in found:
            if one["body"].startswith(MARK):
                request("PATCH", f"{api}/repos/{repository}/issues/comments/{one['id']}", {"body": report})
                return
        page += 1
    if is_wanted:
        request("POST", issue, {"body": report})


def request(method: str, address: str, body: "dict[str, str] | None" = None) -> "list[dict[str, str]]":
    asked = urllib.request.Request(address, method=method, data=json.dumps(body).encode() if body else None)
    asked.add_header("Authorization", f"Bearer {os.environ['CKPT_TOKEN']}")
    asked.add_header("Accept", "application/vnd.github+json")
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return json.load(answer)


if __name__ == "__main__":
    sys.exit(main())
