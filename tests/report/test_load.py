"""The report of a load: text, HTML for notebooks, JSON. Names from a checkpoint are text everywhere."""

import html.parser
import json

import torch
from torch import nn

import ckpt_tool


def report(**more):
    model = nn.Sequential(*[nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(3)], nn.Linear(3, 2))
    source = {f"net.{key}": value for key, value in model.state_dict().items() if not key.startswith("3.")} | more
    return ckpt_tool.load_into(model, source, rules="net.{i}.** -> {i}.**", drop=["<*"] if more else [], keep="3.*")


def test_text_is_folded_and_ends_with_the_counts():
    assert str(report()).splitlines() == ["loaded   {0..2}.**  21", "fresh    3.*         2", "", "21 loaded, 2 kept fresh, 0 dropped"]


def test_many_patterns_are_counted():
    model = nn.ModuleDict({f"{letter}x": nn.Linear(i + 1, 2) for i, letter in enumerate("abcdefghijklmnop")})
    some = {key: value for key, value in model.state_dict().items() if key.startswith(("ax", "cx", "ex"))}
    text = str(ckpt_tool.load_into(model, some, partial=True))
    assert text.splitlines()[-1] == "6 loaded, 26 kept fresh, 0 dropped"
    assert len(text.splitlines()) < 20


def test_json_has_all_and_its_schema():
    found = json.loads(report().to_json())
    assert list(found) == ["schema", "counts", "loaded", "fresh", "dropped", "changed", "notes", "steps"]
    assert (found["schema"], found["counts"]) == (1, {"loaded": 21, "fresh": 2, "dropped": 0})
    assert found["steps"][0] == {"inputs": ["net.0.0.weight"], "outputs": ["0.0.weight"], "ops": [], "origin": {"by": "rule", "file": "-e", "line": 1}}
    assert "\n" not in report().to_json()


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.text = [], set(), ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen |= {tag, *(name for name, _ in attrs)}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_notebook_gets_html_in_which_names_are_text():
    name = "<script>alert('x')</script><b onclick=\"y\">\x1b[31m"
    tags = Tags(report(**{name: torch.ones(2)})._repr_html_())
    assert tags.open == []
    assert tags.seen == {"div", "p", "b", "details", "open", "style", "summary", "code", "ul", "li", "span"}
    assert "<script>alert('x')</script>" in tags.text
    assert "\\x1b[31m" in tags.text
    assert "0.1.running_mean F32 3 ← net.0.1.running_mean" in tags.text
    assert "21 loaded, 2 kept fresh, 1 dropped" in tags.text


def test_a_thousand_keys_of_one_pattern_are_not_all_sent():
    model = nn.ModuleList(nn.Linear(1, 1) for _ in range(600))
    page = ckpt_tool.load_into(model, model.state_dict())._repr_html_()
    assert "and 1,180 more" in page
    assert page.count("<li>") == 21
