"""Lens distortion of tensors: the formulas of :mod:`d2a2_core.geometry.distortion`, in float32 and on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from d2a2_core.geometry.camera import Camera


def distort_tensors(x: Tensor, y: Tensor, r2: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Distorted normalised coordinates in ``camera`` of undistorted ones; terms whose coefficients are zero cost nothing.

    Args:
        x, y: x / z and y / z, of one shape; may be overwritten.
        r2: x * x + y * y.
        camera: Its distortion is applied.
    """
    if not camera.distorted:
        return x, y
    k = [*camera.distortion[:8], *[0.0] * (8 - len(camera.distortion))]
    if camera.model == "equidistant":
        r = r2.sqrt().clamp_(min=1e-6)
        theta = r.atan()
        scale = _polynomial(theta * theta, k[:4]).mul_(theta).div_(r)
        return x * scale, y * scale
    radial = _polynomial(r2, [k[0], k[1], k[4]])
    if any(k[5:8]):
        radial.div_(_polynomial(r2, k[5:8]))
    if not (k[2] or k[3]):
        return x * radial, y * radial
    if camera.model == "modified_brown_conrady":
        x, y, radial = x.mul_(radial), y.mul_(radial), torch.ones_like(radial)
    xy = x * y
    return (
        (x * radial).add_(xy, alpha=2 * k[2]).add_(torch.addcmul(r2, x, x, value=2), alpha=k[3]),
        (y * radial).add_(torch.addcmul(r2, y, y, value=2), alpha=k[2]).add_(xy, alpha=2 * k[3]),
    )


def _polynomial(x: Tensor, k: list[float]) -> Tensor:
    """1 + k0 x + k1 x^2 + ..., by Horner's rule."""
    total = torch.full_like(x, k[-1])
    for coefficient in reversed(k[:-1]):
        total.mul_(x).add_(coefficient)
    return total.mul_(x).add_(1.0)
