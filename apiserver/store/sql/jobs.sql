-- name: claim
-- Take the right to run one due job: autocommit, one row or none. run_no is the fence of this run.
UPDATE periodic_job
   SET run_no = run_no + 1, started = clock_timestamp(),
       lease_until = clock_timestamp() + make_interval(secs => $2::double precision)
 WHERE name = $1 AND next_at <= clock_timestamp() AND (lease_until IS NULL OR lease_until < clock_timestamp())
RETURNING run_no, cursor;

-- name: fence
-- First statement of every batch: no row means that another run took over. Renews the lease.
UPDATE periodic_job SET lease_until = clock_timestamp() + make_interval(secs => $3::double precision)
 WHERE name = $1 AND run_no = $2 AND lease_until > clock_timestamp() RETURNING 1;

-- name: progress
UPDATE periodic_job SET cursor = $3::jsonb WHERE name = $1 AND run_no = $2;

-- name: done
-- The next slot on the grid: no drift, missed slots become one. Who asked for a run during this one gets another.
UPDATE periodic_job
   SET lease_until = NULL, finished = clock_timestamp(), cursor = NULL, last_error = $3, last_rows = $4,
       next_at = CASE WHEN next_at > started THEN next_at ELSE
                 next_at + (floor(extract(epoch FROM clock_timestamp() - next_at)
                                  / extract(epoch FROM every)) + 1) * every END
 WHERE name = $1 AND run_no = $2;

-- name: failed
-- Keep the slot, try again after a pause.
UPDATE periodic_job SET lease_until = clock_timestamp() + interval '5 seconds', last_error = $3
 WHERE name = $1 AND run_no = $2;

-- name: release
-- Hand the slot to another node at once.
UPDATE periodic_job SET lease_until = NULL WHERE name = $1 AND run_no = $2;

-- name: due
SELECT name FROM periodic_job
 WHERE name = ANY($1::text[]) AND next_at <= clock_timestamp()
   AND (lease_until IS NULL OR lease_until < clock_timestamp()) ORDER BY name;

-- name: run_now
UPDATE periodic_job SET next_at = clock_timestamp() WHERE name = $1 RETURNING run_no;

-- name: all
SELECT name, every, next_at, run_no, lease_until > clock_timestamp() AS running, started, finished, last_error,
       last_rows, next_at - clock_timestamp() AS next_in
  FROM periodic_job ORDER BY name;

-- name: finished_after
SELECT run_no > $2 AND lease_until IS NULL FROM periodic_job WHERE name = $1;

-- name: audit_bounds
-- Where old log rows begin, and the highest id that may be old: ids follow time nearly, the filter on time is exact.
SELECT (SELECT min(id) FROM logs) AS low,
       (SELECT id FROM logs WHERE created_at < $1 ORDER BY created_at DESC, uuid LIMIT 1) AS high;

-- name: audit_delete
DELETE FROM logs
 WHERE id >= $1 AND id < $2 AND created_at < $3 AND event_type IN ('create', 'update', 'destroy', 'delete');

-- name: container_log_delete
DELETE FROM logs WHERE id IN (
  SELECT l.id FROM logs l JOIN containers c ON c.uuid = l.object_uuid
   WHERE l.event_type IN ('stdout', 'stderr', 'arv-mount', 'crunch-run', 'crunchstat', 'hoststat', 'node',
                          'container', 'keepstore')
     AND c.log IS NOT NULL AND c.finished_at < clock_timestamp() - make_interval(secs => $1::double precision)
   ORDER BY l.id LIMIT $2 FOR UPDATE OF l SKIP LOCKED);

-- name: tokens_delete
DELETE FROM api_client_authorizations WHERE id IN (
  SELECT id FROM api_client_authorizations
   WHERE least(expires_at, refreshes_at) <= clock_timestamp() ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED);

-- name: logins_delete
DELETE FROM finished_logins WHERE nonce IN (
  SELECT nonce FROM finished_logins WHERE finished_at < clock_timestamp() - interval '1 hour'
   ORDER BY finished_at LIMIT $1 FOR UPDATE SKIP LOCKED);

-- name: keys_delete
DELETE FROM idempotency_keys WHERE (owner_uuid, key) IN (
  SELECT owner_uuid, key FROM idempotency_keys WHERE created_at < clock_timestamp() - interval '24 hours'
   ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED);

-- name: collections_due
-- Collections whose time came, without having been marked.
SELECT * FROM collections
 WHERE NOT is_trashed AND trash_at <= clock_timestamp() AND current_version_uuid = uuid
 ORDER BY trash_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED;

-- name: collections_gone
SELECT * FROM collections
 WHERE delete_at <= clock_timestamp() AND is_trashed AND current_version_uuid = uuid
 ORDER BY delete_at LIMIT $1 FOR UPDATE SKIP LOCKED;

-- name: mark_collection
UPDATE collections SET is_trashed = true WHERE current_version_uuid = $1;

-- name: groups_due
SELECT * FROM groups WHERE NOT is_trashed AND trash_at <= clock_timestamp() ORDER BY trash_at LIMIT $1
   FOR NO KEY UPDATE;

-- name: mark_group
UPDATE groups SET is_trashed = true WHERE uuid = $1;

-- name: groups_gone
-- Groups to be deleted, the innermost first.
SELECT g.* FROM groups g
 WHERE g.delete_at <= clock_timestamp() AND g.is_trashed ORDER BY g.delete_at LIMIT $1 FOR UPDATE;

-- name: inside
-- Group $1 and the projects below it, the innermost first.
WITH RECURSIVE down(uuid, depth) AS (
  SELECT $1::text, 0 UNION SELECT g.uuid, d.depth + 1 FROM groups g JOIN down d ON g.owner_uuid = d.uuid
)
SELECT uuid FROM down GROUP BY uuid ORDER BY max(depth) DESC;

-- name: links_of
DELETE FROM links WHERE head_uuid = $1 OR tail_uuid = $1
RETURNING *;
