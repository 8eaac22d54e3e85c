"""How to compute, as the commands that train are told."""

from __future__ import annotations

import argparse

import torch

from rootmodels.processor import cpu_computes_bf16
from rootmodels.train_fleet import Computing


def add_computing(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the arguments that :func:`chosen_computing` reads."""
    add = parser.add_argument
    add("--device", help="cpu or cuda (default: a GPU where there is one)")
    add("--threads", type=int, help="CPU threads (default: torch's choice)")
    add(
        "--precision",
        choices=("bf16", "fp32"),
        help="what convolutions compute in (default: bf16 where the device is fast at it)",
    )
    add(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="compile the networks (default: on a GPU)",
    )
    add(
        "--capture",
        action=argparse.BooleanOptionalAction,
        help="make each step a CUDA graph (default: on a GPU)",
    )


def chosen_computing(args: argparse.Namespace) -> Computing:
    """What was asked for, and where nothing was, what the device is good at."""
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    gpu = device.type == "cuda"
    if args.threads:
        torch.set_num_threads(args.threads)
    return Computing(
        device,
        dtype=_dtype(args.precision, gpu=gpu),
        dense=gpu,
        compiled=gpu if args.compile is None else args.compile,
        captured=gpu and args.capture is not False,
    )


def _dtype(asked: str | None, *, gpu: bool) -> torch.dtype:
    precision = asked or ("bf16" if gpu or cpu_computes_bf16() else "fp32")
    return torch.bfloat16 if precision == "bf16" else torch.float32
