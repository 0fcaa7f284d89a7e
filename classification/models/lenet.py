"""LeNet-5 in the readings that 'LeNet-5' (Sec. 4.1.2) admits; docs/mnist-readings.md compares them.

Images (B, 1, 28, 28) -> logits (B, C).
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LenetArchitecture = Literal["lenet5", "lenet5-1998", "lenet-ren"]
LENET_ARCHITECTURES: tuple[LenetArchitecture, ...] = get_args(LenetArchitecture)
Initialisation = Literal["xavier-uniform", "torch-default", "truncated-normal"]


class HalvingMaxPool(nn.MaxPool2d):
    """2x2 max pooling; without gradients as two maxima of slices, ten times faster on a CPU.

    torch's kernel also looks for the position of each maximum, which only a backward pass needs.
    The values are the same to the bit. Shapes (B, C, H, W) -> (B, C, H // 2, W // 2).
    """

    def __init__(self) -> None:
        """Window 2, stride 2."""
        super().__init__(kernel_size=2)

    def forward(self, images: Tensor) -> Tensor:
        """The largest value of each 2x2 window; an odd last row or column is left out."""
        if torch.is_grad_enabled():
            return F.max_pool2d(images, self.kernel_size)
        height, width = (size - size % 2 for size in images.shape[-2:])
        rows = torch.maximum(images[..., :height:2, :], images[..., 1:height:2, :])
        return torch.maximum(rows[..., :width:2], rows[..., 1:width:2])


def _lenet5(num_classes: int) -> nn.Sequential:
    """6-16-120-84, max pooling, ReLU: what 'LeNet-5' means in most PyTorch code.

    ReLU comes after the pooling, where it works on a quarter of the values: max and ReLU commute.
    """
    return nn.Sequential(
        nn.Conv2d(1, 6, kernel_size=5, padding=2),
        HalvingMaxPool(),
        nn.ReLU(),
        nn.Conv2d(6, 16, kernel_size=5),
        HalvingMaxPool(),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, num_classes),
    )


def _lenet5_1998(num_classes: int) -> nn.Sequential:
    """The same sizes with tanh and average pooling, nearer to LeCun et al. 1998."""
    return nn.Sequential(
        nn.Conv2d(1, 6, kernel_size=5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, kernel_size=5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.Tanh(),
        nn.Linear(120, 84),
        nn.Tanh(),
        nn.Linear(84, num_classes),
    )


def _lenet_ren(num_classes: int) -> nn.Sequential:
    """The 'LeNet' of Ren et al. 2018's public code, to which the paper refers for its set-up.

    Three 5x5 convolutions (16, 32, 64), each with overlapping 3x3 max pooling of stride 2, and 100
    hidden units. Theirs ends in one sigmoid unit; two softmax units are the same family of
    functions.
    """
    layers: list[nn.Module] = []
    for inputs, outputs, pads in ((1, 16, (0, 1)), (16, 32, (0, 1)), (32, 64, (1, 1))):
        # 'SAME' pooling of stride 2 pads 28 and 14 by (0, 1) and 7 by (1, 1).
        layers += [
            nn.Conv2d(inputs, outputs, kernel_size=5, padding=2),
            nn.ConstantPad2d((*pads, *pads), -torch.inf),
            nn.MaxPool2d(3, stride=2),
            nn.ReLU(),
        ]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(64 * 4 * 4, 100), nn.ReLU(), nn.Linear(100, num_classes)
    )


_MAKERS = {"lenet5": _lenet5, "lenet5-1998": _lenet5_1998, "lenet-ren": _lenet_ren}


def _torch_bound(module: nn.Conv2d | nn.Linear) -> float:
    """1 / sqrt(fan_in)."""
    return float(module.weight[0].numel() ** -0.5)


def _fill_weight(
    module: nn.Conv2d | nn.Linear, how: Initialisation, generator: torch.Generator
) -> None:
    bound = _torch_bound(module)
    match how:
        case "xavier-uniform":
            nn.init.xavier_uniform_(module.weight, generator=generator)
        case "truncated-normal":
            nn.init.trunc_normal_(module.weight, std=0.1, a=-0.2, b=0.2, generator=generator)
        case "torch-default":
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)


def _fill_bias(
    module: nn.Conv2d | nn.Linear, how: Initialisation, generator: torch.Generator
) -> None:
    assert module.bias is not None
    if how == "torch-default":
        bound = _torch_bound(module)
        nn.init.uniform_(module.bias, -bound, bound, generator=generator)
    else:
        nn.init.zeros_(module.bias)


def initialise(model: nn.Module, how: Initialisation, generator: torch.Generator) -> None:
    """Fill the weights of convolutions and linear layers from ``generator`` alone.

    Args:
        model: changed in place.
        how: ``xavier-uniform`` (Glorot and Bengio 2010) and ``truncated-normal`` (standard
            deviation 0.1, cut at 2 of them, as Ren et al. 2018's code) with zero biases;
            ``torch-default``, uniform in +-1/sqrt(fan_in) for weights and biases.
        generator: the model's own generator.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            _fill_weight(module, how, generator)
            if module.bias is not None:
                _fill_bias(module, how, generator)


def make_lenet(
    architecture: LenetArchitecture,
    num_classes: int,
    how: Initialisation,
    generator: torch.Generator,
) -> nn.Module:
    """A LeNet, initialised from ``generator``: images (B, 1, 28, 28) -> logits (B, C)."""
    model = _MAKERS[architecture](num_classes)
    initialise(model, how, generator)
    return model
