"""The cores and the memory (in bytes) that this process may use.

What comes in: the files in which Linux reports them (below another root in tests). What goes out:
numbers that respect the limits of a container or a batch job (cgroups, version 1 and 2), not only
the hardware.
"""

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
# names of the controllers' folders under /sys/fs/cgroup in version 1; version 2 has one tree
_MEMORY, _CPU = "memory", "cpu"


def available_cores(root: Path = ROOT) -> int:
    """Cores that this process may use: the scheduler's affinity, or a lower quota of its cgroup."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    quotas = [_quota(folder) for folder in _folders(_CPU, root)]
    allowed = min((quota for quota in quotas if quota is not None), default=float(cores))
    return max(1, min(cores, int(allowed)))


def available_memory(root: Path = ROOT) -> int:
    """Bytes of memory that this process may use: those of the machine, or a cgroup's limit."""
    total = _machine_memory(root)
    limit = memory_limit(root)
    return total if limit is None else min(total, limit)


def memory_limit(root: Path = ROOT) -> int | None:
    """The lowest limit in bytes of the cgroup and those above it; None where there is none."""
    names = ("memory.max", "memory.limit_in_bytes")
    limits = [_number(folder / name) for folder in _folders(_MEMORY, root) for name in names]
    # version 1 expresses "no limit" as a number larger than the memory of any machine
    total = _machine_memory(root)
    return min((limit for limit in limits if limit is not None and limit < total), default=None)


def oom_kills(root: Path = ROOT) -> int | None:
    """How many processes of this cgroup the kernel has killed because memory ran out.

    Where no cgroup counts them, those of the whole machine are counted; None if nothing does.
    """
    files = [folder / "memory.events" for folder in _folders(_MEMORY, root)]
    files += [folder / "memory.oom_control" for folder in _folders(_MEMORY, root)]
    for path in [*files, root / "proc/vmstat"]:
        counts = _table(path)
        if "oom_kill" in counts:
            return counts["oom_kill"]
    return None


def _folders(controller: str, root: Path) -> Iterator[Path]:
    """The cgroups of this process for a controller, from the innermost to the root of the tree."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    base = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        tree = base / controller if controllers else base
        # inside a container the path may be that of the host: then the root of the tree holds
        innermost = tree / name.lstrip("/")
        innermost = innermost if innermost.is_dir() else tree
        yield innermost
        yield from (parent for parent in innermost.parents if parent.is_relative_to(tree))


def _quota(folder: Path) -> float | None:
    """Cores that a cgroup allows (2: `cpu.max`; 1: `cpu.cfs_quota_us`, -1 for no limit)."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        quota, period = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cores if cores > 0 else None


def _machine_memory(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _table(path: Path) -> dict[str, int]:
    """A file of lines "name number"."""
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
