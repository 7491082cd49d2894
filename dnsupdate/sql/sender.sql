-- name: register
-- A target that is new gets all hosts as dirty.
INSERT INTO dns_lease (target, kind) VALUES ($1, $2) ON CONFLICT (target) DO UPDATE SET kind = excluded.kind
RETURNING (xmax = 0) AS is_new;

-- name: mark_all
-- Everything is looked at again; what is equal to what is published costs nothing.
INSERT INTO dns_dirty (target, node_uuid, gen) SELECT $1, uuid, gen FROM dns_hosts
ON CONFLICT (target, node_uuid) DO UPDATE SET gen = excluded.gen, not_before = '-infinity'
WHERE dns_dirty.state <> 'held';

-- name: lock_changes
-- As in enqueue.
SELECT pg_advisory_xact_lock(19523, 2136);

-- name: acquire
-- Only a lease that has run out, or our own, is to be had.
UPDATE dns_lease SET holder = $2, epoch = epoch + 1, until = clock_timestamp() + make_interval(secs => $3)
WHERE target = $1 AND until < clock_timestamp()
RETURNING epoch, server_state;

-- name: raise_epoch
-- A new fence number for the holder, above whatever is found in a zone.
UPDATE dns_lease SET epoch = greatest(epoch + 1, $4::bigint), until = clock_timestamp() + make_interval(secs => $5)
WHERE target = $1 AND holder = $2 AND epoch = $3 AND until > clock_timestamp()
RETURNING epoch;

-- name: renew
-- The first statement of every transaction of a sender: no row, no right to write.
UPDATE dns_lease SET until = clock_timestamp() + make_interval(secs => $3)
WHERE target = $1 AND epoch = $2 AND until > clock_timestamp()
RETURNING 1;

-- name: holds
-- Whether the lease is still held.
SELECT 1 FROM dns_lease WHERE target = $1 AND epoch = $2 AND until > clock_timestamp();

-- name: need_not_wait
-- Only where a loss is harmless.
SET LOCAL synchronous_commit = off;

-- name: give_up
-- A sender that stops lets the next one begin at once.
UPDATE dns_lease SET until = '-infinity' WHERE target = $1 AND holder = $2 AND epoch = $3;

-- name: lease
-- Who sends.
SELECT target, kind, holder, epoch, until, server_state, until > clock_timestamp() AS is_held FROM dns_lease
WHERE target = $1;

-- name: set_state
-- What is remembered of a target's server.
UPDATE dns_lease SET server_state = server_state || $3::jsonb WHERE target = $1 AND epoch = $2;

-- name: due
-- What is to be looked at now, oldest first, with what is known of the host.
SELECT d.node_uuid, d.gen AS dirty_gen, d.released, d.attempts, h.facts, h.gen, h.removed, h.missing
FROM dns_dirty d LEFT JOIN dns_hosts h ON h.uuid = d.node_uuid
WHERE d.target = $1 AND d.not_before <= clock_timestamp() AND (d.state <> 'held' OR d.released)
  AND d.node_uuid <> ALL($3::text[])
ORDER BY d.since LIMIT $2;

-- name: published_at
-- All contributions at the names that these hosts have or want, and at names that are unsure.
WITH unsure AS (
  SELECT zone, name FROM dns_unsure WHERE target = $1 GROUP BY zone, name ORDER BY zone, name LIMIT $5
), touched AS (
  SELECT zone, name FROM dns_published WHERE target = $1 AND node_uuid = ANY($2::text[])
  UNION SELECT * FROM unnest($3::text[], $4::text[])
  UNION SELECT zone, name FROM unsure
)
SELECT p.zone, p.name, p.rdtype, p.rdata, p.ttl, p.node_uuid, p.gen, p.shared, p.yields
FROM dns_published p JOIN touched USING (zone, name) WHERE p.target = $1;

