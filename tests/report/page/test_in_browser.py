"""Report pages in headless Chromium, as people use them: by mouse, by keys, by names that want to be more than names."""

import pytest
import torch
from running import ckpt

from tests.report.page.browser import Shown, chromium

KEYS = {"down": "\ue015", "right": "\ue014", "left": "\ue012", "enter": "\ue007", "tab": "\ue004", "end": "\ue010"}


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


NETS = """from torch import nn


def one(eps=1e-5):
    return nn.Sequential(nn.Linear(4, 10), nn.LayerNorm(10, eps=eps), nn.Linear(10, 2))


def two():
    return one(1e-2)


class Block(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.fc, self.out, self.by = nn.Linear(4, 4), nn.Linear(4, 4), by

    def forward(self, x):
        return self.out(self.fc(x) * self.by)


def blocks(by=1):
    return nn.Sequential(nn.Linear(4, 4), Block(by))


def other_blocks():
    return blocks(2)
"""


@pytest.fixture(scope="module")
def pages(story, tmp_path_factory):
    """The page of a command, by its name; each is made once."""
    folder = tmp_path_factory.mktemp("pages")
    source, target = story / "resnet50.pth", story / "detector.pth"

    def tuned():
        state = torch.load(source, weights_only=True)
        moved = {key: value + value.abs().mean() * 0.01 for key, value in state.items() if value.is_floating_point() and key.startswith("layer4")}
        torch.save({key: value for key, value in (state | moved).items() if key != "fc.bias"}, folder / "tuned.pth")
        return "diff", source, "tuned.pth", "--values"

    def traced():
        (folder / "paged_nets.py").write_text(NETS)
        torch.save(torch.nn.Sequential(torch.nn.Linear(4, 10), torch.nn.LayerNorm(10), torch.nn.Linear(10, 2)).state_dict(), folder / "net.pth")
        return "trace", "net.pth", "--model", "paged_nets:one", "--model-b", "paged_nets:two", "--random-input", "3x4"

    def nested():
        traced()
        state = {f"{name}.{kind}": torch.ones(4, 4)[:, :count].squeeze() for name in ("0", "1.fc", "1.out") for kind, count in (("weight", 4), ("bias", 1))}
        torch.save(state, folder / "blocks.pth")
        return "trace", "blocks.pth", "--model", "paged_nets:blocks", "--model-b", "paged_nets:other_blocks", "--random-input", "3x4"

    def averaged():
        state = {f"layers.{i}.weight": torch.ones(20, 20) for i in range(3)}
        torch.save({"model": state, "ema": {key: value.clone() for key, value in state.items()}, "epoch": 3}, folder / "run.pth")
        return "show", "run.pth"

    def wider():
        state = {"layers.0.weight": torch.ones(20, 20), "layers.1.weight": torch.ones(30, 30)}
        torch.save(state, folder / "narrow.pth")
        torch.save({f"net.{key}": value for key, value in state.items()} | {"net.layers.1.weight": torch.ones(40, 30)}, folder / "wide.pth")
        return "suggest", "narrow.pth", "wide.pth"

    def small():
        lines = [f"model.layers.{i}.moe.experts.{e}.{name}.weight\tF32\t4x4\n" for i in range(24) for e in range(24) for name in "abc"]
        (folder / "small.txt").write_text("".join([*lines, *(f"tower.{i}.weight\tF32\t20x20\n" for i in range(6)), "flag\tF32\t60\n"]))
        return "show", "small.txt"

    def broken():
        state = {f"layers.{i}.{name}.weight": torch.full((4, 4), 1.0 + i) for i in range(4) for name in "qk"}
        other = {"layers.1.k.weight": torch.full((4, 4), float("nan")), "layers.2.k.weight": torch.ones(4, 5), "layers.3.k.weight": torch.ones(4, 4)}
        torch.save(state, folder / "whole.pth")
        torch.save(state | other, folder / "broken.pth")
        return "diff", "whole.pth", "broken.pth", "--values"

    commands = {
        "broken": broken,
        "show": lambda: ("show", source),
        "plan": lambda: ("plan", source, target, "--rules", "resnet50_to_yolo.yaml"),
        "refused": lambda: ("plan", source, target),
        "suggest": lambda: ("suggest", source, target),
        "diff": tuned,
        "trace": traced,
        "nested": nested,
        "averaged": averaged,
        "wider": wider,
        "small": small,
    }

    def page(name):
        path = folder / f"{name}.html"
        if not path.exists():
            ckpt(*commands[name](), "--html", path, "-q", cwd=folder)
        return path

    return page


