"""Draws the pictures of docs/report-page.md: pages of the story in headless Chromium, as PNG.

    python examples/resnet50_to_detector.py && python docs/pictures/report_page.py resnet50_to_detector

Needs Debian's `chromium` and `chromium-driver`, and `selenium` and Pillow, which the tests install.
"""

import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.report.page.browser import chromium  # noqa: E402

WIDTH, HEIGHT = 1240, 860
COLOURS = 200

PICTURES = {
    "page_plan": ("plan resnet50.pth detector.pth --rules resnet50_to_yolo.yaml", "light"),
    "page_diff": ("diff resnet50.pth tuned.pth --values", "dark"),
    "page_show": ("show resnet50.pth", "light"),
}
"""The command of each, and the colour scheme."""
SCRIPTS = {
    "page_plan": "",
    "page_diff": "document.getElementById('layers').scrollIntoView()",
    "page_show": "document.getElementById('sizes').scrollIntoView()",
}


def tune(story: Path) -> None:
    """tuned.pth: the ResNet-50 with values that were moved, further towards the output."""
    random = torch.Generator().manual_seed(0)
    state = torch.load(story / "resnet50.pth", weights_only=True)
    for depth, (key, value) in enumerate(state.items()):
        if value.is_floating_point() and depth > 40:
            noise = torch.randn(value.shape, generator=random) * value.std().nan_to_num(0.1)
            state[key] = value + noise * (depth / len(state)) ** 3
    torch.save(state, story / "tuned.pth")


def draw(name: str, story: Path) -> bytes:
    """The picture of one command's page, in few colours."""
    command, scheme = PICTURES[name]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        arguments = [*command.split(), "--quiet", "--html", str(page)]
        subprocess.run([sys.executable, "-m", "ckpt_tool", *arguments], cwd=story, check=False)
        with chromium(Path(folder) / "profile") as driver:
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            driver.get(page.as_uri())
            driver.execute_script(SCRIPTS[name])
            if name == "page_plan":
                modules = driver.find_elements("css selector", ".row.module")
                next(each for each in modules if "layer2" in each.text).click()
            driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
            picture = Image.open(BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    made = BytesIO()
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(made, "PNG", optimize=True)
    return made.getvalue()


if __name__ == "__main__":
    tune(Path(sys.argv[1]))
    for each in PICTURES:
        (HERE / f"{each}.png").write_bytes(draw(each, Path(sys.argv[1])))
