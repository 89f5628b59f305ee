"""What a hurried map never does: write, or propose, a network that is half loaded or loaded wrongly."""

import shlex

import pytest
import torch
from running import ckpt


def linear(name, rows, columns):
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def norm(name, size):
    return {f"{name}.{leaf}": (size,) for leaf in ("weight", "bias", "running_mean", "running_var")} | {f"{name}.num_batches_tracked": ()}


def body():
    return {key: shape for i in range(2) for key, shape in (linear(f"enc.{i}.fc1", 32, 16) | linear(f"enc.{i}.fc2", 16, 32)).items()}


def blocks(count):
    made = {f"blocks.{i}.conv.weight": (8, 8, 3, 3) for i in range(count)}
    return made | {key: shape for i in range(count) for key, shape in norm(f"blocks.{i}.bn", 8).items()} | linear("head", 3, 8)


def tower(head, names):
    return {key: shape for name in names for key, shape in linear(f"{head}.{name}", 12, 8).items()}


def attention(rows):
    return {key: shape for name in "qkvo" for key, shape in linear(f"l0.attn.{name}", rows if name in "kv" else 16, 16).items()}


LACKING = "hint: no key of the source is left over for them: map a source that has them, or keep those that may stay fresh"
WEIGHTS = {key: shape for key, shape in body().items() if key.endswith("weight")}
KINDS = {
    "fewer heads for keys and values": (body() | attention(16), body() | attention(8)),
    "modulations in each block": (
        body() | linear("b.0.mod", 96, 16) | linear("b.1.mod", 96, 16), body() | linear("b.0.mod", 64, 16) | linear("b.1.mod", 64, 16)
    ),
    "a head over words": (body() | {"tok.weight": (96, 16), "output.weight": (96, 16)}, body() | {"tok.weight": (96, 16), "output.weight": (104, 16)}),
    "a placeholder": (body() | linear("fc", 0, 16), body() | linear("fc", 10, 16)),
    "deeper": (blocks(4), blocks(6)),
    "shallower": (blocks(6), blocks(4)),
    "a deeper stage": (
        {f"down{i}.{j}.weight": (8 << i, 4 << i, 3, 3) for i in range(2) for j in range(2)} | linear("head", 3, 8),
        {f"down{i}.{j}.weight": (8 << i, 4 << i, 3, 3) for i in range(4) for j in range(2)} | linear("head", 3, 8),
    ),
    "words under another name": (body() | {"tok_emb.weight": (96, 16)}, body() | {"wte.weight": (103, 16)}),
    "positions under another name": (body() | {"pos_table.weight": (50, 16)}, body() | {"positions.weight": (60, 16)}),
    "gates of an LSTM": (body() | {f"cell.W_{gate}": (20, 16) for gate in "ifco"}, body() | {"lstm.weight_ih_l0": (80, 16)}),
    "another width": (body() | {f"decoder.{i}.w": (24, 24) for i in range(3)}, body() | {f"dec.{i}.w": (20, 20) for i in range(3)}),
    "a stem for grey images": (body() | {"stem.weight": (8, 3, 7, 7)}, body() | {"conv_in.weight": (8, 1, 7, 7)}),
    "nothing but a head": (
        {f"layer{i}.weight": (64, 64, 3, 3) for i in range(4)} | linear("fc", 5, 32),
        {"rnn.weight_ih_l0": (128, 20), "rnn.weight_hh_l0": (128, 32)} | linear("fc", 5, 32),
    ),
    "masks in a tree of their own": (body() | {f"masks.{key}": shape for key, shape in WEIGHTS.items()}, body()),
    "differences in a tree of their own": (
        {f"model.{key}": shape for key, shape in body().items()} | {f"delta.{key}": shape for key, shape in body().items()}, body(),
    ),
    "a LoRA in a tree of its own": (
        {f"model.{key}": shape for key, shape in body().items()} | {"lora.enc.0.fc1.lora_A": (4, 16), "lora.enc.0.fc1.lora_B": (32, 4)}, body(),
    ),
    "a module called observer": (body() | tower("obs", "ab"), body() | tower("observer", "xy")),
    "frequencies that nobody has": (body(), body() | {"noise_map.freqs": (16,)}),
}  # fmt: skip


