"""Meta-Weight-Net (Shu et al. 2019): a small network learns which loss deserves which weight.

Shapes: B training samples, V samples of the balanced (difficulty) set.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.optim.sgd import sgd

from classification.methods.meta_gradients import (
    Parameters,
    balanced_gradient,
    detached_parameters,
    loss_slopes,
    losses_at,
    sum_to_one,
)
from common.streams import Streams
from common.training.methods.base import LogitMethod
from common.training.settings import MethodSettings, Setting

VirtualStep = Literal["normalised", "raw"]
VIRTUAL_STEPS: tuple[VirtualStep, ...] = get_args(VirtualStep)
Weigh = Callable[[Tensor], Tensor]
"""V at some Theta: losses (B,) -> weights (B,)."""


@dataclass(frozen=True)
class MetaWeightNetSettings(MethodSettings):
    """Of Meta-Weight-Net."""

    mwn_batch_size: Annotated[
        int,
        Setting("meta-weight-net: images of the difficulty set in each meta step.", at_least=1),
    ] = 100
    mwn_learning_rate: Annotated[
        float, Setting("meta-weight-net: of the weighting network's SGD.", above=0)
    ] = 1e-5
    mwn_virtual_step: Annotated[
        VirtualStep,
        Setting(
            "meta-weight-net: weights in the virtual step that sum to 1 and depend on the "
            "classifier, as the code behind the row of Table 1, or weights as they are that count "
            "as data (raw), as Shu et al. print it.",
            earlier="raw",
        ),
    ] = "normalised"


class WeightingNetwork(nn.Module):
    """V(l; Theta): loss -> 100 ReLU units -> weight in (0, 1). Shapes (B,) -> (B,)."""

    def __init__(self, generator: torch.Generator, hidden: int = 100) -> None:
        """Draw Theta uniformly in +-1/sqrt(fan_in), torch's default, as the authors' code.

        Args:
            generator: on the CPU; nothing is drawn from torch's global one.
            hidden: number of hidden units.
        """
        super().__init__()
        # skip_init: the constructor would draw from the global generator.
        self.hidden = nn.utils.skip_init(nn.Linear, 1, hidden)
        self.output = nn.utils.skip_init(nn.Linear, hidden, 1)
        for layer in (self.hidden, self.output):
            bound = layer.in_features**-0.5
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, losses: Tensor) -> Tensor:
        """Weights (B,) of losses (B,)."""
        features = self.hidden(losses[:, None]).relu()
        return torch.sigmoid(self.output(features).squeeze(1))


def raw_factors(weigh: Weigh, losses: Tensor) -> Tensor:
    """c_i of :meth:`MetaReweighter.weights`, (B,): V(l_i), each loss being data."""
    return weigh(losses)


def normalised_factors(weigh: Weigh, losses: Tensor) -> Tensor:
    """c_i of :meth:`MetaReweighter.weights`, (B,): B d/dl_i of sum_j l_j V(l_j) / sum_k V(l_k).

    They sum to B up to the part that comes from V's argument, and can be negative.
    """

    def weighted(at: Tensor) -> Tensor:
        return (sum_to_one(weigh(at)) * at).sum()

    slopes: Tensor = grad(weighted)(losses)
    return len(losses) * slopes


class MetaReweighter(nn.Module):
    """Meta-Weight-Net with its own SGD (Nesterov): gives sample weights and learns from each batch.

    All state is in the module and is updated in place: it moves with ``.to(device)``, is saved with
    ``state_dict()`` and restored bit for bit, and a captured CUDA graph sees restored values.
    """

    def __init__(
        self,
        generator: torch.Generator,
        *,
        hidden: int = 100,
        learning_rate: float = 1e-5,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        virtual_step: VirtualStep = "normalised",
    ) -> None:
        """Start with no momentum.

        Args:
            generator: draws the initial Theta, on the CPU.
            hidden: units of :class:`WeightingNetwork`.
            learning_rate: eta, of Theta's own SGD; the same throughout.
            momentum: Nesterov's, > 0.
            weight_decay: of Theta.
            virtual_step: which loss the virtual step descends, see :meth:`weights`.

        Raises:
            ValueError: for an unknown virtual step.
        """
        super().__init__()
        if virtual_step not in VIRTUAL_STEPS:
            raise ValueError(
                f"virtual_step must be one of {', '.join(VIRTUAL_STEPS)}, not {virtual_step!r}"
            )
        self.net = WeightingNetwork(generator, hidden)
        # Zeros from the start and not torch.optim.SGD, which makes its buffers in the first step:
        # the first step is then like any other for a CUDA graph. 0.9 * 0 + g = g.
        self.momentum_buffers = nn.ParameterList(
            nn.Parameter(torch.zeros_like(p), requires_grad=False) for p in self.net.parameters()
        )
        self.learning_rate, self.momentum = learning_rate, momentum
        self.weight_decay = weight_decay
        self._factors = normalised_factors if virtual_step == "normalised" else raw_factors

    def weights(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        balanced: tuple[Tensor, Tensor],
        learning_rate: float | Tensor,
    ) -> Tensor:
        """One step of Theta on the balanced batch, then the weights of the training batch.

        Shu et al., with l_i the loss at theta:

        virtual step: theta'(Theta) = theta - alpha grad_theta F(l(theta); Theta),
        Theta <- Theta - eta grad_Theta L_balanced(theta'(Theta)),
        w_i = V(l_i; Theta) / sum_j V(l_j; Theta)  with the new Theta.

        ``normalised``, as the code behind their CIFAR numbers: F = sum_i l_i V(l_i) / sum_j V(l_j),
        differentiated through V's argument too. ``raw``, as their paper prints it:
        F = 1/B sum_i V(l_i) l_i, V's argument being data, through which no gradient flows.

        grad_theta F = 1/B sum_i c_i grad l_i with factors c(l; Theta) = B dF/dl, so that theta' is
        linear in c and, exactly,
        grad_Theta L = -alpha/B sum_i <grad L_balanced(theta'), grad l_i(theta)> grad_Theta c_i.
        The inner products of all samples are one forward-mode pass; no backward pass of the model
        is differentiated. BatchNorm, in training mode, uses the statistics of the batch in every
        pass; the running ones are not touched. Under ``torch.autocast`` the passes through the
        model run in its precision, V does not. Nothing waits for the device.

        Args:
            model: parameters, their gradients and buffers are left as they are; the caller makes
                the step with the weighted loss sum_i w_i l_i.
            images: shape (B, ...).
            labels: shape (B,).
            balanced: images (V, ...) and labels (V,).
            learning_rate: alpha, that of the model's next step; a 0-d tensor on the model's device
                is read anew each time a captured CUDA graph runs.

        Returns:
            w, shape (B,), >= 0, sum 1; all 0 where every V is 0. No gradient flows through it.
        """
        theta = detached_parameters(model)

        def weighted_loss(at: Parameters) -> tuple[Tensor, Tensor]:
            losses = losses_at(model, at, images, labels)
            data = losses.detach()
            return (self._factors(self._of, data) * losses).mean(), data

        gradient, losses = grad(weighted_loss, has_aux=True)(theta)
        virtual = {name: p - learning_rate * gradient[name] for name, p in theta.items()}
        direction = balanced_gradient(model, virtual, balanced)
        slopes = loss_slopes(model, theta, direction, images, labels)
        self._learn(losses, -learning_rate / losses.numel() * slopes)
        return sum_to_one(self._of(losses))

    def _of(self, losses: Tensor) -> Tensor:
        """V of losses (B,) at the present Theta, to which no gradient flows."""
        return self._at(detached_parameters(self.net), losses)

    def _at(self, parameters: Parameters, losses: Tensor) -> Tensor:
        """V of losses (B,) at any Theta, in V's own precision whatever surrounds the call."""
        with torch.autocast(losses.device.type, enabled=False):
            data = losses.to(self.net.output.weight.dtype)
            weights: Tensor = functional_call(self.net, parameters, (data,))
        return weights

    def _learn(self, losses: Tensor, slopes: Tensor) -> None:
        """One step of Theta's SGD; losses (B,), slopes (B,): dL_balanced / dc_i."""

        def linearised(at: Parameters) -> Tensor:
            """Has the gradient of L_balanced(theta'(Theta)): the slopes are constants."""
            factors = self._factors(lambda values: self._at(at, values), losses)
            return (slopes.to(factors.dtype) * factors).sum()

        parameters = detached_parameters(self.net)
        with torch.autocast(losses.device.type, enabled=False):
            gradient = grad(linearised)(parameters)
        # In V's order, which is that of the momentum buffers.
        sgd(
            list(parameters.values()),
            [gradient[name] for name in parameters],
            [buffer.detach() for buffer in self.momentum_buffers],
            fused=True,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            dampening=0.0,
            nesterov=True,
            maximize=False,
        )


class MetaWeightNet(LogitMethod):
    """Cross-entropy, each sample weighted by a network that sees its loss and learns to weigh."""

    Settings = MetaWeightNetSettings
    whole_batch = needs_difficulty = True

    def __init__(self, config: Any, data: Any, streams: Streams, rate: Tensor) -> None:
        """Draw the weighting network; see :class:`LogitMethod`."""
        super().__init__(config, data, streams, rate)
        self.meta = MetaReweighter(
            streams["meta-weight-net"],
            learning_rate=config.mwn_learning_rate,
            virtual_step=config.mwn_virtual_step,
        )

    def draw(self, batch_size: int) -> Tensor:
        """Images of the difficulty set, with replacement, (V,)."""
        number, size = len(self.data.difficulty.labels), self.config.mwn_batch_size
        return torch.randint(number, (size,), generator=self.streams["meta-batches"])

    def sample_weights(
        self, model: nn.Module, images: Tensor, labels: Tensor, draws: Tensor | None
    ) -> Tensor:
        """A step of the weighting network, then its weights; see :class:`MetaReweighter`."""
        balanced = self.data.difficulty.take(draws)
        # Theirs sum to 1 over the batch; 1 on average keeps every reduction comparable.
        return len(labels) * self.meta.weights(model, images, labels, balanced, self.rate)
