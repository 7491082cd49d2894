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
SELECT d.node_uuid, d.gen AS dirty_gen, d.released, d.attempts, h.facts, h.gen, h.removed, h.missing, lease.has_sending
FROM (
  SELECT EXISTS (SELECT FROM dns_sending WHERE target = $1) AS has_sending FROM dns_lease
  WHERE target = $1 AND epoch = $4 AND until > clock_timestamp()
) AS lease LEFT JOIN (
  SELECT * FROM dns_dirty WHERE target = $1 AND not_before <= (SELECT clock_timestamp()) AND (state <> 'held' OR released)
    AND NOT $3::jsonb ? node_uuid
  ORDER BY not_before, since LIMIT $2
) AS d ON true LEFT JOIN LATERAL (SELECT * FROM dns_hosts WHERE uuid = d.node_uuid OFFSET 0) AS h ON true
ORDER BY d.not_before, d.since;

-- name: known_at
-- All contributions at the names that these hosts have or want, and at names that are unsure; what is unsure there, without
-- data; names that are to be taken over, without a type. Many keys come as lines of one text here and below: an array of
-- them is checked key by key at both ends.
WITH touched AS MATERIALIZED (
  SELECT zone, name FROM dns_published WHERE target = $1 AND node_uuid = ANY(string_to_array($2, E'\n'))
  UNION SELECT split_part(place, E'\t', 1), split_part(place, E'\t', 2) FROM string_to_table($3, E'\n') AS place
  UNION (SELECT zone, name FROM dns_unsure WHERE target = $1 GROUP BY zone, name ORDER BY zone, name LIMIT $4)
)
SELECT p.* FROM touched CROSS JOIN LATERAL (  -- a look at the index for each, however large the table
  SELECT zone, name, rdtype, rdata, ttl, node_uuid, gen, shared, yields FROM dns_published
  WHERE target = $1 AND zone = touched.zone AND name = touched.name OFFSET 0
) AS p
UNION ALL SELECT u.*, NULL, NULL, NULL, NULL, NULL, NULL FROM touched CROSS JOIN LATERAL (
  SELECT zone, name, rdtype FROM dns_unsure WHERE target = $1 AND zone = touched.zone AND name = touched.name OFFSET 0
) AS u
UNION ALL SELECT zone, name, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM dns_adopted WHERE target = $1;

-- name: counts
-- For the brake.
SELECT (SELECT count(DISTINCT node_uuid) FROM dns_published WHERE target = $1) AS published,
       (SELECT count(*) FROM dns_dirty WHERE target = $1 AND state = 'held' AND NOT released) AS held;

-- name: note_sending
-- Before a message leaves: its record sets may be changed from now on. No row: the lease is over.
WITH lease AS (
  UPDATE dns_lease SET until = clock_timestamp() + make_interval(secs => $4)
  WHERE target = $1 AND epoch = $2 AND until > clock_timestamp() RETURNING 1
)
INSERT INTO dns_sending (target, record_sets) SELECT $1, $3 FROM lease RETURNING id;

-- name: note_ahead
-- The same while another batch is on its way, which renews the lease when it is booked. Both would want the lease's row
-- for themselves, and a note keeps it until the disk has answered.
INSERT INTO dns_sending (target, record_sets) SELECT $1, $3 FROM dns_lease
WHERE target = $1 AND epoch = $2 AND until > clock_timestamp() RETURNING id;

-- name: note_lost
-- Nothing is on its way: what was noted as such may have been applied or not.
WITH lost AS (DELETE FROM dns_sending WHERE target = $1 RETURNING record_sets)
INSERT INTO dns_unsure (target, zone, name, rdtype)
SELECT $1, split_part(one, E'\t', 1), split_part(one, E'\t', 2), split_part(one, E'\t', 3)
FROM lost CROSS JOIN string_to_table(lost.record_sets, E'\n') AS one
ON CONFLICT DO NOTHING;

-- name: note_unsure
-- dns_published may be wrong about these.
INSERT INTO dns_unsure (target, zone, name, rdtype) SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[])
ON CONFLICT DO NOTHING;

-- name: forget_unsure
-- The server has told. As arrays and not as a join: these tables are empty, then full, and the planner, who believes that
-- they are small, compared every key with every row.
DELETE FROM dns_unsure WHERE target = $1 AND zone = ANY($2::text[]) AND name = ANY($3::text[])
  AND concat_ws(' ', zone, name, rdtype) = ANY($4::text[]);

-- name: forget_sending
-- The answers have told.
DELETE FROM dns_sending WHERE target = $1 AND id = ANY($2::bigint[]);

-- name: book
-- What most batches come to: new names, all of them confirmed. Does not wait for the disk. No row: the lease is over.
-- The gens are a subquery, which is evaluated once: their text would be taken apart for every row that is compared.
WITH lease AS (
  UPDATE dns_lease SET until = clock_timestamp() + make_interval(secs => $3)
  WHERE target = $1 AND epoch = $2 AND until > clock_timestamp() RETURNING set_config('synchronous_commit', 'off', true)
), made AS (
  INSERT INTO dns_published (target, zone, name, rdtype, rdata, ttl, node_uuid, gen, shared, yields)
  SELECT $1, split_part(new, E'\t', 1), split_part(new, E'\t', 2), split_part(new, E'\t', 3), split_part(new, E'\t', 4),
    split_part(new, E'\t', 5)::int, split_part(new, E'\t', 6), split_part(new, E'\t', 7)::bigint,
    split_part(new, E'\t', 8)::bool, split_part(new, E'\t', 9)::bool
  FROM lease, string_to_table($4, E'\n') AS new
), answered AS (
  DELETE FROM dns_sending WHERE EXISTS (SELECT FROM lease) AND target = $1 AND id = ANY($5::bigint[])
), cleaned AS (
  DELETE FROM dns_dirty WHERE EXISTS (SELECT FROM lease) AND target = $1
    AND node_uuid = ANY(string_to_array($6, E'\n')) AND gen = ANY(ARRAY(SELECT string_to_table($7, E'\n')::bigint))
), traced AS (
  INSERT INTO dns_messages (target, zone, hosts, message_id, epoch, holder, sent_at, answered_at, rcode)
  SELECT $1, t.zone, string_to_array(t.hosts, E'\n'), t.message_id, $2, $8,
    clock_timestamp() - make_interval(secs => t.seconds), clock_timestamp(), t.rcode
  FROM lease, unnest($9::text[], $10::text[], $11::int[], $12::float8[], $13::text[])
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
-- All that is unsure in a zone, or on its way to it.
SELECT zone, name, rdtype FROM dns_unsure WHERE target = $1 AND zone = $2
UNION SELECT $2, split_part(one, E'\t', 2), split_part(one, E'\t', 3)
FROM dns_sending CROSS JOIN string_to_table(record_sets, E'\n') AS one WHERE target = $1 AND split_part(one, E'\t', 1) = $2;

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