-- name: unsure_at
-- What may be wrong about those names, and about some others.
SELECT zone, name, rdtype FROM dns_unsure WHERE target = $1 AND (zone, name) IN (
  SELECT * FROM (SELECT zone, name FROM dns_unsure WHERE target = $1 GROUP BY zone, name ORDER BY zone, name LIMIT $5) AS others
  UNION SELECT zone, name FROM dns_published WHERE target = $1 AND node_uuid = ANY($2::text[])
  UNION SELECT * FROM unnest($3::text[], $4::text[]));

-- name: adopted
-- Names to take over.
SELECT zone, name FROM dns_adopted WHERE target = $1;

-- name: counts
-- For the brake.
SELECT (SELECT count(DISTINCT node_uuid) FROM dns_published WHERE target = $1) AS published,
       (SELECT count(*) FROM dns_dirty WHERE target = $1 AND state = 'held' AND NOT released) AS held;

-- name: note_unsure
-- Before a message leaves: its record sets may be changed from now on. Returns those that were not unsure before.
INSERT INTO dns_unsure (target, zone, name, rdtype)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[]) ON CONFLICT DO NOTHING
RETURNING zone, name, rdtype;

-- name: forget_unsure
-- The server has told.
DELETE FROM dns_unsure u USING unnest($2::text[], $3::text[], $4::text[]) AS known(zone, name, rdtype)
WHERE u.target = $1 AND u.zone = known.zone AND u.name = known.name AND u.rdtype = known.rdtype;

-- name: unpublish
-- What is no longer at these names.
DELETE FROM dns_published p USING unnest($2::text[], $3::text[]) AS known(zone, name)
WHERE p.target = $1 AND p.zone = known.zone AND p.name = known.name;

-- name: publish
-- What is at these names now.
INSERT INTO dns_published (target, zone, name, rdtype, rdata, ttl, node_uuid, gen, shared, yields)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::text[], $8::bigint[], $9::bool[], $10::bool[])
ON CONFLICT DO NOTHING;

-- name: clean
-- Done, unless the host changed meanwhile.
DELETE FROM dns_dirty d USING unnest($2::text[], $3::bigint[]) AS done(node_uuid, gen)
WHERE d.target = $1 AND d.node_uuid = done.node_uuid AND d.gen = done.gen;

-- name: put_off
-- Not done: why, and when to look again. A host that changed meanwhile is not put off.
UPDATE dns_dirty d SET state = bad.state, last_error = bad.error, attempts = attempts + 1,
  since = CASE WHEN d.state = bad.state THEN d.since ELSE clock_timestamp() END,
  not_before = clock_timestamp() + make_interval(secs => least($7::float8, $6::float8 * power(2, least(d.attempts, 16))))
FROM unnest($2::text[], $3::bigint[], $4::text[], $5::text[]) AS bad(node_uuid, gen, state, error)
WHERE d.target = $1 AND d.node_uuid = bad.node_uuid AND d.gen = bad.gen;

-- name: robbed
-- Hosts outside of a batch that lost a name to a newer claim.
INSERT INTO dns_dirty (target, node_uuid, gen, state, last_error, not_before)
SELECT $1, h.uuid, h.gen, 'conflict', lost.error, clock_timestamp() + make_interval(secs => $4)
FROM unnest($2::text[], $3::text[]) AS lost(uuid, error) JOIN dns_hosts h USING (uuid)
ON CONFLICT (target, node_uuid) DO NOTHING;

-- name: wake_conflicts
-- A name became free: whoever waits for one looks again.
UPDATE dns_dirty SET not_before = '-infinity' WHERE target = $1 AND state = 'conflict';

-- name: unadopt
-- Taken over.
DELETE FROM dns_adopted a USING unnest($2::text[], $3::text[]) AS known(zone, name)
WHERE a.target = $1 AND a.zone = known.zone AND a.name = known.name;

-- name: trace
-- A message that was answered; the last thousand of a target are kept.
INSERT INTO dns_messages (target, zone, hosts, message_id, epoch, holder, sent_at, answered_at, rcode)
VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() - make_interval(secs => $7), clock_timestamp(), $8);

