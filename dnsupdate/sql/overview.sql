-- name: hosts
-- All hosts, or some by name or uuid.
SELECT uuid AS node_uuid, facts, gen, removed, missing, changed_at, last_ping_at FROM dns_hosts
WHERE $1::text[] IS NULL OR uuid = ANY($1::text[]) OR facts ->> 'hostname' = ANY($1::text[])
ORDER BY facts ->> 'hostname', uuid;

-- name: all_due
-- Every host as if it were due, with what is waiting of it; missing are also those that the next sweep will find so.
SELECT h.uuid AS node_uuid, h.facts, h.gen, h.removed, h.gen AS dirty_gen, h.missing OR NOT h.removed
         AND coalesce(h.last_ping_at < clock_timestamp() - make_interval(secs => $2), false) AS missing,
       coalesce(d.released, false) AS released, coalesce(d.attempts, 0) AS attempts
FROM dns_hosts h LEFT JOIN dns_dirty d ON d.target = $1 AND d.node_uuid = h.uuid
UNION ALL
SELECT d.node_uuid, NULL, NULL, NULL, d.gen, NULL, d.released, d.attempts FROM dns_dirty d
WHERE d.target = $1 AND NOT EXISTS (SELECT FROM dns_hosts h WHERE h.uuid = d.node_uuid);

-- name: targets
-- Who sends where, and how it goes.
SELECT l.target, l.kind, l.holder, l.epoch, l.server_state, l.until > clock_timestamp() AS is_held,
  CASE WHEN l.until > clock_timestamp() THEN extract(epoch FROM l.until - clock_timestamp())::float8 END AS left_s,
  (SELECT count(*) FROM dns_published p WHERE p.target = l.target) AS records,
  (SELECT count(*) FROM dns_dirty d WHERE d.target = l.target AND d.state = 'pending') AS pending,
  (SELECT count(*) FROM dns_dirty d WHERE d.target = l.target AND d.state = 'conflict') AS conflict,
  (SELECT count(*) FROM dns_dirty d WHERE d.target = l.target AND d.state = 'failed') AS failed,
  (SELECT count(*) FROM dns_dirty d WHERE d.target = l.target AND d.state = 'held' AND NOT d.released) AS held
FROM dns_lease l ORDER BY l.target;

-- name: host_states
-- The states of hosts at all targets.
SELECT s.node_uuid, h.facts ->> 'hostname' AS hostname, h.removed, s.target, s.state, s.last_error, s.attempts,
  extract(epoch FROM clock_timestamp() - s.since)::float8 AS age_s
FROM dns_host_states s JOIN dns_hosts h ON h.uuid = s.node_uuid
WHERE $1::text[] IS NULL OR h.uuid = ANY($1::text[]) OR h.facts ->> 'hostname' = ANY($1::text[])
ORDER BY hostname, s.target;

-- name: published_of
-- What a host has published.
SELECT target, zone, name, rdtype, rdata, ttl, gen, at FROM dns_published WHERE node_uuid = $1
ORDER BY target, zone, name, rdtype;

-- name: traces_of
-- The last message to each zone with a host in it.
SELECT DISTINCT ON (target, zone) target, zone, message_id, epoch, holder, sent_at, answered_at, rcode
FROM dns_messages WHERE $1 = ANY(hosts) ORDER BY target, zone, id DESC;

-- name: release
-- Let held deletions go.
UPDATE dns_dirty d SET released = true, state = 'pending', not_before = '-infinity'
WHERE state = 'held' AND NOT released AND ($1::text IS NULL OR target = $1) AND ($2::text[] IS NULL OR node_uuid = ANY($2)
  OR EXISTS (SELECT FROM dns_hosts h WHERE h.uuid = d.node_uuid AND h.facts ->> 'hostname' = ANY($2))
  OR (node_uuid LIKE 'orphan:%' AND rtrim(split_part(node_uuid, '/', 2), '.') = ANY($2)))
RETURNING node_uuid;

-- name: adopt
-- Take over names, and look again at the hosts that want them.
INSERT INTO dns_adopted (target, zone, name) SELECT $1, * FROM unnest($2::text[], $3::text[]) ON CONFLICT DO NOTHING;

-- name: wake
-- Look again now.
UPDATE dns_dirty SET not_before = '-infinity', state = 'pending', last_error = NULL WHERE target = $1 AND node_uuid = ANY($2::text[]);

-- name: waiting
-- How much is left to do, by state.
SELECT target, state, count(*) AS hosts FROM dns_dirty WHERE NOT (state = 'held' AND NOT released) GROUP BY target, state;

-- name: held
-- What is held back.
SELECT target, count(*) AS hosts FROM dns_dirty WHERE state = 'held' AND NOT released GROUP BY target;

-- name: events
-- The newest events.
SELECT id, at, target, kind, text FROM dns_events WHERE id > $1 ORDER BY id DESC LIMIT $2;

-- name: now
-- The only clock.
SELECT clock_timestamp();

-- name: followed
-- Hosts that came from an Arvados node list.
SELECT uuid FROM dns_hosts WHERE NOT removed AND uuid ~ '^[0-9a-z]{5}-7ekkf-[0-9a-z]{15}$';