NAMES = ("show", "diff", "plan", "refused", "suggest", "trace", "nested", "averaged", "wider")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_opens_without_an_error_and_asks_nobody(driver, pages, name):
    page = Shown(driver, pages(name))
    assert page.texts(".row .label")
    for selector in ("#unfold", "#fold", "#theme", "#theme"):
        page.click(selector)
    for button in ("#view-list", "#view-pairs"):
        if page.run("return !document.querySelector(arguments[0]).closest('[hidden]')", button):
            page.click(button)
            assert page.texts(".row .label")
    assert page.errors == []


def test_a_search_shows_what_it_finds_on_both_sides(driver, pages):
    page = Shown(driver, pages("plan"))
    assert page.search("layer2 conv1") == "4 of 386"
    assert page.texts(".row.leaf .label") == ["weight"] * 8
    assert page.search("layer2.*.conv1.w") == "4 of 386"
    assert page.search("no such key") == "0 of 386"
    assert page.texts(".row") == []
    assert page.search("") == ""
    assert page.errors == []


def test_a_card_shows_its_keys_alone(driver, pages):
    page = Shown(driver, pages("plan"))
    page.click(".card:nth-child(2)")
    assert page.texts("#found") == ["66 of 386"]
    assert page.texts(".row.module .label")[:2] == ["layer5", "0"]
    assert page.run("return document.querySelector('.card:nth-child(2)').getAttribute('aria-pressed')") == "true"
    page.click(".card:nth-child(2)")
    assert page.texts("#found") == [""]


def test_a_diff_shows_first_what_differs(driver, pages):
    page = Shown(driver, pages("diff"))
    assert page.texts("#found") == ["51 of 320"]
    assert "fc" in page.texts(".row.module .label")
    assert "Cosine by depth" in page.texts("#charts h3")


def test_layers_that_are_equal_are_drawn_beside_those_that_differ(driver, pages):
    page = Shown(driver, pages("diff"))
    page.run("for (const each of document.querySelectorAll('#charts details')) each.open = true")
    page.settle()
    rows = "return [...document.querySelectorAll('#charts .chart')].map(each => [each.querySelector('h3').textContent, [...each.querySelectorAll('tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))])"
    tables = dict(page.run(rows))
    assert ["layer1.0", "1"] in tables["Cosine by depth"]
    assert ["layer1.0", "0"] in tables["Largest difference"]
    assert {len(row) for row in tables["Norms, where values differ"]} == {3}


def test_a_module_with_nan_or_with_what_was_not_compared_is_not_drawn_as_equal(driver, pages):
    page = Shown(driver, pages("broken"))
    page.click("#unfold")
    rows = dict(page.run("return [...document.querySelectorAll('.row')].map(row => [row.querySelector('.label').textContent, [...row.querySelectorAll('.num')].map(each => each.textContent)])"))
    assert (rows["layers"], rows["1"], rows["2"], rows["3"]) == (["NaN", "NaN"], ["NaN", "NaN"], ["≤ 1", "≥ 0"], ["1", "3"])
    page.run("for (const each of document.querySelectorAll('#charts details')) each.open = true")
    page.settle()
    charts = page.run("return [...document.querySelectorAll('#charts .chart')].map(each => [each.querySelector('h3').textContent, [[...each.querySelectorAll('.mark')].map(mark => mark.textContent), each.querySelectorAll('.odd').length, [...each.querySelectorAll('tbody tr')].map(row => row.cells[1].textContent)]])")
    assert dict(charts)["Cosine by depth"] == [["×", "?"], 1, ["1", "NaN", "≤ 1", "1"]]
    assert dict(charts)["Largest difference"] == [["×", "?"], 1, ["0", "NaN", "≥ 0", "3"]]
    assert page.errors == []


def test_a_file_with_averaged_weights_draws_its_state_dict_apart(driver, pages):
    page = Shown(driver, pages("averaged"))
    assert page.texts("#size-side button") == ["state dict", "elsewhere"]
    assert "ema" not in "".join(page.texts("#treemap text") + page.texts("#charts text"))
    assert page.texts("#layers-title") == ["By layer of the state dict"]
    page.run("for (const each of document.querySelectorAll('#charts details')) each.open = true")
    assert page.run("return [...document.querySelectorAll('#charts .chart')].map(each => each.querySelector('thead th:last-child').textContent)") == ["tensors", "parameters"]
    page.click("#size-side button:last-child")
    assert "ema.layers" in page.texts("#treemap text")
    assert page.texts(".row.module .percent")[0] == "100.0 %"


