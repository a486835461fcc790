"""The paper's auxiliary task: at a chunk's start, predict the synthetic gradient of its end."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from synthgrad.interface.message import GradientModel, predict
from synthgrad.interface.numbers import root_mean_square
from synthgrad.recurrent.recurrent import RecurrentInterface


class AuxiliaryTask(nn.Module):
    r"""A second model A beside M: A(h₀) predicts δ̂_T = M(h_T), M's prediction at the chunk's end.

    Its error is one more loss of the chunk. So its gradient reaches h₀, becomes part of M's target there, and
    trains the module in the *previous* chunk: consecutive chunks are coupled, and the state learns to hold what
    will matter in T steps. At h₀ that gradient is ``weight`` times as large as the error itself, in δ's own
    units: it scales with the task's loss, and fades as A learns. (The paper does not say how it weighed the two.)

    Args:
        model: A, called as ``A(h, context)``, like a gradient model.
        weight: size of the gradient of A's error for the module; 0 trains A only.

    Example:
        >>> loss = criterion(out, y) + future.send(state) + auxiliary(future)

    References:
        Jaderberg et al. 2017, section 3.2 (DNI + Aux).
    """

    def __init__(self, model: GradientModel, weight: float = 1.0):
        super().__init__()
        self.model, self.weight = model, weight

    def forward(self, future: RecurrentInterface) -> Float[Tensor, ""]:
        """The loss term of the chunk that ``future`` has just sent: ‖A(h₀) - M(h_T)‖², averaged over the batch.

        It is zero if the chunk had no first message, or nothing was sent yet.

        Raises:
            ValueError: if several streams are under way, and another one was sent last.
        """
        start, answer = future.start, future.answer
        if start is not None and answer is not None and not future.paired:
            raise ValueError(
                "the chunk sent last is not the one received last; call auxiliary() for one stream alone"
            )
        if start is None or answer is None or not self.training:
            return future.agreement.errors.new_zeros(())
        unit = future.unit or 1.0
        seen = start.restarted.view_as(start.restarted)
        error = predict(self.model, seen, start.context) - answer / unit
        size = self.weight * root_mean_square(error.detach()) * future.unit

        def resize(gradient: Tensor) -> Tensor:
            return gradient * (size / root_mean_square(gradient).clamp_min(1e-30)).nan_to_num(0.0, 0.0, 0.0)

        seen.register_hook(resize)
        return error.square().sum() / max(len(error), 1)
