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
-- What is to be looked at now: what was never put off, oldest first, then the rest by its time. That is the order of the
-- index, so a long queue is not read as a whole for each batch. Hosts that are being worked on are the keys of an object,
-- in which one is found without comparing it with all. No row: the lease is over; a row without a host: there is nothing.
SELECT d.node_uuid, d.gen AS dirty_gen, d.released, d.attempts, h.facts, h.gen, h.removed, h.missing
FROM (SELECT FROM dns_lease WHERE target = $1 AND epoch = $4 AND until > clock_timestamp()) AS lease LEFT JOIN (
  SELECT * FROM dns_dirty WHERE target = $1 AND not_before <= (SELECT clock_timestamp()) AND (state <> 'held' OR released)
    AND NOT $3::jsonb ? node_uuid
  ORDER BY not_before, since LIMIT $2
) AS d ON true LEFT JOIN LATERAL (SELECT * FROM dns_hosts WHERE uuid = d.node_uuid OFFSET 0) AS h ON true
ORDER BY d.not_before, d.since;

-- name: published_at
-- All contributions at the names that these hosts have or want, and at names that are unsure.
WITH unsure AS (
  SELECT zone, name FROM dns_unsure WHERE target = $1 GROUP BY zone, name ORDER BY zone, name LIMIT $5
), touched AS MATERIALIZED (
  SELECT zone, name FROM dns_published WHERE target = $1 AND node_uuid = ANY($2::text[])
  UNION SELECT * FROM unnest($3::text[], $4::text[])
  UNION SELECT zone, name FROM unsure
)
SELECT p.* FROM touched CROSS JOIN LATERAL (  -- a look at the index for each, however large the table
  SELECT zone, name, rdtype, rdata, ttl, node_uuid, gen, shared, yields FROM dns_published
  WHERE target = $1 AND zone = touched.zone AND name = touched.name OFFSET 0
) AS p;

-- name: doubts_at
-- What may be wrong about those names, and about some others; without a type, names that are to be taken over.
WITH touched AS MATERIALIZED (
  SELECT zone, name FROM dns_published WHERE target = $1 AND node_uuid = ANY($2::text[])
  UNION SELECT * FROM unnest($3::text[], $4::text[])
  UNION (SELECT zone, name FROM dns_unsure WHERE target = $1 GROUP BY zone, name ORDER BY zone, name LIMIT $5)
)
SELECT zone, name, NULL AS rdtype FROM dns_adopted WHERE target = $1
UNION ALL SELECT u.* FROM touched CROSS JOIN LATERAL (
  SELECT zone, name, rdtype FROM dns_unsure WHERE target = $1 AND zone = touched.zone AND name = touched.name OFFSET 0
) AS u;

-- name: counts
-- For the brake.
SELECT (SELECT count(DISTINCT node_uuid) FROM dns_published WHERE target = $1) AS published,
       (SELECT count(*) FROM dns_dirty WHERE target = $1 AND state = 'held' AND NOT released) AS held;

-- name: note_unsure
-- Before a message leaves: its record sets may be changed from now on. Returns those that were not unsure before, and a
-- row without a zone as long as the lease holds.
WITH lease AS (
  UPDATE dns_lease SET until = clock_timestamp() + make_interval(secs => $6)
  WHERE target = $1 AND epoch = $5 AND until > clock_timestamp() RETURNING 1
), noted AS (
  INSERT INTO dns_unsure (target, zone, name, rdtype)
  SELECT $1, new.* FROM lease, unnest($2::text[], $3::text[], $4::text[]) AS new ON CONFLICT DO NOTHING
  RETURNING zone, name, rdtype
)
SELECT zone, name, rdtype FROM noted UNION ALL SELECT NULL, NULL, NULL FROM lease;

-- name: forget_unsure
-- The server has told. As arrays and not as a join: these tables are empty, then full, and the planner, who believes that
-- they are small, compared every key with every row.
DELETE FROM dns_unsure WHERE target = $1 AND zone = ANY($2::text[]) AND name = ANY($3::text[])
  AND concat_ws(' ', zone, name, rdtype) = ANY($4::text[]);

-- name: book
-- What most batches come to: new names, all of them confirmed. Does not wait for the disk. No row: the lease is over.
WITH lease AS (
  UPDATE dns_lease SET until = clock_timestamp() + make_interval(secs => $3)
  WHERE target = $1 AND epoch = $2 AND until > clock_timestamp() RETURNING set_config('synchronous_commit', 'off', true)
), made AS (
  INSERT INTO dns_published (target, zone, name, rdtype, rdata, ttl, node_uuid, gen, shared, yields)
  SELECT $1, new.* FROM lease, unnest(
    $4::text[], $5::text[], $6::text[], $7::text[], $8::int[], $9::text[], $10::bigint[], $11::bool[], $12::bool[]) AS new
  ON CONFLICT DO NOTHING
), sure AS (
  DELETE FROM dns_unsure WHERE EXISTS (SELECT FROM lease) AND target = $1 AND zone = ANY($13::text[])
    AND name = ANY($14::text[]) AND concat_ws(' ', zone, name, rdtype) = ANY($15::text[])
), cleaned AS (
  DELETE FROM dns_dirty
  WHERE EXISTS (SELECT FROM lease) AND target = $1 AND node_uuid = ANY($16::text[]) AND gen = ANY($17::bigint[])
), traced AS (
  INSERT INTO dns_messages (target, zone, hosts, message_id, epoch, holder, sent_at, answered_at, rcode)
  SELECT $1, t.zone, ARRAY(SELECT jsonb_array_elements_text(t.hosts::jsonb)), t.message_id, $2, $18,
    clock_timestamp() - make_interval(secs => t.seconds), clock_timestamp(), t.rcode
  FROM lease, unnest($19::text[], $20::text[], $21::int[], $22::float8[], $23::text[])
    AS t(zone, hosts, message_id, seconds, rcode)
)
SELECT 1 FROM lease;

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
-- Done, unless the host changed meanwhile: no two changes have the same gen.
DELETE FROM dns_dirty WHERE target = $1 AND node_uuid = ANY($2::text[]) AND gen = ANY($3::bigint[]);

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