def test_no_module_of_a_treemap_is_blank_however_many_tensors_it_has(driver, pages):
    size = driver.get_window_size()
    try:
        for width in (1280, 600):
            driver.set_window_size(width, 1000)
            page = Shown(driver, pages("small"))
            assert {"model.layers", "tower", "flag"} <= {tip.split("\n")[0] for tip in page.run("return [...document.querySelectorAll('#treemap g')].map(each => each.dataset.tip)")}
            assert page.run("return [...document.querySelectorAll('#treemap g')].filter(each => !each.matches('.leaf') && !each.querySelector('g')).length") == 0
            assert page.run("return document.querySelectorAll('#treemap svg > g').length") == 3
    finally:
        driver.set_window_size(size["width"], size["height"])


def test_a_draft_counts_what_is_left_in_the_words_of_its_answer(driver, pages):
    page = Shown(driver, pages("wider"))
    assert page.texts("#answer")[0].strip() == "1 mapped by 1 rule, 1 of another shape"
    assert page.texts(".card span") == ["paired", "of another shape"]


def test_a_refused_plan_promises_no_reasons(driver, pages):
    assert Shown(driver, pages("refused")).texts("#details > .note")[-1] == "Choose a module or a key to see what each side has of it."


def test_a_called_module_is_one_row_with_its_own_numbers_and_its_tensors_beside_it(driver, pages):
    page = Shown(driver, pages("nested"))
    assert page.texts(".row .label") == ["1", "out", "(the network)"]
    assert page.texts(".row .num")[0] == "0"  # the block's inputs agree, those of `out` in it don't
    assert page.texts("#details h4")[-1] == "where they diverge"


def test_the_call_where_networks_diverge_names_its_tensors_and_their_rules(driver, pages):
    page = Shown(driver, pages("trace"))
    assert page.texts("#details h3") == ["1"]
    assert page.texts("#details h4")[-3:] == ["where they diverge", "tensor 1.weight", "tensor 1.bias"]
    assert page.texts("#details .stacked")[-1] == "from1.biasruleby name"


def test_a_trace_draws_equal_calls_at_zero_with_whole_labels(driver, pages):
    page = Shown(driver, pages("trace"))
    assert "0" in page.texts("#charts .chart svg text")
    outside = """
        return [...document.querySelectorAll('#charts .chart svg')].flatMap((drawn) => {
          const box = drawn.getBoundingClientRect();
          return [...drawn.querySelectorAll('text')].filter((text) => {
            const its = text.getBoundingClientRect();
            return its.left < box.left - 1 || its.bottom > box.bottom + 1;
          }).map((text) => text.textContent);
        });"""
    assert page.run(outside) == []
    assert "`" not in page.texts("#answer")[0]
    assert page.run("return document.querySelectorAll('#charts circle').length") >= 2 * len(page.texts(".row.leaf .label")) - 1


def test_keys_walk_the_tree_and_say_so_to_screen_readers(driver, pages):
    page = Shown(driver, pages("show"))
    active = "list = document.querySelector('[role=tree]'); return document.getElementById(list.getAttribute('aria-activedescendant'))"
    page.click("#fold")
    page.run("document.querySelector('[role=tree]').focus()")
    assert page.run(f"{active}.getAttribute('aria-expanded')".replace("return document", "return document")) == "false"
    page.type("", KEYS["down"], KEYS["down"], KEYS["right"])
    assert page.run(f"{active}.getAttribute('aria-expanded')") == "true"
    assert page.run(f"{active}.textContent").startswith("▶layer1")
    page.type("", KEYS["right"], KEYS["right"], KEYS["right"], KEYS["right"], KEYS["right"], KEYS["enter"])
    assert page.run(f"{active}.getAttribute('aria-level')") == "4"
    assert page.texts("#details h3") == ["layer1.0.conv1.weight"]
    page.type("", KEYS["left"], KEYS["left"])
    assert page.run(f"{active}.getAttribute('aria-expanded')") == "false"
    page.type("", "/")
    assert page.run("return document.activeElement.id") == "query"