def save(path, shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    torch.save({key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}, path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_whole_network_is_neither_written_nor_proposed(tmp_path, kind):
    for name, shapes, seed in zip("ab", KINDS[kind], (1, 2), strict=True):
        save(tmp_path / f"{name}.pth", shapes, seed)
    ran = ckpt("map", "a.pth", "b.pth", "-o", "c.pth", cwd=tmp_path)
    assert (ran.status, ran.err.splitlines()[-1]) in [(1, "next: ckpt suggest a.pth b.pth"), (1, "next: ckpt diff a.pth b.pth"), (1, LACKING)]
    assert not (tmp_path / "c.pth").exists()


CODES = {
    "scales in a tree": ({"l.0.weight": torch.int8}, "scales.l.0.weight"),
    "Mistral's": ({"l.0.weight": torch.float8_e4m3fn}, "l.0.qscale_weight"),
    "TensorRT-LLM's": ({"l.0.weight": torch.float8_e4m3fn}, "l.0.weights_scaling_factor"),
    "ModelOpt's": ({"l.0.weight": torch.int8}, "l.0.weight_quantizer._amax"),
    "long codes": ({"l.0.weight": torch.int64}, "l.0.weight_scale"),
}


@pytest.mark.parametrize("name", CODES)
def test_codes_are_never_cast_bare_unasked(tmp_path, name):
    types, scale = CODES[name]
    tensors = {key: torch.arange(-8, 8).reshape(4, 4).to(dtype) for key, dtype in types.items()}
    torch.save({**tensors, scale: torch.full((1,), 0.01)}, tmp_path / "a.pth")
    torch.save({key: torch.zeros(4, 4) for key in types}, tmp_path / "b.pth")
    assert "next: ckpt map" not in ckpt("map", "a.pth", "b.pth", "-o", "c.pth", cwd=tmp_path).err
    part = ckpt("map", "a.pth", "b.pth", "--partial", "--dtype", "target", "-o", "c.pth", cwd=tmp_path)
    assert part.status == 1
    assert f"codes with a scale, `{scale}`; a cast would ignore the scale" in part.err
    named = ckpt("map", "a.pth", "b.pth", "--drop", scale, "--dtype", "target", "-o", "c.pth", cwd=tmp_path)
    assert named.status == 0


@pytest.mark.parametrize("dtypes", [(torch.complex64, torch.float32), (torch.float32, torch.int64), (torch.int8, torch.float32)])
def test_a_cast_to_another_kind_of_numbers_is_not_proposed(tmp_path, dtypes):
    for name, dtype in zip("ab", dtypes, strict=True):
        torch.save({"a.w": torch.ones(4, 4), "b.w": torch.ones(4, 4).to(dtype)}, tmp_path / f"{name}.pth")
    ran = ckpt("map", "a.pth", "b.pth", "-o", "c.pth", cwd=tmp_path)
    assert (ran.status, "--dtype target -o" in ran.err) == (1, False)


REACHED = {
    "a decoder of two towers": (
        {f"{side}.{key}": s for side in ("encoder", "decoder") for key, s in body().items()} | linear("decoder.cross", 16, 16)
        | {"shared.weight": (96, 16)},
        body() | linear("cross", 16, 16), "--drop 'encoder.**' --drop shared.weight",
    ),
    "a pretraining decoder": (
        body() | {"mask_token": (1, 1, 16), "decoder_pos_embed": (1, 9, 8)} | linear("decoder_embed", 8, 16) | norm("decoder_norm", 8), body(),
        "--drop mask_token --drop decoder_pos_embed --drop 'decoder_embed.*' --drop 'decoder_norm.*'",
    ),
    "a mark of a version": (body() | {"enc.version": (1,)}, body(), "--drop enc.version"),
    "causal masks": (body() | {f"enc.{i}.attn.bias": (1, 1, 8, 8) for i in range(2)}, body(), "--drop 'enc.{0..1}.attn.bias'"),
    "a fresh LoRA": (body(), body() | {"enc.0.fc1.lora_A.w": (4, 16), "enc.0.fc1.lora_B.w": (32, 4)}, "--keep 'enc.0.fc1.{lora_A,lora_B}.w'"),
    "names in quotation marks": ({"'a'.w": (3, 2), "b.w": (3, 3), "old.w": (2, 9)}, {"'a'.w": (3, 2), "b.w": (3, 3)}, "--drop old.w"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REACHED)
def test_what_only_has_more_than_is_wanted_is_a_command_away(tmp_path, kind):
    source, target, options = REACHED[kind]
    save(tmp_path / "a.pth", source, 1)
    save(tmp_path / "b.pth", target, 2)
    ran = ckpt("map", "a.pth", "b.pth", "-o", "c.pth", cwd=tmp_path)
    assert (ran.status, ran.err.splitlines()[-1]) == (1, f"next: ckpt map a.pth b.pth {options} -o c.pth")


def test_a_path_that_begins_with_a_dash_is_written_so_that_it_is_none_of_the_options(tmp_path):
    save(tmp_path / "-a.pth", body() | {"enc.version": (1,)}, 1)
    save(tmp_path / "b.pth", body(), 2)
    ran = ckpt("map", "-o", "c.pth", "--checksum", "-j", "1", "--", "-a.pth", "b.pth", cwd=tmp_path)
    assert ran.err.splitlines()[-1] == "next: ckpt map ./-a.pth b.pth --drop enc.version -o c.pth --checksum --jobs 1"


def test_what_a_terminal_cant_show_is_a_code_in_a_command(tmp_path):
    save(tmp_path / "a.pth", body() | {"old\x1b.w": (3, 4)}, 1)
    save(tmp_path / "b.pth", body(), 2)
    ran = ckpt("map", "a.pth", "b.pth", "-o", "c.pth", cwd=tmp_path)
    command = ran.err.splitlines()[-1].removeprefix("next: ckpt ")
    assert command == r"map a.pth b.pth --drop 'old\x1b.w' -o c.pth"
    assert ckpt(*shlex.split(command), cwd=tmp_path).status == 0


def test_a_draft_of_which_nothing_is_known_drops_and_keeps_nothing(tmp_path):
    save(tmp_path / "a.pth", {f"{side}.{key}": s for side in ("student", "teacher") for key, s in body().items()}, 1)
    save(tmp_path / "b.pth", body(), 2)
    assert ckpt("suggest", "a.pth", "b.pth", "-o", "r.yaml", cwd=tmp_path).status == 1
    assert ckpt("map", "a.pth", "b.pth", "--rules", "r.yaml", "-o", "c.pth", cwd=tmp_path).status == 1


def test_next_without_an_output_names_one(tmp_path):
    save(tmp_path / "a.pth", body() | {"enc.version": (1,)}, 1)
    save(tmp_path / "b.pth", body(), 2)
    ran = ckpt("map", "a.pth", "b.pth", cwd=tmp_path)
    assert ran.err.splitlines()[-1] == "next: ckpt map a.pth b.pth --drop enc.version -o mapped.pth"


def test_a_part_of_a_model_is_never_completed_with_fresh_values(tmp_path):
    save(tmp_path / "model-00001-of-00002.pth", WEIGHTS, 1)
    save(tmp_path / "b.pth", WEIGHTS | linear("head", 3, 16), 2)
    ran = ckpt("map", "model-00001-of-00002.pth", "b.pth", "-o", "c.pth", cwd=tmp_path)
    assert (ran.status, ran.err.splitlines()[-1]) == (1, LACKING)


def test_a_head_over_words_is_hinted_as_words_everywhere(tmp_path):
    for name, rows in (("a", 96), ("b", 104)):
        save(tmp_path / f"{name}.pth", body() | {"tok_embeddings.weight": (rows, 16), "output.weight": (rows, 16)}, rows)
    for verb in ("map", "suggest"):
        ran = ckpt(verb, "a.pth", "b.pth", *(("-o", "c.pth") if verb == "map" else ()), cwd=tmp_path)
        assert "another number of classes" not in ran.out + ran.err
        assert "another number of words" in ran.out + ran.err
