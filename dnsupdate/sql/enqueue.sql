-- name: unchanged
-- Of these hosts, those that need no write at all: same facts, alive, and their ping time was noted a short while ago.
SELECT h.uuid FROM dns_hosts h JOIN unnest($1::text[], $2::jsonb[]) AS new(uuid, facts) ON new.uuid = h.uuid
WHERE h.facts = new.facts AND NOT h.removed AND NOT h.missing
  AND h.last_ping_at > clock_timestamp() - interval '60 seconds';

-- name: lock_changes
-- All changes of hosts are in one order. Taken after the caller's own row locks and held until its commit.
SELECT pg_advisory_xact_lock(19523, 2136);

-- name: old_facts
-- What is stored, read under the lock.
SELECT uuid, facts ->> 'hostname' AS hostname, gen FROM dns_hosts WHERE uuid = ANY($1::text[]);

-- name: upsert
-- An older source time than the stored one is dropped. A host whose facts are the same only gets its ping time noted.
INSERT INTO dns_hosts AS h (uuid, facts, source_time)
VALUES ($1, $2, coalesce($3::timestamptz, clock_timestamp()))
ON CONFLICT (uuid) DO UPDATE SET
  facts = excluded.facts, last_ping_at = clock_timestamp(), source_time = excluded.source_time,
  removed = false, missing = false,
  gen = CASE WHEN h.facts = excluded.facts AND NOT h.removed AND NOT h.missing THEN h.gen ELSE excluded.gen END,
  changed_at = CASE WHEN h.facts = excluded.facts AND NOT h.removed AND NOT h.missing
                    THEN h.changed_at ELSE clock_timestamp() END
WHERE h.source_time <= excluded.source_time
RETURNING gen;

-- name: clear_addresses
-- The newest ping with an address has it: other hosts lose it.
UPDATE dns_hosts SET gen = nextval('dns_gen'), changed_at = clock_timestamp(),
  facts = jsonb_set(facts, '{ips}', coalesce(
    (SELECT jsonb_agg(ip) FROM jsonb_array_elements_text(facts -> 'ips') AS ip WHERE ip <> ALL($2::text[])), '[]'))
WHERE uuid <> $1 AND facts -> 'ips' ?| $2::text[]
RETURNING uuid, gen;

-- name: bury
-- Keep an old host name as an absent host, so that its templates can keep or replace what was published.
INSERT INTO dns_hosts AS h (uuid, facts, removed)
SELECT 'was:' || $1::text, jsonb_build_object('hostname', $1::text, 'domain', $2::text, 'ips', '[]'::jsonb), true
WHERE NOT EXISTS (SELECT FROM dns_hosts o WHERE o.facts ->> 'hostname' = $1 AND NOT o.removed)
ON CONFLICT (uuid) DO UPDATE SET gen = excluded.gen, changed_at = clock_timestamp()
RETURNING uuid, gen;

-- name: remove
-- The facts stay: a template may keep or replace what was published of them.
UPDATE dns_hosts SET removed = true, gen = nextval('dns_gen'), changed_at = clock_timestamp(),
  source_time = coalesce($2::timestamptz, clock_timestamp())
WHERE uuid = ANY($1::text[]) AND NOT removed AND source_time <= coalesce($2::timestamptz, clock_timestamp())
RETURNING uuid, gen;

-- name: mark_dirty
-- One row a host and target, whatever happened before: the newest state is what will be sent.
INSERT INTO dns_dirty (target, node_uuid, gen)
SELECT l.target, changed.uuid, changed.gen FROM dns_lease l, unnest($1::text[], $2::bigint[]) AS changed(uuid, gen)
ON CONFLICT (target, node_uuid) DO UPDATE SET
  gen = excluded.gen, not_before = '-infinity', state = 'pending', released = false, attempts = 0, last_error = NULL;

-- name: states
-- For node records.
SELECT node_uuid, target, state, gen, extract(epoch FROM clock_timestamp() - since)::float8 AS age_s, attempts, last_error
FROM dns_host_states WHERE node_uuid = ANY($1::text[]) ORDER BY node_uuid, target;

-- name: nudge
-- A hint; the senders poll.
NOTIFY dns;
