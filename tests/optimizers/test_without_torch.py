"""Plain values in, plain values out: where slots come from is known without torch, as the engine needs it."""

import subprocess
import sys

SCRIPT = """
import sys
from ckpt_tool.mapping.plan import Origin, Plan, Step
from ckpt_tool.ops import TensorForm, parse_ops
from ckpt_tool.optimizers import move_state, read_optimizer
from ckpt_tool.tensors import Catalog, DType, TensorInfo

def catalog(**shapes):
    return Catalog([TensorInfo(key, DType.F32, shape) for key, shape in shapes.items()])

steps = (
    Step(("q", "k"), ("qk",), parse_ops([{"concat": 0}]), Origin("name")),
    Step(("w",), ("a", "b"), parse_ops([{"split": {"dim": 1, "sizes": [2, 4]}}, "transpose"]), Origin("name")),
)
plan = Plan(steps, (), (), catalog(q=(2, 3), k=(4, 3), w=(5, 6)), catalog(b=(4, 5), qk=(6, 3), a=(2, 5)))
shapes = [(2, 3), (4, 3), (5, 6)]
state = {i: {"step": (), "exp_avg": shape, "exp_avg_sq": shape} for i, shape in enumerate(shapes)}
groups = [{"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0, "amsgrad": False, "params": [0, 1, 2]}]
form_of = lambda value: TensorForm(DType.F32, value) if isinstance(value, tuple) else None
moved = move_state(plan, read_optimizer({"state": state, "param_groups": groups}, form_of, "run.pth"))
for step in moved.steps:
    print(step.inputs, step.outputs, [op.name for op in step.ops])
print(moved.groups[0].names, moved)
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""

EXPECTED = """\
(('state', 2, 'step'),) (('state', 0, 'step'),) []
(('state', 2, 'step'),) (('state', 2, 'step'),) []
(('state', 2, 'exp_avg'),) (('state', 2, 'exp_avg'), ('state', 0, 'exp_avg')) ['split', 'transpose']
(('state', 2, 'exp_avg_sq'),) (('state', 2, 'exp_avg_sq'), ('state', 0, 'exp_avg_sq')) ['split', 'transpose']
(('state', 0, 'step'), ('state', 1, 'step')) (('state', 1, 'step'),) ['same']
(('state', 0, 'exp_avg'), ('state', 1, 'exp_avg')) (('state', 1, 'exp_avg'),) ['concat']
(('state', 0, 'exp_avg_sq'), ('state', 1, 'exp_avg_sq')) (('state', 1, 'exp_avg_sq'),) ['concat']
('b', 'qk', 'a') 3 states of the optimizer moved, 0 parameters without one, 0 states dropped
"""


def test_where_slots_come_from_is_known_without_torch():
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    assert sorted(ran.stdout.splitlines()) == sorted(EXPECTED.splitlines())
