"""Limits of the kernel and the disk of the machine that the balancer runs on."""

from balancer.control.doctor.facts import Facts
from balancer.control.doctor.finding import Found, Result, Severity, Topic, Unseen, unseen
from balancer.control.doctor.text import listed

topic = Topic("machine")
_SPARE_FILES = 500  # logs, sockets of the admin API, connections that are kept idle


def _workers(facts: Facts) -> int:
    return facts.config.workers or facts.machine.cpus


@topic.rule(
    "open-files",
    Severity.WARNING,
    looks_at="The limit of open files of a worker, beside `limits.connections`: a client and a node connection each.",
    risk="At the limit new connections are not accepted, although the configuration allows them.",
    fix="LimitNOFILE=1048576 in the unit, or a smaller limits.connections",
)
def open_files(facts: Facts) -> Result:
    """RLIMIT_NOFILE."""
    limit, needed = facts.machine.open_files, 2 * facts.config.limits.connections + _SPARE_FILES
    if limit is None:
        yield from unseen("open files", facts.machine.process)
    elif limit < needed:
        evidence = f"{facts.machine.process} may open {limit} files; {facts.config.limits.connections} connections"
        yield Found("nofile", f"{evidence} need {needed}", f"LimitNOFILE={max(needed, 65536)}")


@topic.rule(
    "somaxconn",
    Severity.WARNING,
    looks_at="`net.core.somaxconn`, beside `listen.backlog`.",
    risk="In a burst, or while a worker is replaced, connections are dropped and come back a second later.",
    fix="sysctl -w net.core.somaxconn=4096, and in /etc/sysctl.d",
)
def somaxconn(facts: Facts) -> Result:
    """The kernel caps each backlog silently."""
    limit = facts.machine.somaxconn
    if limit is None:
        yield from unseen("somaxconn", "the kernel does not say")
        return
    capped = [f"{item.bind} ({item.backlog})" for item in facts.config.listen if item.backlog > limit]
    if capped:
        most = max(item.backlog for item in facts.config.listen)
        yield Found(
            "net.core.somaxconn", f"{limit}; backlog of {listed(capped)}", f"sysctl -w net.core.somaxconn={most}"
        )


@topic.rule(
    "ephemeral-ports",
    Severity.WARNING,
    looks_at="`net.ipv4.ip_local_port_range`, beside the connections that a node's `capacity` and tunnels can need.",
    risk="Without a free port no connection to that node can be made, although it is well.",
    fix='sysctl -w net.ipv4.ip_local_port_range="1024 65000", or a smaller capacity',
)
def ephemeral_ports(facts: Facts) -> Result:
    """Ports count for each node by itself."""
    ports = facts.machine.port_range
    if ports is None:
        yield from unseen("ephemeral ports", "the kernel does not say")
        return
    there, workers = ports[1] - ports[0] + 1, _workers(facts)
    for node in facts.nodes:
        needed = node.capacity + facts.config.limits.tunnels * workers
        if node.capacity and needed > there:
            yield Found(
                node.name, f"may need {needed} connections, there are {there} local ports ({ports[0]}-{ports[1]})"
            )


@topic.rule(
    "conntrack",
    Severity.WARNING,
    looks_at="The kernel's table of tracked connections, where it has one.",
    risk="When the table is full, packets are dropped: connections hang without any error.",
    fix="sysctl -w net.netfilter.nf_conntrack_max=..., or no tracking for these ports",
)
def conntrack(facts: Facts) -> Result:
    """A firewall's table."""
    most, count = facts.machine.conntrack_max, facts.machine.conntrack_count
    if most is None:
        return
    needed = 2 * facts.config.limits.connections * _workers(facts)
    if count is not None and count > 0.8 * most:
        yield Found("nf_conntrack", f"{count} of {most} entries are in use", severity=Severity.ERROR)
    elif most < needed:
        yield Found("nf_conntrack", f"{most} entries; all connections together can need {needed}")


@topic.rule(
    "state-not-writable",
    Severity.ERROR,
    looks_at="Whether the balancer's user may write `state.dir`.",
    risk="Drain, pause, designation and upgrade are refused, since they are remembered before they take effect.",
    fix="install -d -o arv-balance -m 0700 /var/lib/arv-balance",
)
def state_not_writable(facts: Facts) -> Result:
    """By permission bits, for the user that the balancer runs as."""
    folder, uid = facts.state_dir, facts.machine.service_uid
    if folder.fault:
        yield Found(folder.path, folder.fault)
    elif not folder.is_folder:
        yield Found(folder.path, "is not a folder")
    elif facts.disk.is_read_only:
        yield Found(folder.path, "its file system is mounted read-only", "mount -o remount,rw; see dmesg")
    elif uid is None:
        yield Unseen(folder.path, "the balancer does not run here, so its user is not known")
    elif uid and not _may_write(folder.mode, uid == folder.uid, folder.gid in facts.machine.service_gids):
        evidence = f"mode {folder.mode:04o} of uid {folder.uid}; the balancer runs as uid {uid}"
        yield Found(folder.path, evidence, f"chown {uid} {folder.path}; chmod 0700 {folder.path}")


def _may_write(mode: int, owns: bool, shares: bool) -> bool:  # noqa: FBT001
    return bool(mode & (0o300 if owns else 0o030 if shares else 0o003) in (0o300, 0o030, 0o003))


@topic.rule(
    "disk-almost-full",
    Severity.WARNING,
    looks_at="Free space and inodes of the disk that holds `state.dir`.",
    risk="When it is full, every change by an operator is refused; an upgrade stops where it is.",
    fix="make room; logs elsewhere; see examples/logrotate",
)
def disk_almost_full(facts: Facts) -> Result:
    """Space and inodes."""
    disk = facts.disk
    if disk.fault:
        yield from unseen("disk of state.dir", disk.fault)
        return
    for what, free, total in (
        ("bytes", disk.free_bytes, disk.total_bytes),
        ("inodes", disk.free_inodes, disk.total_inodes),
    ):
        if total and free < facts.limits.free_share * total:
            yield Found(facts.state_dir.path, f"{free} of {total} {what} are free ({free / total:.1%})")
