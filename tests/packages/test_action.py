"""What the GitHub Action runs, on a real repository: the report of what changed, and the comment, which a real server takes."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import yaml
from safetensors.torch import save_file
from shell import ROOT, Repository

SCRIPT = ROOT / ".github" / "changed_checkpoints.py"
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
PATHS = ACTION["inputs"]["paths"]["default"]


def network(prefix="", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {f"{prefix}layer{i}.weight": torch.randn(4, 4, generator=generator) for i in range(3)}


@pytest.fixture
def repository(tmp_path):
    """Two commits: a checkpoint renamed throughout, one added, one deleted, a key list with one line more, and a text."""
    made = Repository(tmp_path / "repository", tmp_path / "programs")
    folder = made.folder
    (folder / "models").mkdir()
    save_file(network(), folder / "models" / "a b.safetensors")
    torch.save(network(), folder / "old.pth")
    (folder / "net.keys").write_text("x\tF32\t2\n")
    (folder / "text.txt").write_text("1")
    made.base = made.commit()
    save_file(network("net."), folder / "models" / "a b.safetensors")
    (folder / "old.pth").unlink()
    torch.save(network(seed=1), folder / "new`<b>.pth")
    (folder / "net.keys").write_text("x\tF32\t2\ny\tF32\t2\n")
    (folder / "text.txt").write_text("2")
    made.commit()
    return made


def report(repository, **more):
    summary = repository.folder.parent / "summary.md"
    output = repository.folder.parent / "output"
    given = {"CKPT_BASE": repository.base, "CKPT_PATHS": PATHS, "CKPT_ARGUMENTS": "--renames", "GITHUB_STEP_SUMMARY": str(summary), "GITHUB_OUTPUT": str(output)}
    ran = repository.run(sys.executable, SCRIPT, **{**given, **more})
    assert ran.returncode == 0, ran.stderr
    return ran, summary.read_text() if summary.exists() else "", output.read_text() if output.exists() else ""


def test_the_report_has_each_file_that_changed(repository):
    _, text, output = report(repository)
    assert output == "changed=4\n"
    summaries = [line for line in text.splitlines() if line.startswith("<details>")]
    assert [line.split("</code>")[0] for line in summaries] == [
        "<details><summary><code>models/a b.safetensors",
        "<details><summary><code>net.keys",
        "<details><summary><code>new&#96;&lt;b&gt;.pth",
        "<details><summary><code>old.pth",
    ]
    assert "changed: " in summaries[0]
    assert "renamed" in summaries[0]
    assert "1 added" in summaries[1]
    assert "added: 3 tensors" in summaries[2]
    assert "deleted: 3 tensors" in summaries[3]
    assert "text.txt" not in text


def test_values_are_compared_where_there_are_some(repository):
    _, text, _ = report(repository, CKPT_ARGUMENTS="--renames --values")
    summaries = [line for line in text.splitlines() if line.startswith("<details>")]
    assert "3 renamed" in summaries[0]
    assert "1 added" in summaries[1]
    assert "error" not in text


def test_what_came_into_the_base_since_the_branch_began_is_no_change_of_the_branch(repository):
    repository.git("checkout", "-q", "-b", "other", repository.base)
    (repository.folder / "net.keys").write_text("z\tF32\t2\n")
    base = repository.commit()
    repository.git("checkout", "-q", "main")
    _, text, _ = report(repository, CKPT_BASE=base, CKPT_PATHS="*.keys")
    assert "1 added" in text
    assert "removed" not in text


def test_a_base_that_is_not_in_a_shallow_checkout_is_fetched(repository, tmp_path):
    repository.git("config", "uploadpack.allowAnySHA1InWant", "true")
    shallow = Repository(tmp_path / "shallow", tmp_path / "programs")
    shallow.git("remote", "add", "origin", repository.folder.as_uri())
    shallow.git("fetch", "-q", "--depth=1", "origin", "main")
    shallow.git("checkout", "-q", "FETCH_HEAD")
    shallow.base = repository.base
    assert report(shallow)[2] == "changed=4\n"


@pytest.fixture
def pushed_away(repository, tmp_path):
    """A fresh checkout of depth 1 after a force-push that took the last commit away; its base is that commit."""
    before = repository.git("rev-parse", "HEAD").strip()
    repository.git("reset", "-q", "--hard", repository.base)
    fresh = Repository(tmp_path / "fresh", tmp_path / "programs")
    fresh.git("remote", "add", "origin", repository.folder.as_uri())
    fresh.git("fetch", "-q", "--depth=1", "origin", "main")
    fresh.git("checkout", "-q", "FETCH_HEAD")
    fresh.base = before
    return fresh


def test_a_force_push_is_compared_with_what_it_pushed_away(repository, pushed_away):
    repository.base = pushed_away.base
    for one in (repository, pushed_away):  # with the history, and without
        _, text, _ = report(one, CKPT_BEFORE=one.base, CKPT_PATHS="*.keys")
        assert text.count(f"changed since {one.base[:12]}") == text.count("<details>")
        assert "1 removed" in text


def test_a_commit_that_was_pushed_away_and_deleted_is_one_line(repository, pushed_away):
    repository.git("reflog", "expire", "--expire=now", "--all")
    repository.git("gc", "-q", "--prune=now")
    ran = pushed_away.run(sys.executable, SCRIPT, CKPT_BASE=pushed_away.base, CKPT_BEFORE=pushed_away.base, CKPT_PATHS=PATHS)
    assert (ran.returncode, ran.stderr) == (2, "")
    assert ran.stdout.startswith(f"::error title=ckpt diff::base%3A '{pushed_away.base}' is no commit that can be fetched%3A ")
    assert len(ran.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"CKPT_ARGUMENTS": '--renames "'}, "arguments%3A '--renames \"' can't be split into words%3A no closing quotation"),
        ({"CKPT_ARGUMENTS": "--nope"}, "arguments%3A --nope%3A no such option%3A --nope"),
        ({"CKPT_ARGUMENTS": "--values --rtol many"}, "arguments%3A --values --rtol many%3A invalid value for '--rtol'"),
        ({"CKPT_BASE": "-x"}, "base%3A '-x' is no commit"),
        ({"CKPT_BASE": "no-such-commit"}, "base%3A 'no-such-commit' is no commit that can be fetched%3A "),
        ({"CKPT_PATHS": ":(nonsense)x"}, "git diff failed%3A "),
    ],
)
def test_what_the_action_cant_use_is_one_line(repository, given, said):
    usual = {"CKPT_BASE": repository.base, "CKPT_PATHS": PATHS, "CKPT_ARGUMENTS": "--renames"}
    ran = repository.run(sys.executable, SCRIPT, **{**usual, **given})
    assert (ran.returncode, ran.stderr) == (2, "")
    assert ran.stdout.startswith(f"::error title=ckpt diff::{said}")
    assert len(ran.stdout.splitlines()) == 1


def test_what_nobody_sees_in_a_name_has_its_code(repository):
    (repository.folder / "a\u202eb\u200b.keys").write_text("x\tF32\t2\n")
    repository.commit()
    assert "<code>a&#92;u202eb&#92;u200b.keys</code>" in report(repository)[1]


def test_a_report_without_changes_says_so(repository):
    _, text, output = report(repository, CKPT_PATHS="*.gguf")
    assert (text.splitlines()[-1], output) == ("No checkpoint or key list changed.", "changed=0\n")
    ran, text, _ = report(repository, CKPT_BASE="0" * 40, GITHUB_STEP_SUMMARY=str(repository.folder.parent / "other"))
    assert "no commit to compare with" in ran.stdout


def test_a_text_that_is_too_long_is_cut_inside_of_its_fence(repository):
    for name, files in (("one", 1), ("several", 9)):
        keys = {(chr(97 + at % 26) + chr(97 + at // 26)) * 200: torch.ones(at + 1) for at in range(200 if files == 1 else 60)}
        for number in range(files):
            save_file(keys, repository.folder / f"{name}{number}.safetensors")
        repository.commit()
        (repository.folder.parent / "summary.md").unlink(missing_ok=True)
        _, text, _ = report(repository, CKPT_PATHS=f"{name}*")
        assert len(text) <= 61_000
        assert text.endswith("\n</details>\n\nThe rest is in the job's log.\n"), text[-300:]
        assert text.count("\n```text\n") == text.count("\n```\n") == text.count("\n</details>") >= 1


def test_names_in_files_give_the_runner_no_commands(repository):
    save_file({"\n::add-mask::x": torch.ones(1)}, repository.folder / "hostile.safetensors")
    repository.commit()
    ran, _, _ = report(repository)
    inside, token = False, None
    for line in ran.stdout.splitlines():
        if line.startswith("::stop-commands::"):
            inside, token = True, line.removeprefix("::stop-commands::")
        elif token and line == f"::{token}::":
            inside = False
        else:
            assert inside or line.startswith(("::group::ckpt ", "::endgroup::", "::warning ")), line


class Server(ThreadingHTTPServer):
    comments: dict


class Comments(BaseHTTPRequestHandler):
    """The part of GitHub's API that is used."""

    server: Server

    def do_GET(self):
        page = int(self.path.rsplit("page=", 1)[1])
        self.answer([{"id": number, "body": body} for number, body in self.server.comments.items()] if page == 1 else [])

    def do_POST(self):
        self.server.comments[len(self.server.comments) + 1] = self.body()
        self.answer({})

    def do_PATCH(self):
        self.server.comments[int(self.path.rsplit("/", 1)[1])] = self.body()
        self.answer({})

    def body(self):
        assert self.headers["Authorization"] == "Bearer secret"
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]

    def answer(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def test_a_pull_request_gets_one_comment_that_is_kept_up_to_date(repository):
    with Server(("127.0.0.1", 0), Comments) as server:
        server.comments = {1: "looks good"}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asked = {"CKPT_PULL_REQUEST": "7", "CKPT_TOKEN": "secret", "GITHUB_API_URL": f"http://127.0.0.1:{server.server_port}", "GITHUB_REPOSITORY": "a/b"}
        report(repository, **asked)
        assert server.comments.keys() == {1, 2}
        first = server.comments[2]
        assert "net.keys" in first
        report(repository, **asked, CKPT_PATHS="*.gguf")
        assert server.comments.keys() == {1, 2}
        assert "No checkpoint or key list changed." in server.comments[2]
        server.shutdown()


def test_the_action_runs_the_script_with_variables_that_it_reads():
    steps = ACTION["runs"]["steps"]
    assert ".github/changed_checkpoints.py" in steps[-1]["run"]
    text = SCRIPT.read_text()
    assert all(name in text for name in steps[-1]["env"])
