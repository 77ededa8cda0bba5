"""How many processor cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota_file: Path = CGROUP_QUOTA) -> int:
    """Return the cores that the scheduler grants us, limited by a container's quota; at least 1."""
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(granted, _quota(quota_file, granted)))


def _quota(file: Path, otherwise: int) -> int:
    """Read cgroup v2's "QUOTA PERIOD" in microseconds; "max" is no limit."""
    try:
        quota, period = file.read_text().split()
        return round(int(quota) / int(period))
    except (OSError, ValueError):
        return otherwise