def test_the_reason_of_a_key_is_told_where_it_is_chosen(driver, pages):
    page = Shown(driver, pages("plan"))
    page.search("layer2.1.conv3")
    page.click(".pane .row.leaf")
    text = page.texts("#details")[0]
    assert "layer2.1.bottleneck.6.weight" in text
    assert "layer{s}.{b}.conv{n}.* -> layer{s}.{b}.bottleneck.{3*n-3}.*" in text
    assert "mappings/resnet50_to_yolo.yaml:" in text


def test_a_key_that_is_chosen_by_keys_shows_its_counterpart(driver, pages):
    page = Shown(driver, pages("plan"))
    page.search("layer2.1.conv3")
    page.run("document.querySelector('[role=tree]').focus()")
    page.type("", KEYS["end"], KEYS["enter"])
    assert page.run("return document.querySelectorAll('.gap path.hot').length") == 1
    assert page.texts(".pane:last-child .row.hot .label") == ["weight"]


def test_a_rule_shows_its_keys(driver, pages):
    page = Shown(driver, pages("plan"))
    page.run("document.querySelectorAll('#rules-table button')[2].click()")
    assert page.texts("#found") == ["48 of 386"]
    page.click("#rule-filter")
    assert page.texts("#found") == [""]


def test_the_treemap_looks_into_a_module_by_key_and_has_a_table(driver, pages):
    page = Shown(driver, pages("show"))
    page.run("document.querySelector('#treemap g[tabindex]').focus()")
    page.type("", KEYS["enter"])
    assert page.texts("#crumbs button") == ["all", "layer4"]
    page.run("document.querySelector('.as-table').open = true; document.querySelector('.as-table').dispatchEvent(new Event('toggle'))")
    assert page.texts("#sizes-table tbody tr td:first-child") == ["0", "1", "2"]


def test_controls_have_names(driver, pages):
    page = Shown(driver, pages("plan"))
    unnamed = """return [...document.querySelectorAll('button, input, select, [role=tree], nav, aside, section')].filter(each =>
        !(each.getAttribute('aria-label') || each.getAttribute('aria-labelledby') || each.textContent.trim() || each.closest('label')))
        .map(each => each.outerHTML.slice(0, 80))"""
    assert page.run(unnamed) == []
    assert page.run("return [document.documentElement.lang, document.querySelectorAll('h1').length]") == ["en", 1]


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=http://127.0.0.1:9/x onerror=alert(1)>",
    "--><!--<script>alert(1)",
    "{{ 7 * 7 }}.${alert(1)}",
    "\"'`onload=alert(1) x=",
    "__proto__.constructor.prototype",
    "__proto__",
    "hasOwnProperty",
    "layer\u202egnp.exe",
    "line\u2028separator\x00\x1b[2J",
    "",
    ".",
    "..a..b..",
    "javascript:alert(1)",
    "m" * 1_000_000,
    ".".join("d" * 200_000),
    *(f"blocks.{i}.<b>weight</b>" for i in range(20)),
]


def test_names_of_a_hostile_file_are_text(driver, tmp_path):
    state = {name: torch.ones(2, 3) for name in HOSTILE}
    torch.save(state, tmp_path / "a.pth")
    short = [name for name in HOSTILE if len(name) < 1_000]  # longer ones are compared with no others
    torch.save({name: torch.ones(2, 3) for name in short}, tmp_path / "b.pth")
    torch.save({f"net.{name}": torch.zeros(2, 3) for name in short}, tmp_path / "c.pth")
    ckpt("show", "a.pth", "--html", "<i>x.html", "-q", cwd=tmp_path)
    ckpt("diff", "b.pth", "c.pth", "--values", "--html", "d.html", "-q", cwd=tmp_path)
    for name in ("<i>x.html", "d.html"):
        assert (tmp_path / name).stat().st_size < 400_000
        page = Shown(driver, tmp_path / name)
        page.click("#unfold")
        for view in ("#view-list", "#view-pairs") if name == "d.html" else ():
            page.click(view)
            page.click("#unfold")
        assert page.search("<b>") in ("20 of 36", "40 of 68")
        page.click(".row.leaf")
        assert page.errors == []
        assert page.run("return document.querySelectorAll('img, iframe, .label b, #details b, .name *').length") == 0
        assert page.run("return document.scripts.length") == 2
