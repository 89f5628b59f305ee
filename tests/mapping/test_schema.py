"""The JSON Schema for editors: it accepts what the reader accepts, and knows every section, op and fit."""

import json

import jsonschema
import pytest
import yaml
from conftest import ROOT

from ckpt_tool.mapping.reading.param import FIELDS
from ckpt_tool.mapping.reading.sections import SECTIONS
from ckpt_tool.ops import OPS
from ckpt_tool.ops.fits import FITS

SCHEMA = json.loads((ROOT / "mappings" / "rules.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_it_is_a_schema_of_2020_12():
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    VALIDATOR.check_schema(SCHEMA)


def test_it_knows_what_the_reader_knows():
    assert set(SCHEMA["properties"]) == {*SECTIONS, "include"}
    assert set(SCHEMA["$defs"]["op"]["anyOf"][0]["enum"]) == set(OPS)
    assert set(SCHEMA["$defs"]["op"]["anyOf"][1]["properties"]) == set(OPS)
    assert set(SCHEMA["$defs"]["fits"]["additionalProperties"]["anyOf"][0]["enum"]) == set(FITS)
    assert set(SCHEMA["$defs"]["param"]["anyOf"][2]["properties"]) == set(FIELDS)


@pytest.mark.parametrize("path", sorted((ROOT / "mappings").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_rule_files_name_it_and_conform(path):
    text = path.read_text()
    assert text.splitlines()[0] == "# yaml-language-server: $schema=rules.schema.json"
    assert list(VALIDATOR.iter_errors(yaml.safe_load(text))) == []


WRONG = [
    "rulez: []", "rules: {a: b}", "rules: [[a, b]]", "rules: [a]", "rules: [{a -> b: transposed}]", "rules: [{a -> b: {split: 0, concat: 0}}]",
    "rest: {source: keep}", "expect: {mapped: many}", "params: {n: {of: x}}", "drop: [{q: k}]", "fit: {a: resize}", "when: [{hase: a}]",
    "tests: {a: {b: c}}", "rules: [{from: a}]", "rules: [{a -> b: {pad: {dim: 0, behind: 2}}}]",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_it_finds_what_is_no_rule_file(text):
    assert list(VALIDATOR.iter_errors(yaml.safe_load(text)))
