"""Who may read keys, and who may operate the balancer."""

from balancer.control.doctor.facts import Facts
from balancer.control.doctor.finding import Found, Result, Severity, Topic, Unseen, unseen

topic = Topic("permissions")


@topic.rule(
    "key-permissions",
    Severity.ERROR,
    looks_at="Private keys, tokens, DNS keys and an Arvados config.yml: readable by others, or writable by the group.",
    risk="Whoever has an account on this machine can read what is sent, or act as the cluster.",
    fix="chmod 0640 FILE; chgrp arv-balance FILE",
)
def key_permissions(facts: Facts) -> Result:
    """Files with secrets."""
    keys = facts.dns.keys if facts.dns is not None else ()
    for item in (*facts.files, *keys):
        if item.fault:
            yield Unseen(item.path, item.fault)
        elif item.mode & 0o007:
            what = "everyone may write" if item.mode & 0o002 else "everyone may read"
            yield Found(item.path, f"{what} the {item.use} (mode {item.mode:04o})", f"chmod o= {item.path}")
        elif item.mode & 0o020:
            yield Found(
                item.path, f"its group may write the {item.use} (mode {item.mode:04o})", f"chmod g-w {item.path}"
            )


@topic.rule(
    "admin-socket-open",
    Severity.ERROR,
    looks_at="Who may open the admin socket: who opens it is an admin.",
    risk="Every account on this machine may pause traffic, move nodes and run upgrade steps.",
    fix="chmod 0660 /run/arv-balance/admin.sock, and a group of operators",
)
def admin_socket_open(facts: Facts) -> Result:
    """The permission bits of the socket."""
    item = facts.admin_socket
    if item.fault:
        if facts.status is not None:
            yield from unseen(item.path, item.fault)
    elif item.mode & 0o002:
        yield Found(item.path, f"everyone may open it (mode {item.mode:04o})", f"chmod o= {item.path}")


@topic.rule(
    "admin-without-login",
    Severity.ERROR,
    looks_at="Whether `admin.listen` answers without a token, or sends tokens in the clear over a network.",
    risk="Nodes, addresses and traffic are open to whoever reaches the port; a token that is read operates everything.",
    fix="admin: {listen: 127.0.0.1:8081, tokens: [{name: ops, role: operator, file: /etc/arv-balance/ops.token}]}",
)
def admin_without_login(facts: Facts) -> Result:
    """The TCP side of the admin API."""
    listen, reply = facts.config.admin.listen, facts.anonymous_admin
    if listen is None or reply is None:
        return
    if reply.fault:
        yield from unseen(f"admin.listen {listen}", reply.fault)
    elif reply.status == 200 and not facts.config.admin.tokens:
        level = Severity.WARNING if listen.is_loopback else Severity.ERROR
        yield Found(f"admin.listen {listen}", "answers reads without a token", severity=level)
    elif reply.status == 200:
        yield Found(f"admin.listen {listen}", "answers without a token, although tokens are configured")
