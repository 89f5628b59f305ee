"""`--html`: what the file is like, without a browser."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from running import ckpt

import ckpt_tool
from ckpt_tool.report.page.document import Item, Page, PageSide, Status
from ckpt_tool.report.page.names import MAX_NAME, packed, shown
from ckpt_tool.report.page.rendering import page_html

MAX_STORY, MAX_LARGE = 400_000, 10_000_000


def data_of(page: Path):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1])


def unpacked(names):
    keys, before = [], ""
    for shared, rest in zip(names["shared"], names["rest"], strict=True):
        before = before[:shared] + rest
        keys.append(before)
    return keys


COMMANDS = {
    "show": ("show", "resnet50.pth"),
    "diff": ("diff", "resnet50.pth", "detector.pth"),
    "renames": ("diff", "resnet50.pth", "detector.pth", "--renames"),
    "plan": ("plan", "resnet50.pth", "detector.pth", "--rules", "resnet50_to_yolo.yaml"),
    "refused": ("plan", "resnet50.pth", "detector.pth"),
    "suggest": ("suggest", "resnet50.pth", "detector.pth"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_writes_a_small_page_whose_answer_is_its_last_line(story, tmp_path, name):
    page = tmp_path / "page.html"
    ran = ckpt(*COMMANDS[name], "--html", page, cwd=story)
    text = page.read_text()
    assert len(text.encode()) < MAX_STORY
    assert f"wrote {page}: the report page, " in ran.err
    lines = [line for line in (ran.out + ran.err).splitlines() if not line.startswith(("next:", "wrote", "hint:"))]
    title = re.search(r"<h1[^>]*>.*?</span><span>(.*?)</span></h1>", text)[1].replace("&#39;", "'")
    assert (title in lines) or name == "refused"
    data = data_of(page)
    assert len(unpacked(data["sides"][0]["keys"])) == 320
    assert len(data["sides"]) == 1 or len(unpacked(data["sides"][1]["keys"])) == 384


def test_what_stands_between_backticks_is_code():
    from ckpt_tool.report.page.trace import trace_page
    from ckpt_tool.report.trace import trace_text

    one, other = (torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4, eps=eps)) for eps in (1e-5, 0.1))
    found = ckpt_tool.trace(one, other, torch.ones(2, 4), ckpt_tool.load_into(other, one))
    html = page_html(trace_page(found, trace_text(found).splitlines()[-1], found.names))
    body = html[html.index("<main") : html.index("</main>")]
    assert "verified: <code>eps</code> = 1e-05" in body
    assert "they diverge in <code>1</code>; <code>eps</code> = 1e-05" in body
    assert "`" not in body
    side = PageSide("a", "x", (), (), 0, 0)
    odd = page_html(Page("show", "one ` alone, `<b>` < 2", "good", (side,), (), ()))
    assert "one ` alone, `&lt;b&gt;` &lt; 2" in odd


def test_every_key_of_a_plan_is_on_the_page_once_with_the_rule_that_maps_it(story, tmp_path):
    ckpt(*COMMANDS["plan"], "--html", tmp_path / "p.html", "-q", cwd=story)
    data = data_of(tmp_path / "p.html")
    source, target = (unpacked(side["keys"]) for side in data["sides"])
    statuses = [data["statuses"][number]["name"] for number in data["items"]["status"]]
    assert {name: statuses.count(name) for name in set(statuses)} == {"mapped as is": 318, "kept": 66, "dropped": 2}
    a, b = data["items"]["a"], data["items"]["b"]
    assert sorted(each for each in a if each != []) == list(range(320))
    assert sorted(each for each in b if each != []) == list(range(384))
    at = a.index(source.index("layer2.1.conv3.weight"))
    assert target[b[at]] == "layer2.1.bottleneck.6.weight"
    why = data["whys"][data["items"]["why"][at]]
    assert why["rule"].startswith("layer{s}.{b}.conv{n}.* ->")
    assert re.fullmatch(r"mappings/resnet50_to_yolo.yaml:\d+", why["where"])


@pytest.mark.parametrize(
    ("way", "counts"),
    [
        (("--by", "auto"), {"mapped as is": 318, "undecided in the source": 2, "undecided in the target": 66}),
        (("-e", "layer{s}.{b}.bn{n}.* -> layer{s}.{b}.bottleneck.{3*n-2}.*", "--drop", "fc.*"), {"mapped as is": 240, "dropped": 2, "undecided in the source": 78, "undecided in the target": 144}),
        (("--rules", "resnet50_to_yolo.yaml", "--expect", "3"), {"mapped as is": 318, "dropped": 2, "kept": 66}),
        ((), {"undecided in the source": 320, "undecided in the target": 384}),
    ],
)
def test_a_refused_plan_draws_what_would_be_mapped_and_what_its_answer_counts(story, tmp_path, way, counts):
    ran = ckpt("plan", "resnet50.pth", "detector.pth", *way, "--html", tmp_path / "p.html", cwd=story)
    assert ran.status == 1
    data = data_of(tmp_path / "p.html")
    statuses = [data["statuses"][number]["name"] for number in data["items"]["status"]]
    assert {name: statuses.count(name) for name in set(statuses)} == counts
    assert sorted(each for each in data["items"]["a"] if each != []) == list(range(320))
    assert sorted(each for each in data["items"]["b"] if each != []) == list(range(384))
    if "mapped as is" in counts and "kept" not in counts:
        left = f"{counts['mapped as is']} mapped; {counts['undecided in the target']} of 384 target keys would stay fresh"
        assert left in ran.err
        assert f"{counts['undecided in the source']} source keys left over" in ran.err


def test_measured_differences_are_on_the_page(tmp_path):
    a = {f"layers.{i}.weight": torch.full((4, 4), 1.0 + i) for i in range(4)}
    b = {key: value + 0.5 for key, value in a.items()} | {"layers.3.weight": torch.full((4, 4), float("nan"))}
    for name, state in (("a", a), ("b", b)):
        torch.save(state, tmp_path / f"{name}.pth")
    ckpt("diff", "a.pth", "b.pth", "--values", "--html", "d.html", cwd=tmp_path)
    data = data_of(tmp_path / "d.html")
    found = {measure["name"]: dict(zip(measure["at"], measure["values"], strict=True)) for measure in data["measures"]}
    assert found["max |Δ|"][0] == 0.5
    assert found["cosine"][0] == 1.0
    assert found["norm of a"][1] == 8.0
    assert (found["cosine"][3], found["max |Δ|"][3], found["norm of a"][3], found["norm of b"][3]) == ("NaN", "NaN", 16.0, "NaN")
    assert any("16 NaN in b" in note for note in data["notes"])


def test_what_was_not_compared_is_no_number_of_the_page(tmp_path):
    a = {f"layers.{i}.weight": torch.full((4, 4), 1.0 + i) for i in range(4)}
    b = a | {"layers.1.weight": torch.ones(4, 5), "layers.2.weight": torch.zeros(4, 4), "layers.3.weight": torch.ones(4, 4, dtype=torch.complex64)}
    for name, state in (("a", a), ("b", b)):
        torch.save(state, tmp_path / f"{name}.pth")
    ckpt("diff", "a.pth", "b.pth", "--values", "--html", "d.html", cwd=tmp_path)
    data = data_of(tmp_path / "d.html")
    found = {measure["name"]: dict(zip(measure["at"], measure["values"], strict=True)) for measure in data["measures"]}
    assert found["cosine"] == {1: None, 2: "undefined", 3: None}
    assert found["max |Δ|"] == {1: None, 2: 3.0, 3: None}
    notes = [data["notes"][note] if note >= 0 else "" for note in data["items"]["note"]]
    assert notes == ["", "values were not compared", "16 of 16 numbers differ", "values were not compared"]


def test_keys_of_both_sides_stand_in_the_order_of_the_networks(tmp_path):
    a = {f"l.{i}.w": torch.randn(8, 8) for i in (0, 1, 2)} | {"old.w": torch.ones(2), "head.w": torch.randn(8, 8)}
    b = {f"l.{i}.w": torch.randn(8, 8) for i in (0, 1, 2, 3)} | {"head.w": a["head.w"] + 1}
    for name, state in (("a", a), ("b", b)):
        torch.save(state, tmp_path / f"{name}.pth")
    for command in (("diff", "--values"), ("plan", "--by", "name")):
        ckpt(command[0], "a.pth", "b.pth", *command[1:], "--html", f"{command[0]}.html", cwd=tmp_path)
        data = data_of(tmp_path / f"{command[0]}.html")
        keys = [key for key, _ in sorted({**a, **b}.items())]
        sides = [list(a), list(b)]
        shown = [sides[1][two] if isinstance(two, int) else sides[0][one] for one, two in zip(data["items"]["a"], data["items"]["b"], strict=True)]
        assert shown == ["l.0.w", "l.1.w", "l.2.w", "old.w", "l.3.w", "head.w"], command
        assert sorted(shown) == keys
    largest = next(each for each in data_of(tmp_path / "diff.html")["measures"] if each["name"] == "max |Δ|")
    assert dict(zip(largest["at"], largest["values"], strict=True))[5] == 1.0


def test_what_is_renamed_with_other_values_is_counted_apart(tmp_path):
    a = {f"layers.{i}.{name}.weight": torch.full((4, 4), 10.0 * i + j) for i in range(4) for j, name in enumerate("qkv")}
    b = {f"net.{key}": value + 0.5 if key.startswith("layers.2") else value for key, value in a.items()}
    for name, state in (("a", a), ("b", b)):
        torch.save(state, tmp_path / f"{name}.pth")
    ran = ckpt("diff", "a.pth", "b.pth", "--values", "--renames", "--html", "d.html", cwd=tmp_path)
    assert "12 renamed (3 with other values)" in ran.out
    data = data_of(tmp_path / "d.html")
    statuses = [data["statuses"][number]["name"] for number in data["items"]["status"]]
    assert (statuses.count("renamed"), statuses.count("renamed, with other values")) == (9, 3)


def test_a_draft_marks_what_is_undecided(tmp_path):
    a = {f"layers.{i}.weight": torch.ones(4, 4 + i) for i in range(4)}
    torch.save(a | {"layers.0.extra": torch.ones(3)}, tmp_path / "a.pth")
    torch.save({f"net.{key}": value for key, value in a.items()}, tmp_path / "b.pth")
    ran = ckpt("suggest", "a.pth", "b.pth", "--html", "s.html", cwd=tmp_path)
    assert "undecided: `layers.0.extra`" in ran.err
    data = data_of(tmp_path / "s.html")
    statuses = [data["statuses"][number]["name"] for number in data["items"]["status"]]
    assert (statuses.count("paired"), statuses.count("undecided"), len(statuses)) == (4, 1, 5)
    assert "4 mapped by 1 rule, 0 target tensors without a source, 1 source tensor unused<" in (tmp_path / "s.html").read_text()


def test_50_000_keys_fit_in_ten_megabytes(tmp_path):
    for name, prefix in (("a", "model"), ("b", "net.language_model.model")):
        keys = [f"{prefix}.layers.{i // 400}.mlp.experts.{i % 400 // 3}.{('gate', 'up', 'down')[i % 3]}_proj.weight.{i}" for i in range(50_000)]
        (tmp_path / f"{name}.txt").write_text("".join(f"{key}\tBF16\t1536x{64 + i % 7}\n" for i, key in enumerate(keys)))
    rule = "model.** -> net.language_model.model.**"
    ran = ckpt("plan", "a.txt", "b.txt", "-e", rule, "--html", "p.html", "-q", cwd=tmp_path)
    assert ran.status == 0
    assert (tmp_path / "p.html").stat().st_size < MAX_LARGE


def test_a_page_replaces_an_older_page_and_nothing_else(story, tmp_path):
    for _ in range(2):
        assert ckpt("show", story / "resnet50.pth", "--html", "new.html", "-q", cwd=tmp_path).status == 0
    written = (tmp_path / "new.html").read_text()
    begun_alike = written[: written.index("<title>")] + "</head>my own page</html>"
    for mine in ("<html>mine</html>", written + "<!-- a remark of mine -->", written.replace("320", "321", 1), begun_alike):
        (tmp_path / "page.html").write_text(mine)
        ran = ckpt("show", story / "resnet50.pth", "--html", "page.html", cwd=tmp_path)
        assert (ran.status, ran.out) == (2, "")
        assert ran.err.splitlines()[0] == "error: page.html: exists, and is not a report page as ckpt wrote it; give another name"
        assert (tmp_path / "page.html").read_text() == mine
    ran = ckpt("show", story / "resnet50.pth", "--html", "page.pth", cwd=tmp_path)
    assert ran.status == 2
    assert "a report page ends in .html" in ran.err
    assert not (tmp_path / "page.pth").exists()
    ran = ckpt("suggest", "no.pth", "neither.pth", "--html", "", cwd=tmp_path)
    assert "error: --html: is empty" in ran.err
    for folder in (f"{tmp_path}/", str(tmp_path)):
        ran = ckpt("show", story / "resnet50.pth", "--html", folder)
        assert f"is a folder, and a report page is a file; --html {tmp_path}/report.html" in ran.err


def test_the_page_lets_nothing_be_fetched_and_no_other_program_run(story, tmp_path):
    ckpt("show", story / "resnet50.pth", "--html", "s.html", "-q", cwd=tmp_path)
    text = (tmp_path / "s.html").read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert re.findall(r"""(?:src|href)=["']?(?!#|data:)[^"'> ]+""", text.partition("<script")[0]) == []
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|innerHTML|eval\(|https?://(?!www\.w3\.org)", text)


def test_the_template_library_is_imported_for_pages_alone(story):
    probe = "import sys\nfrom ckpt_tool.__main__ import main\ntry:\n    main()\nexcept SystemExit:\n    print('jinja2' in sys.modules, file=sys.stderr)"
    for more, expected in (([], "False"), (["--html", "probe.html"], "True")):
        command = [sys.executable, "-c", probe, "show", "resnet50.pth", "-q", *more]
        ran = subprocess.run(command, cwd=story, capture_output=True, text=True, check=False)
        assert ran.stderr.split() == [expected]
    (story / "probe.html").unlink()


def test_the_pictures_of_the_docs_are_there_and_small():
    docs = Path(__file__).parents[3] / "docs"
    pictures = re.findall(r"\]\((pictures/[a-z_]+\.png)\)", (docs / "report-page.md").read_text())
    assert len(pictures) == 3
    assert all((docs / each).stat().st_size < 150_000 for each in pictures)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("layer\u202egnp.weight", "layer\\u202egnp.weight"),
        ("a\x1b[2J", "a\\x1b[2J"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\ud800", "\\ud800"),
        ("größe.weight", "größe.weight"),
    ],
)
def test_characters_that_hide_or_steer_are_written_out(name, expected):
    assert shown(name) == expected


def test_a_name_of_a_megabyte_is_cut():
    assert len(shown("x" * 1_000_000)) <= MAX_NAME
    assert "1,000,000 characters" in shown("x" * 1_000_000)


def test_packed_names_come_back():
    names = ["a.b", "a.bc", "", "a.b", "ä.ö", "ä.ü"]
    assert unpacked(packed(names)) == names


def test_no_secret_of_an_address_is_on_the_page():
    address = "https://me:secret@host/model.pth?X-Amz-Signature=0f3c"
    side = PageSide("file", address, ("w",), (None,), 1, 4)
    page = Page("show", f"{address}: 1 tensor", "plain", (side,), (Status("tensors", "plain"),), (Item((0,), (), "tensors"),), notes=(address,), next=f"ckpt show {address}")
    text = page_html(page)
    assert "https://host/model.pth" in text
    assert "secret" not in text
    assert "0f3c" not in text


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_can_be_read_in_both_schemes():
    """WCAG 2.2, AA: 4.5 to 1 for text."""
    styles = (Path(ckpt_tool.__file__).parent / "report" / "page" / "assets" / "page.css").read_text()
    schemes = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root[^{]*\{(.*?)\}", styles, re.DOTALL)]
    light, by_system, by_switch = schemes
    assert by_system == by_switch
    tones = ("good", "plain", "calm", "warn", "bad", "special", "teal", "muted", "accent")
    for scheme in (light, by_switch):
        for back in ("back", "card"):
            low = {name: contrast(scheme[name], scheme[back]) for name in ("text", "soft", "faint", "accent")}
            assert min(low.values()) >= 4.5, low
        low = {name: contrast(scheme[name], scheme[f"{name}-soft"]) for name in tones}
        assert min(low.values()) >= 4.5, low
