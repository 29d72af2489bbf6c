"""Cores and memory under cgroups of both versions, told by files that a kernel would show."""

import os
from pathlib import Path

import pytest

from brainlm_bids.app import machine

GB = 1 << 30
TOTAL_KB = 16 * 1024 * 1024
NO_LIMIT_V1 = "9223372036854771712"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 GB and 8 cores without any limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    write(tmp_path, "proc/meminfo", f"MemTotal:       {TOTAL_KB} kB\nMemFree: 1 kB\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_cgroups_it_is_the_hardware(root: Path) -> None:
    assert machine.available_cores(root) == 8
    assert machine.memory_limit(root) is None
    assert machine.available_memory(root) == 16 * GB
    assert machine.oom_kills(root) is None


def test_version_2_the_lowest_limit_above_counts(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/job/step\n")
    write(root, "sys/fs/cgroup/job/step/memory.max", "max\n")
    write(root, "sys/fs/cgroup/job/step/cpu.max", "max 100000\n")
    write(root, "sys/fs/cgroup/job/step/memory.events", "low 0\noom 3\noom_kill 2\n")
    write(root, "sys/fs/cgroup/job/memory.max", f"{2 * GB}\n")
    write(root, "sys/fs/cgroup/job/memory.events", "oom_kill 9\n")
    write(root, "sys/fs/cgroup/job/cpu.max", "350000 100000\n")
    assert machine.available_cores(root) == 3
    assert machine.memory_limit(root) == machine.available_memory(root) == 2 * GB
    assert machine.oom_kills(root) == 2


def test_version_1_in_a_container_that_shows_the_path_of_the_host(root: Path) -> None:
    write(root, "proc/self/cgroup", "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n")
    write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{3 * GB}\n")
    write(root, "sys/fs/cgroup/memory/memory.oom_control", "under_oom 0\noom_kill 1\n")
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n")
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert machine.available_cores(root) == 1  # half a core is one process
    assert machine.available_memory(root) == 3 * GB
    assert machine.oom_kills(root) == 1


def test_version_1_says_no_limit_by_a_huge_number(root: Path) -> None:
    write(root, "proc/self/cgroup", "4:memory:/\n1:cpu:/\n")
    write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{NO_LIMIT_V1}\n")
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert machine.memory_limit(root) is None
    assert machine.available_memory(root) == 16 * GB
    assert machine.available_cores(root) == 8


def test_a_quota_above_the_affinity_gives_no_more_cores(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/\n")
    write(root, "sys/fs/cgroup/cpu.max", "6400000 100000\n")
    assert machine.available_cores(root) == 8


def test_kills_of_the_whole_machine_where_no_cgroup_counts_them(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/\n")
    write(root, "proc/vmstat", "pgfault 12\noom_kill 5\n")
    assert machine.oom_kills(root) == 5


def test_this_machine_answers() -> None:
    assert 1 <= machine.available_cores() <= (os.cpu_count() or 1)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < machine.available_memory() <= physical
