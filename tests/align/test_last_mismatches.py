"""The one table of positions and the one head that are left of two networks, whatever they are called (`ckpt_tool.align.completing.last_mismatches`)."""

import torch
from running import ckpt


def vit(positions, patches, classes, names):
    table, head, patch = names
    state = {f"{patch}.weight": torch.randn(8, 3, 4, 4), f"{patch}.bias": torch.randn(8), table: torch.randn(1, positions, 8)}
    for at in range(2):
        state |= {f"blocks.{at}.fc.weight": torch.randn(16, 8), f"blocks.{at}.fc.bias": torch.randn(16), f"blocks.{at}.out.weight": torch.randn(8, 16)}
    return state | {f"{head}.weight": torch.randn(classes, 8), f"{head}.bias": torch.randn(classes)}


def test_they_stand_ready_in_the_draft_and_make_a_sound_file(tmp_path):
    torch.manual_seed(0)
    torch.save(vit(17, 4, 10, ("pos_embed", "head", "patch_embed.proj")), tmp_path / "a.pth")
    torch.save(vit(37, 4, 3, ("positions", "fc_out", "patch_embed.proj")), tmp_path / "b.pth")
    draft = ckpt("suggest", "a.pth", "b.pth", cwd=tmp_path).out
    assert 'positions: resize_grid' in draft
    assert "pos_embed -> positions" in draft
    assert "head" in draft
    assert "fc_out" in draft


def test_two_tables_are_not_guessed(tmp_path):
    torch.manual_seed(0)
    a = vit(17, 4, 10, ("pos_embed", "head", "patch_embed.proj")) | {"pos_embed_2": torch.randn(1, 17, 8)}
    torch.save(a, tmp_path / "a.pth")
    torch.save(vit(37, 4, 10, ("positions", "head", "patch_embed.proj")), tmp_path / "b.pth")
    assert 'positions: resize_grid' not in ckpt("suggest", "a.pth", "b.pth", cwd=tmp_path).out
