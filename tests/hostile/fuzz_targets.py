"""What is fuzzed: for each parser its inputs, the ways to change them, and what must hold of whatever comes out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from safetensors.torch import save

from tests.hostile import seeds
from tests.hostile.broken_files import torch_file
from tests.hostile.fuzz_files import check_file
from tests.hostile.fuzz_names import (
    catalog_pairs,
    check_catalogs,
    check_formula,
    check_params,
    formulas,
    params,
)
from tests.hostile.fuzz_oracles import (
    check_against_numpy,
    check_against_safetensors,
    check_against_tarfile,
    check_against_torch,
    check_against_unpickler,
    check_against_weights_only,
    check_against_zipfile,
)
from tests.hostile.fuzz_rules import check_pattern, check_rules
from tests.hostile.fuzz_shortcuts import (
    check_dcp_metadata,
    check_header,
    check_steps,
    dcp_metadata,
    headers,
    state_dicts,
)
from tests.hostile.fuzz_splicing import check_splicing, streams
from tests.hostile.mutations import (
    change_bytes,
    change_fields,
    change_header,
    change_opcodes,
    change_states,
    change_words,
)

Change = Callable[[bytes, list[bytes], Random], bytes]


@dataclass(frozen=True)
class Target:
    """`seeds` makes the inputs, `changes` are tried in turn by chance, `check` raises for what must not be."""

    seeds: Callable[[], list[bytes]]
    changes: tuple[Change, ...]
    check: Callable[[bytes, Path], None]


def check_pickle(raw: bytes, path: Path) -> None:
    check_file(raw, path)
    check_file(seeds.with_pickle(raw), path)


def check_index(raw: bytes, path: Path) -> None:
    for name, content in (("a.safetensors", save({"a": seeds.W})), ("b.bin", torch_file({"b": seeds.W}))):
        if not (path.parent / name).exists():
            (path.parent / name).write_bytes(content)
    check_file(raw, path.with_name("model.safetensors.index.json"))


def _change_state(raw: bytes, others: list[bytes], chance: Random) -> bytes:
    """A torch file in whose pickle an object is given a state, or another one."""
    if not raw.startswith(b"PK"):
        return change_states(raw, others, chance)
    members = seeds.members_of(raw)
    pickles = [seeds.members_of(other)["data.pkl"] for other in others if other.startswith(b"PK")]
    members["data.pkl"] = change_states(members["data.pkl"], pickles, chance)
    return seeds.repacked(members, False)


def _change_member(raw: bytes, others: list[bytes], chance: Random) -> bytes:
    """A torch zip with one member changed and all checksums right; or, where it is none any more, with changed bytes."""
    members = seeds.members_of(raw)
    name = chance.choice(list(members))
    change = change_opcodes if name.endswith(".pkl") and chance.random() < 0.7 else change_bytes
    members[name] = change(members[name], [content for content in members.values() if content], chance)
    if chance.random() < 0.1:
        members[chance.choice(("data/1", "x", "data.pkl ", "Data/0", "../a", "version", "constants.pkl", "byteorder", ".data/x"))] = (
            members.pop(name)
        )
    return seeds.repacked(members, chance.random() < 0.2)


TARGETS = {
    "safetensors": Target(seeds.safetensors, (change_bytes, change_header, change_fields), check_file),
    "safetensors-oracle": Target(seeds.safetensors, (change_bytes, change_header, change_fields), check_against_safetensors),
    "zip": Target(seeds.torch_zip, (change_bytes, _change_member), check_against_zipfile),
    "torch-oracle": Target(lambda: seeds.torch_zip() + seeds.legacy(), (change_bytes,), check_against_torch),
    "member-oracle": Target(seeds.torch_zip, (_change_member,), check_against_torch),
    "states": Target(seeds.states, (_change_state, _change_state, _change_state, _change_member), check_against_weights_only),
    "pickle": Target(lambda: seeds.pickles() + seeds.bad_pickles(), (change_bytes, change_opcodes, change_opcodes), check_pickle),
    "array-pickle": Target(seeds.pickled_arrays, (change_bytes, change_opcodes), check_against_unpickler),
    "legacy": Target(seeds.legacy, (change_bytes, change_opcodes), check_against_torch),
    "tar": Target(seeds.tars, (change_bytes,), check_against_tarfile),
    "arrays": Target(seeds.arrays, (change_bytes,), check_against_numpy),
    "gguf": Target(seeds.gguf, (change_bytes,), check_file),
    "index": Target(seeds.indexes, (change_bytes, change_words), check_index),
    "key-list": Target(seeds.key_lists, (change_bytes, change_words), check_file),
    "junk": Target(lambda: seeds.junk() + seeds.key_lists() + seeds.gguf()[:1], (change_bytes,), check_file),
    "rules": Target(seeds.rule_files, (change_words, change_words, change_bytes), check_rules),
    "patterns": Target(seeds.patterns, (change_words, change_bytes), check_pattern),
    "formulas": Target(formulas, (change_words, change_bytes), check_formula),
    "params": Target(params, (change_words, change_bytes), check_params),
    "catalogs": Target(catalog_pairs, (change_words, change_words, change_bytes), check_catalogs),
    "steps": Target(state_dicts, (change_bytes, change_opcodes), check_steps),
    "splicing": Target(streams, (change_bytes, change_opcodes, change_opcodes), check_splicing),
    "dcp-metadata": Target(dcp_metadata, (change_bytes, change_opcodes, change_opcodes), check_dcp_metadata),
    "plain-header": Target(headers, (change_bytes, change_words), check_header),
    "torchscript": Target(seeds.torchscript, (_change_member, change_bytes), check_file),
}
