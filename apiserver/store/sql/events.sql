-- name: horizon
-- The lowest transaction that may still commit: everything below it is decided. And how long the oldest waits.
SELECT (pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1) AS xid,
       coalesce((SELECT extract(epoch FROM clock_timestamp() - min(created_at)) FROM logs
                  WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())), 0)::double precision AS lag_s;

-- name: after
-- Events after a position, in the order that all nodes agree on, as far as it is decided.
SELECT xid::text::bigint AS xid, id, uuid, owner_uuid, object_uuid, object_owner_uuid, event_type, event_at,
       created_at, properties
  FROM logs
 WHERE (xid, id) > ($1::bigint::text::xid8, $2::bigint) AND xid < pg_snapshot_xmin(pg_current_snapshot())
 ORDER BY xid, id LIMIT $3;

-- name: between
-- Events after one position up to another one, of the last ten minutes.
SELECT xid::text::bigint AS xid, id, uuid, owner_uuid, object_uuid, object_owner_uuid, event_type, event_at,
       created_at, properties
  FROM logs
 WHERE (xid, id) > ($1::bigint::text::xid8, $2::bigint) AND (xid, id) <= ($3::bigint::text::xid8, $4::bigint)
   AND created_at > clock_timestamp() - interval '10 minutes'
 ORDER BY xid, id LIMIT $5;

-- name: position_of
-- Where a client is that has seen log row $1; no row when it has been cleaned up.
SELECT xid::text::bigint AS xid, id FROM logs WHERE id = $1;

-- name: entitled
-- Which of the users may know of which events, by the permissions of this moment.
SELECT e.n, u.uuid
  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS e(object_uuid, object_owner_uuid, n)
 CROSS JOIN unnest($3::text[]) AS u(uuid)
 WHERE EXISTS (SELECT 1 FROM materialized_permissions p
                WHERE p.user_uuid = u.uuid AND p.perm_level >= 1
                  AND (p.target_uuid = e.object_uuid OR (p.target_uuid = e.object_owner_uuid AND p.traverse_owned)))
    OR EXISTS (SELECT 1 FROM container_requests r
                 JOIN materialized_permissions p ON p.user_uuid = u.uuid
                  AND (p.target_uuid = r.uuid OR (p.target_uuid = r.owner_uuid AND p.traverse_owned))
                WHERE substring(e.object_uuid, 7, 5) = 'dz642' AND r.container_uuid = e.object_uuid);

-- name: viewers
-- Of tokens $1 those that are still good, each with its user of this moment.
SELECT a.uuid AS token, u.uuid, u.is_admin
  FROM api_client_authorizations a JOIN users u ON u.uuid = a.user_uuid
 WHERE a.uuid = ANY($1::text[]) AND u.redirect_to_user_uuid IS NULL AND (u.is_active OR u.is_admin)
   AND (a.expires_at IS NULL OR a.expires_at > statement_timestamp())
   AND (a.refreshes_at IS NULL OR a.refreshes_at > statement_timestamp());

-- name: nudge
SELECT pg_notify('arv_api_logs', '');
