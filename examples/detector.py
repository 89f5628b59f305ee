"""The detector of the story: a ResNet-50 backbone under names of its own, with three output blocks that are new."""

from torch import Tensor, nn


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions and a shortcut; a stage's first block changes the shape, so its shortcut has a convolution."""

    def __init__(self, channels: int, planes: int, stride: int, changes_shape: bool) -> None:
        super().__init__()
        self.bottleneck = nn.Sequential(
            nn.Conv2d(channels, planes, 1, bias=False), nn.BatchNorm2d(planes), nn.ReLU(inplace=True),
            nn.Conv2d(planes, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes), nn.ReLU(inplace=True),
            nn.Conv2d(planes, planes * 4, 1, bias=False), nn.BatchNorm2d(planes * 4),
        )  # fmt: skip
        self.shortcut = nn.Sequential()
        if changes_shape:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, planes * 4, 1, stride, bias=False), nn.BatchNorm2d(planes * 4))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bottleneck(x) + self.shortcut(x))


class OutputBlock(nn.Module):
    """A dilated block that keeps the resolution."""

    def __init__(self, channels: int, planes: int = 256) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential()
        if channels != planes:
            self.downsample = nn.Sequential(nn.Conv2d(channels, planes, 1, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class Detector(nn.Module):
    """384 keys: `layer0` to `layer4` are ResNet-50's 318 under other names, `layer5`, `conv_end` and `bn_end` are the head."""

    def __init__(self, blocks: tuple[int, ...] = (3, 4, 6, 3), outputs: int = 30) -> None:
        super().__init__()
        self.layer0 = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        channels = 64
        for stage, count in enumerate(blocks, start=1):
            planes = 64 * 2 ** (stage - 1)
            layers = [Bottleneck(channels, planes, 1 if stage == 1 else 2, changes_shape=True)]
            channels = planes * 4
            layers += [Bottleneck(channels, planes, 1, changes_shape=False) for _ in range(count - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.layer5 = nn.Sequential(OutputBlock(channels), OutputBlock(256), OutputBlock(256))
        self.conv_end = nn.Conv2d(256, outputs, 3, padding=1, bias=False)
        self.bn_end = nn.BatchNorm2d(outputs)

    def features(self, x: Tensor) -> Tensor:
        for layer in (self.layer0, self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Images N×3×H×W to N×H/32×W/32×outputs, each value between 0 and 1."""
        return self.bn_end(self.conv_end(self.layer5(self.features(x)))).sigmoid().permute(0, 2, 3, 1)
