"""What GPUs have consumed, as NVML counts it. Nothing is imported or asked where there is no GPU in use."""

import importlib
from types import ModuleType
from typing import Any


def joules_by_device(cuda: Any, devices: list[int]) -> dict[int, float]:
    """Joules since the driver was loaded, by device of ``torch.cuda``; without those whose counter cannot be read.

    The counter (Volta and later) is the whole board's: idle power and other processes on it are in it. Devices are
    found by UUID, since ``CUDA_VISIBLE_DEVICES`` renumbers them for CUDA alone. Needs the package ``nvidia-ml-py``.
    """
    nvml = _nvml() if devices else None
    if nvml is None:
        return {}
    found = {}
    for device in devices:
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{cuda.get_device_properties(device).uuid}")
            found[device] = nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000  # it counts millijoules
        except nvml.NVMLError:  # an old device, or a slice of one (MIG)
            continue
    return found


def driver_version() -> str | None:
    """The GPU driver's version; None where NVML is not to be had."""
    nvml = _nvml()
    return None if nvml is None else str(nvml.nvmlSystemGetDriverVersion())


def _nvml() -> ModuleType | None:
    """NVML, started; None where the package or the driver's library is missing."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()  # counted: starting it again is free
    except nvml.NVMLError:
        return None
    return nvml
