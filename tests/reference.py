"""The paper's equations, slowly, in numpy: the twin that the library is tested against. It imports none of it.

Index letters: b example, i input of a layer, o its output, k layer. Layer k: h_k = tanh(W_k h_{k-1} + b_k).
Loss: half the squared error of the last output, averaged over the batch. Gradient models: M(h) = A h + c.
"""

from __future__ import annotations

import math

import numpy as np

Affine = tuple[np.ndarray, np.ndarray]
"""A matrix and a bias."""


def forward(layers: list[Affine], x: np.ndarray) -> list[np.ndarray]:
    """h_0 = x, h_1, …, h_n."""
    h = [x]
    for W, b in layers:
        h.append(np.tanh(np.einsum("oi,bi->bo", W, h[-1]) + b))
    return h


def loss_gradient(out: np.ndarray, target: np.ndarray) -> np.ndarray:
    """∂/∂out of ½‖out - target‖², averaged over the batch."""
    return (out - target) / len(out)


def jacobian(layer: Affine, out: np.ndarray) -> np.ndarray:
    """∂h_k/∂h_{k-1} of each example, written out: diag(1 - h_k²) W_k."""
    return np.einsum("bo,oi->boi", 1 - out**2, layer[0])


def layer_gradient(below: np.ndarray, out: np.ndarray, g: np.ndarray) -> Affine:
    """∂/∂W_k and ∂/∂b_k, where g is the gradient at h_k."""
    return np.einsum("bo,bi->oi", g * (1 - out**2), below), np.sum(g * (1 - out**2), axis=0)


def predict(model: Affine, h: np.ndarray) -> np.ndarray:
    """M(h)."""
    return np.einsum("oi,bi->bo", model[0], h) + model[1]


def regression_gradient(model: Affine, h: np.ndarray, target: np.ndarray) -> Affine:
    """∂/∂A and ∂/∂c of ‖M(h) - target‖², averaged over the batch."""
    error = predict(model, h) - target
    return 2 * np.einsum("bo,bi->oi", error, h) / len(h), 2 * np.sum(error, axis=0) / len(h)


def bp_lambda(
    layers: list[Affine],
    models: list[Affine],
    x: np.ndarray,
    target: np.ndarray,
    lams: list[float],
    scale: float = 1.0,
    unit: float = 1.0,
) -> tuple[list[Affine], list[Affine]]:
    """Supplement A, from the top: g_k = λ_k J^T g_{k+1} + (1-λ_k)·scale·unit·M_k(h_k); M_k's target is J^T g_{k+1}.

    Returns:
        The gradients of the layers and of the models; ``models[k]`` and ``lams[k]`` are above layer k.
    """
    h = forward(layers, x)
    g = loss_gradient(h[-1], target)
    of_layers, of_models = [layer_gradient(h[-2], h[-1], g)], []
    for k in reversed(range(len(models))):
        delta = np.einsum("boi,bo->bi", jacobian(layers[k + 1], h[k + 2]), g)
        of_models.insert(0, regression_gradient(models[k], h[k + 1], delta / unit))
        g = lams[k] * delta + (1 - lams[k]) * scale * unit * predict(models[k], h[k + 1])
        of_layers.insert(0, layer_gradient(h[k], h[k + 1], g))
    return of_layers, of_models


def dni(
    layers: list[Affine], models: list[Affine], x: np.ndarray, target: np.ndarray
) -> tuple[list[Affine], list[Affine]]:
    """Fig. 2, from the bottom: a layer is updated as soon as it has run, its predecessor's model right after it."""
    below, of_layers, of_models = x, [], []
    for k, layer in enumerate(layers):
        out = forward([layer], below)[-1]
        g = predict(models[k], out) if k < len(models) else loss_gradient(out, target)
        of_layers.append(layer_gradient(below, out, g))
        if k > 0:  # δ_{k-1} = δ̂_k ∂h_k/∂h_{k-1}: a bootstrap
            delta = np.einsum("boi,bo->bi", jacobian(layer, out), g)
            of_models.append(regression_gradient(models[k - 1], below, delta))
        below = out
    return of_layers, of_models


def followed_unit(gradients: list[np.ndarray], factor: float, decay: float) -> float:
    """``factor`` root mean squares of the gradients so far, older ones weighing less; zeros do not count."""
    squares = [np.mean(delta**2) for delta in gradients if np.any(delta != 0)]
    weights = [decay ** (len(squares) - 1 - n) for n in range(len(squares))]
    return factor * float(np.sqrt(np.dot(weights, squares) / np.sum(weights)))


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """A row for each label, 1 at its place."""
    return np.array([[float(label == c) for c in range(classes)] for label in labels]).reshape(-1, classes)


def mlp(h: np.ndarray, c: np.ndarray | None, layers: list[Affine]) -> np.ndarray:
    """A perceptron of h and c concatenated."""
    x = h.reshape(len(h), math.prod(h.shape[1:]))
    x = x if c is None else np.concatenate([x, c], axis=1)
    for n, (W, b) in enumerate(layers):
        x = (np.maximum(x, 0) if n else x) @ W.T + b
    return x


def conv(h: np.ndarray, c: np.ndarray | None, layers: list[Affine]) -> np.ndarray:
    """Convolutions pixel by pixel; the context is concatenated as constant channels."""
    x = h
    if c is not None:
        x = np.concatenate([h, np.broadcast_to(c[:, :, None, None], (*c.shape, *h.shape[2:]))], axis=1)
    for n, (W, b) in enumerate(layers):
        x, pad = (np.maximum(x, 0) if n else x), W.shape[-1] // 2
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        out = np.empty((len(x), len(W), *x.shape[2:]))
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                patch = padded[:, :, row : row + W.shape[2], column : column + W.shape[3]]
                out[:, :, row, column] = np.einsum("bihw,oihw->bo", patch, W) + b
        x = out
    return x
