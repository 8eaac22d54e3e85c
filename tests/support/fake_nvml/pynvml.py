"""Stands for nvidia-ml-py on a machine without a GPU: two of them, of which one cannot tell its power."""

# ruff: noqa: N802 - the names are NVML's

from types import SimpleNamespace


class NVMLError(Exception):
    pass


def nvmlInit() -> None:
    pass


def nvmlDeviceGetCount() -> int:
    return 2


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    return index


def nvmlDeviceGetUUID(device: int) -> str:
    return f"GPU-{device:08d}"


def nvmlDeviceGetName(device: int) -> str:
    return "NVIDIA Fake"


def nvmlDeviceGetUtilizationRates(device: int) -> SimpleNamespace:
    return SimpleNamespace(gpu=25 + 50 * device, memory=1)


def nvmlDeviceGetMemoryInfo(device: int) -> SimpleNamespace:
    return SimpleNamespace(total=1000, free=600, used=400)


def nvmlDeviceGetPowerUsage(device: int) -> int:
    if device == 1:
        raise NVMLError("not supported")
    return 123_456
