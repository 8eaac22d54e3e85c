"""Convolutions with bias and ReLU in one kernel, in Triton's language, channels-last; imported on GPUs alone.

A convolution of few groups reads and writes what a dense one does and multiplies less; cuDNN's kernels for it
are slow. Here several groups of it are computed as one dense group whose weights are zero between them
(:func:`merge_groups`), as wide as the matrix units like it. Two 1x1 convolutions in a row are one kernel that
keeps what is between them on the chip.
"""

# Triton reads the kernels' source: it knows no annotations but constexpr's, and loops as they stand.
# mypy: ignore-errors

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _conv(  # noqa: PLR0917 - as Triton compiles it
    x, w, bias, y, pixels, height, width, out_height, out_width,
    C: tl.constexpr, F: tl.constexpr, CG: tl.constexpr, FG: tl.constexpr, KERNEL: tl.constexpr,
    STRIDE: tl.constexpr, PADDING: tl.constexpr, RELU: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    per_group: tl.constexpr = (FG + BN - 1) // BN
    group = tl.program_id(1) // per_group
    out = (tl.program_id(1) % per_group) * BN + tl.arange(0, BN)
    pixel = tl.program_id(0) * BM + tl.arange(0, BM)
    inside = pixel < pixels
    image = pixel // (out_height * out_width)
    row = (pixel // out_width) % out_height * STRIDE - PADDING
    column = pixel % out_width * STRIDE - PADDING
    k = tl.arange(0, BK)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    chunks: tl.constexpr = (CG + BK - 1) // BK
    # One loop, not two: only the innermost one loads ahead.
    for step in range(KERNEL * KERNEL * chunks):
        tap = step // chunks
        first = step % chunks * BK
        r = row + tap // KERNEL
        c = column + tap % KERNEL
        there = inside & (r >= 0) & (r < height) & (c >= 0) & (c < width)
        at = ((image * height + r) * width + c) * C + group * CG
        taken = first + k < CG
        a = tl.load(
            x + at[:, None] + (first + k)[None, :],
            mask=there[:, None] & taken[None, :],
            other=0.0,
        )
        b = tl.load(
            w + ((group * KERNEL * KERNEL + tap) * CG + first + k)[:, None] * FG + out[None, :],
            mask=taken[:, None] & (out < FG)[None, :],
            other=0.0,
        )
        acc = tl.dot(a, b, acc)
    acc += tl.load(bias + group * FG + out, mask=out < FG, other=0.0)[None, :]
    if RELU:
        acc = tl.maximum(acc, 0.0)
    tl.store(
        y + pixel[:, None] * F + (group * FG + out)[None, :],
        acc.to(y.dtype.element_ty),
        mask=inside[:, None] & (out < FG)[None, :],
    )


@triton.jit
def _pair(  # noqa: PLR0917 - as Triton compiles it
    x, w1, bias1, w2, bias2, y, pixels,
    C: tl.constexpr, H: tl.constexpr, F: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr, BF: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * BM + tl.arange(0, BM)
    inside = pixel < pixels
    out = tl.arange(0, BF)
    acc = tl.zeros((BM, BF), dtype=tl.float32)
    for begin in range(0, H, BH):
        hidden = begin + tl.arange(0, BH)
        h = tl.zeros((BM, BH), dtype=tl.float32)
        for first in range(0, C, BK):
            k = first + tl.arange(0, BK)
            a = tl.load(
                x + pixel[:, None] * C + k[None, :],
                mask=inside[:, None] & (k < C)[None, :],
                other=0.0,
            )
            b = tl.load(
                w1 + k[:, None] * H + hidden[None, :],
                mask=(k < C)[:, None] & (hidden < H)[None, :],
                other=0.0,
            )
            h = tl.dot(a, b, h)
        h += tl.load(bias1 + hidden, mask=hidden < H, other=0.0)[None, :]
        h = tl.maximum(h, 0.0).to(x.dtype.element_ty)
        b = tl.load(
            w2 + hidden[:, None] * F + out[None, :],
            mask=(hidden < H)[:, None] & (out < F)[None, :],
            other=0.0,
        )
        acc = tl.dot(h, b, acc)
    acc = tl.maximum(acc + tl.load(bias2 + out, mask=out < F, other=0.0)[None, :], 0.0)
    tl.store(
        y + pixel[:, None] * F + out[None, :],
        acc.to(y.dtype.element_ty),
        mask=inside[:, None] & (out < F)[None, :],
    )


def merge_groups(weight: Tensor, groups: int, merged: int) -> Tensor:
    """The weights [F, C / merged, k, k] of ``merged`` groups that compute what ``groups`` did."""
    out, taken, *kernel = weight.shape
    together = groups // merged
    wide = weight.new_zeros(merged, together, out // groups, together, taken, *kernel)
    blocks = weight.reshape(merged, together, out // groups, taken, *kernel)
    for number in range(together):
        wide[:, number, :, number] = blocks[:, number]
    return wide.reshape(out, together * taken, *kernel)


def pack(weight: Tensor, groups: int) -> Tensor:
    """[F, C / groups, k, k] as the kernels take it: [groups, k * k, C / groups, F / groups]."""
    out, taken, kernel, _ = weight.shape
    packed = weight.reshape(groups, out // groups, taken, kernel * kernel)
    return packed.permute(0, 3, 2, 1).contiguous()


def conv(
    x: Tensor,
    packed: Tensor,
    bias: Tensor,
    shape: tuple[int, int, int, bool],
    block: tuple[int, ...],
) -> Tensor:
    """The convolution of channels-last ``x`` with :func:`pack`'s weights.

    ``shape`` is kernel, stride, padding and whether a ReLU follows; ``block`` pixels, outputs and inputs of a
    step, then warps and stages.
    """
    kernel, stride, padding, relu = shape
    groups, _, taken, given = packed.shape
    n, c, height, width = x.shape
    out_height = (height + 2 * padding - kernel) // stride + 1
    out_width = (width + 2 * padding - kernel) // stride + 1
    y = torch.empty(
        (n, groups * given, out_height, out_width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
    pixels = n * out_height * out_width
    bm, bn, bk, warps, stages = block
    grid = (triton.cdiv(pixels, bm), groups * triton.cdiv(given, bn))
    _conv[grid](
        x, packed, bias, y, pixels, height, width, out_height, out_width,
        c, groups * given, taken, given, kernel, stride, padding, relu, bm, bn, bk,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return y


def pair(
    x: Tensor,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    block: tuple[int, ...],
) -> Tensor:
    """Two 1x1 convolutions with ReLUs; weights [C, H] and [H, F] each with its bias."""
    (w1, bias1), (w2, bias2) = first, second
    n, c, height, width = x.shape
    y = torch.empty(
        (n, w2.shape[1], height, width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
    pixels = n * height * width
    bm, bk, bh, warps, stages = block
    out = max(16, triton.next_power_of_2(w2.shape[1]))
    _pair[(triton.cdiv(pixels, bm),)](
        x, w1, bias1, w2, bias2, y, pixels, c, w1.shape[1], w2.shape[1], bm, bk, bh, out,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return y
