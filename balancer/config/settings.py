"""The parts of a snapshot that are plain settings: texts of the file to seconds and bytes."""

from balancer import model
from balancer.config.schema import Config
from balancer.config.traffic import Limits, Park, Retry, Timeouts


def settings(config: Config, generation: int) -> model.Snapshot:
    """Return a snapshot with all settings, without listeners, nodes, routes and designations."""
    forwarding, request_id, log = config.forwarding, config.request_id, config.log
    return model.Snapshot(
        generation=generation,
        cluster=config.cluster,
        balance=_balance(config),
        retry=_retry(config.retry),
        queue=model.Queue(config.queue.max, float(config.queue.timeout)),
        park=_park(config.park),
        drain=model.Drain(float(config.drain.timeout), float(config.drain.tunnel_grace)),
        request_id=model.RequestId(request_id.header, request_id.format, request_id.accept),
        limits=_limits(config.limits, half_close=config.park.half_close == "allow"),
        timeouts=_timeouts(config.timeouts),
        verdicts=model.Verdicts(float(config.health.interval)),
        forwarding=model.Forwarding(
            trusted_proxies=tuple(map(str, config.trusted_proxies)),
            internal_networks=tuple(map(str, config.internal_networks)),
            external_client_header=forwarding.external_client and bool(config.internal_networks),
            default_host=forwarding.default_host,
            via=forwarding.via,
            drop_underscore=forwarding.drop_underscore,
            drop_dotted=forwarding.drop_dotted,
            upgrade_tokens=forwarding.upgrade,
        ),
        access_log=model.AccessLog(log.access, log.path, log.redact),
    )


def _balance(config: Config) -> model.Balance:
    balance = config.balance
    return model.Balance(
        policy=model.Policy(balance.policy),
        hash_key=model.HashKey(balance.hash.by),
        hash_name=balance.hash.name or "",
        slow_start_s=float(balance.slow_start),
        min_serving=balance.min_serving,
    )


def _retry(retry: Retry) -> model.Retry:
    return model.Retry(
        retries=retry.retries,
        on=retry.on,
        budget_ratio=float(retry.budget.ratio),
        budget_window_s=float(retry.budget.window),
        budget_min=retry.budget.min,
    )


def _park(park: Park) -> model.Park:
    return model.Park(
        max=park.max,
        max_bytes=int(park.max_bytes),
        max_per_client=max(1, park.max // 5) if park.max_per_client is None else park.max_per_client,
        timeout_s=float(park.timeout),
        release_per_s=float(park.release),
    )


def _limits(limits: Limits, *, half_close: bool) -> model.Limits:
    return model.Limits(
        header_bytes=int(limits.header_bytes),
        header_field_bytes=int(limits.header_field_bytes),
        header_count=limits.header_count,
        target_bytes=limits.target_bytes,
        body_bytes=int(limits.body),
        chunk_extension_bytes=int(limits.chunk_extensions),
        trailer_bytes=int(limits.trailers),
        connections=limits.connections,
        requests_per_connection=limits.requests_per_connection,
        min_rate_bytes_per_s=int(limits.min_rate),
        min_rate_after_s=float(limits.min_rate_after),
        tunnels=limits.tunnels,
        half_close=half_close,
        buffered_response_bytes=int(limits.buffered_response),
    )


def _timeouts(timeouts: Timeouts) -> model.Timeouts:
    return model.Timeouts(
        header_s=float(timeouts.header),
        body_idle_s=float(timeouts.body_idle),
        connect_s=float(timeouts.connect),
        response_s=float(timeouts.response),
        response_idle_s=float(timeouts.response_idle),
        keepalive_s=float(timeouts.keepalive),
        tunnel_idle_s=float(timeouts.tunnel_idle),
        upstream_idle_s=float(timeouts.upstream_idle),
        send_idle_s=float(timeouts.send_idle),
    )
