-- name: refresh_priorities
-- Recompute the priorities of containers $1 and of all that their processes asked for. The caller holds PRIORITIES.
-- A request of a user counts by its own priority, the older first; one of a container counts as that container.
WITH RECURSIVE tree(uuid) AS (
  SELECT unnest($1::text[])
  UNION
  SELECT r.container_uuid FROM container_requests r JOIN tree t ON r.requesting_container_uuid = t.uuid
   WHERE r.state = 'Committed' AND r.container_uuid IS NOT NULL
), live AS MATERIALIZED (
  SELECT r.container_uuid, r.requesting_container_uuid, r.priority, r.created_at
    FROM container_requests r JOIN tree t ON t.uuid = r.container_uuid
   WHERE r.state = 'Committed' AND r.priority > 0
     AND NOT EXISTS (SELECT 1 FROM trashed_groups g
                      WHERE g.group_uuid = r.owner_uuid AND g.trash_at <= clock_timestamp())
), ranked(uuid, priority) AS (
  SELECT l.container_uuid,
         CASE WHEN l.requesting_container_uuid IS NULL
              THEN l.priority::bigint * 1125899906842624 - floor(extract(epoch FROM l.created_at) * 1000)::bigint
              ELSE p.priority END
    FROM live l LEFT JOIN containers p ON p.uuid = l.requesting_container_uuid
   WHERE l.requesting_container_uuid IS NULL
      OR (p.priority > 0 AND NOT EXISTS (SELECT 1 FROM tree inside WHERE inside.uuid = p.uuid))
  UNION
  SELECT l.container_uuid, k.priority FROM ranked k JOIN live l ON l.requesting_container_uuid = k.uuid
), best AS (
  SELECT t.uuid, coalesce(max(k.priority), 0) AS priority
    FROM tree t LEFT JOIN ranked k ON k.uuid = t.uuid GROUP BY t.uuid
)
UPDATE containers c SET priority = b.priority, modified_at = clock_timestamp()
  FROM best b
 WHERE c.uuid = b.uuid AND c.priority <> b.priority AND c.state IN ('Queued', 'Locked', 'Running');

-- name: unfinished
SELECT uuid FROM containers WHERE state IN ('Queued', 'Locked', 'Running');

-- name: of_owner
-- Containers asked for by requests in project $1 and all below it.
WITH RECURSIVE down(uuid) AS (
  SELECT $1::text UNION SELECT g.uuid FROM groups g JOIN down d ON g.owner_uuid = d.uuid
)
SELECT DISTINCT r.container_uuid AS uuid FROM container_requests r JOIN down d ON r.owner_uuid = d.uuid
 WHERE r.state = 'Committed' AND r.container_uuid IS NOT NULL;

-- name: reusable
-- The best container that does the same: finished well first, then the furthest along.
SELECT c.* FROM containers c
 WHERE md5(c.command) = md5($1) AND c.command = $1 AND c.cwd = $2 AND c.environment::jsonb = $3::jsonb
   AND c.output_path = $4 AND c.container_image = $5 AND c.mounts::jsonb = $6::jsonb
   AND c.runtime_constraints::jsonb = $7::jsonb AND c.secret_mounts_md5 = $8 AND c.output_glob = $9
   AND c.service = $10
   AND (c.state IN ('Queued', 'Locked', 'Running') OR (c.state = 'Complete' AND c.exit_code = 0
        AND (SELECT count(*) FROM collections k WHERE k.portable_data_hash = c.output AND NOT k.is_trashed) > 0
        AND (SELECT count(*) FROM collections k WHERE k.portable_data_hash = c.log AND NOT k.is_trashed) > 0))
   AND NOT coalesce(c.runtime_status ? 'error' AND c.state <> 'Complete', false)
 ORDER BY CASE c.state WHEN 'Complete' THEN 0 WHEN 'Running' THEN 1 WHEN 'Locked' THEN 2 ELSE 3 END,
          c.priority DESC, c.progress DESC NULLS LAST, c.created_at
 LIMIT 1 FOR NO KEY UPDATE;

-- name: requests_of
SELECT * FROM container_requests WHERE container_uuid = $1 AND state = 'Committed' ORDER BY uuid FOR NO KEY UPDATE;

-- name: children_of
SELECT r.*, c.state AS container_state FROM container_requests r LEFT JOIN containers c ON c.uuid = r.container_uuid
 WHERE r.requesting_container_uuid = $1 AND r.state = 'Committed' ORDER BY r.uuid FOR NO KEY UPDATE OF r;

-- name: may_retry
-- Whether a request whose container was cancelled gets another one.
SELECT r.priority > 0 AND r.container_count < coalesce(r.container_count_max, $2)
   AND NOT EXISTS (SELECT 1 FROM trashed_groups g
                    WHERE g.group_uuid = r.owner_uuid AND g.trash_at <= clock_timestamp())
   AND (r.requesting_container_uuid IS NULL OR EXISTS (
        SELECT 1 FROM containers p WHERE p.uuid = r.requesting_container_uuid AND p.state = 'Running'
           AND p.priority > 0))
  FROM container_requests r WHERE r.uuid = $1;

-- name: expire_token
UPDATE api_client_authorizations SET expires_at = clock_timestamp() WHERE uuid = $1;

-- name: image_by_name
-- The collection of a docker image by repository and tag, the newest first.
SELECT c.portable_data_hash FROM links l JOIN collections c ON c.uuid = l.head_uuid AND NOT c.is_trashed
 WHERE l.link_class = 'docker_image_repo+tag' AND l.name = $1
 ORDER BY coalesce(l.properties ->> 'image_timestamp', ''), l.created_at DESC LIMIT 1;
