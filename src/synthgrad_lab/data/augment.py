"""The usual augmentation of small images: a random crop and, half of the time, the mirror image."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def augment(
    x: Float[Tensor, "batch channels height width"], margin: int = 4
) -> Float[Tensor, "batch channels height width"]:
    """Shift each image at random by up to ``margin`` pixels, over black, and mirror it with probability 1/2."""
    count, _, height, width = x.shape
    padded = F.pad(x, [margin] * 4)
    top, left = torch.randint(0, 2 * margin + 1, (2, count, 1, 1)).to(x.device)
    rows = top + torch.arange(height, device=x.device)[:, None]
    columns = torch.arange(width, device=x.device)[None, :].expand(count, 1, width)
    mirror = torch.rand(count, 1, 1).to(x.device) < 0.5
    columns = left + torch.where(mirror, width - 1 - columns, columns)
    image = torch.arange(count, device=x.device)[:, None, None]
    return padded[image, :, rows, columns].permute(0, 3, 1, 2)