-- name: trim_messages
-- Keep the table small.
DELETE FROM dns_messages WHERE id <= (SELECT id FROM dns_messages ORDER BY id DESC OFFSET 5000 LIMIT 1);

-- name: event
-- For operators; the last ten thousand are kept.
INSERT INTO dns_events (target, kind, text) VALUES ($1, $2, $3);

-- name: trim_events
-- Keep the table small.
DELETE FROM dns_events WHERE id <= (SELECT max(id) - 10000 FROM dns_events);

-- name: published_zone
-- All that we have in a zone.
SELECT zone, name, rdtype, rdata, ttl, node_uuid, gen, shared, yields FROM dns_published WHERE target = $1 AND zone = $2;

-- name: unsure_zone
-- All that is unsure in a zone.
SELECT zone, name, rdtype FROM dns_unsure WHERE target = $1 AND zone = $2;

-- name: doubt_zone
-- The zone was reset: nothing in the table can be trusted.
INSERT INTO dns_unsure (target, zone, name, rdtype)
SELECT DISTINCT target, zone, name, rdtype FROM dns_published WHERE target = $1 AND zone = $2
ON CONFLICT DO NOTHING;

-- name: orphans
-- Names with our marker that no host wants: a dirty row each, so that brake and release are the same for all.
INSERT INTO dns_dirty (target, node_uuid, gen) SELECT $1, uuid, 0 FROM unnest($2::text[]) AS uuid
ON CONFLICT DO NOTHING;

-- name: missing
-- Hosts that have not pinged for too long.
UPDATE dns_hosts SET missing = true, gen = nextval('dns_gen'), changed_at = clock_timestamp()
WHERE NOT missing AND NOT removed AND last_ping_at < clock_timestamp() - make_interval(secs => $1)
RETURNING uuid, gen;

-- name: mark_dirty
-- As in enqueue.
INSERT INTO dns_dirty (target, node_uuid, gen)
SELECT l.target, changed.uuid, changed.gen FROM dns_lease l, unnest($1::text[], $2::bigint[]) AS changed(uuid, gen)
ON CONFLICT (target, node_uuid) DO UPDATE SET
  gen = excluded.gen, not_before = '-infinity', state = 'pending', released = false, attempts = 0, last_error = NULL;

-- name: prefill
-- Names that should be there before their hosts are.
INSERT INTO dns_hosts (uuid, facts, removed, gen)
SELECT 'was:' || name, jsonb_build_object('hostname', name, 'domain', $2::text, 'ips', '[]'::jsonb), true, 0
FROM unnest($1::text[]) AS name ON CONFLICT (uuid) DO NOTHING
RETURNING uuid, gen;

-- name: bury_for_good
-- Removed hosts of which nothing is published and nothing is to be done.
DELETE FROM dns_hosts h WHERE h.removed AND NOT h.uuid = ANY($1::text[])
  AND h.changed_at < clock_timestamp() - interval '1 minute'
  AND NOT EXISTS (SELECT FROM dns_published p WHERE p.node_uuid = h.uuid)
  AND NOT EXISTS (SELECT FROM dns_dirty d WHERE d.node_uuid = h.uuid);

-- name: redo
-- What these hosts have published is not what is there.
INSERT INTO dns_dirty (target, node_uuid, gen) SELECT $1, uuid, gen FROM dns_hosts WHERE uuid = ANY($2::text[])
ON CONFLICT (target, node_uuid) DO UPDATE SET not_before = '-infinity';

-- name: acquire_designated
-- A directory is written by the node that has the newest designation, whoever held the lease before.
UPDATE dns_lease SET holder = $2, epoch = epoch + 1, until = clock_timestamp() + make_interval(secs => $3),
  server_state = server_state || jsonb_build_object('designation', $4::bigint)
WHERE target = $1 AND coalesce((server_state ->> 'designation')::bigint, 0) <= $4
  AND (until < clock_timestamp() OR coalesce((server_state ->> 'designation')::bigint, 0) < $4)
RETURNING epoch, server_state;
