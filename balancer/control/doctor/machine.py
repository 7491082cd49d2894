"""Reads files, folders and the kernel's limits. Nothing is written; what cannot be read is said so."""

import os
import re
import stat
from pathlib import Path

from balancer.control.doctor.facts import Disk, FileFacts, Machine


def file_facts(path: str, use: str) -> FileFacts:
    """Return what the file system says of a path."""
    try:
        found = Path(path).stat()
    except OSError as exc:
        return FileFacts(path, use, fault=exc.strerror or str(exc))
    return FileFacts(
        path, use, "", stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, stat.S_ISDIR(found.st_mode)
    )


def disk(path: str) -> Disk:
    """Return how full the disk below a path is."""
    try:
        found = os.statvfs(path)
    except OSError as exc:
        return Disk(fault=exc.strerror or str(exc))
    return Disk(
        free_bytes=found.f_bavail * found.f_frsize,
        total_bytes=found.f_blocks * found.f_frsize,
        free_inodes=found.f_favail,
        total_inodes=found.f_files,
        is_read_only=bool(found.f_flag & os.ST_RDONLY),
    )


def machine(worker: int | None, why: str, proc: Path = Path("/proc")) -> Machine:
    """Return the kernel's limits. `worker`: a process of the balancer on this machine; `why` there is none."""
    ports = _text(proc / "sys/net/ipv4/ip_local_port_range").split()
    limit = None if worker is None else _open_files(proc / str(worker))
    if worker is not None:
        why = f"worker {worker}" if limit is not None else f"the limits of worker {worker} cannot be read"
    uid, gids = (None, ()) if worker is None else _user(proc / str(worker))
    return Machine(
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        open_files=limit,
        process=why,
        service_uid=uid,
        service_gids=gids,
        somaxconn=_number(proc / "sys/net/core/somaxconn"),
        port_range=(int(ports[0]), int(ports[1])) if len(ports) == 2 else None,
        conntrack_max=_number(proc / "sys/net/netfilter/nf_conntrack_max"),
        conntrack_count=_number(proc / "sys/net/netfilter/nf_conntrack_count"),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _open_files(process: Path) -> int | None:
    found = re.search(r"^Max open files\s+(\d+)", _text(process / "limits"), re.MULTILINE)
    return int(found[1]) if found else None


def _user(process: Path) -> tuple[int | None, tuple[int, ...]]:
    """Return effective user and all groups."""
    text = _text(process / "status")
    uid = re.search(r"^Uid:\s+\d+\s+(\d+)", text, re.MULTILINE)
    gid = re.search(r"^Gid:\s+\d+\s+(\d+)", text, re.MULTILINE)
    groups = re.search(r"^Groups:[ \t]*([\d \t]*)", text, re.MULTILINE)
    gids = [*(groups[1].split() if groups else ()), *([gid[1]] if gid else ())]
    return (int(uid[1]) if uid else None), tuple(map(int, gids))
