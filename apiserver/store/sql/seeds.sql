-- Each of these looks before it inserts: an insertion that meets a row which somebody is changing waits for that
-- change, and a node must start while a transaction of a dead one is still open. Two that look at once both insert,
-- hence ON CONFLICT.

-- name: user
INSERT INTO users (uuid, owner_uuid, email, first_name, last_name, is_admin, is_active, username)
SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE NOT EXISTS (SELECT 1 FROM users WHERE uuid = $1)
    ON CONFLICT DO NOTHING;

-- name: group
INSERT INTO groups (uuid, owner_uuid, name, description, group_class)
SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS (SELECT 1 FROM groups WHERE uuid = $1)
    ON CONFLICT DO NOTHING;

-- name: link
INSERT INTO links (uuid, owner_uuid, link_class, name, tail_uuid, head_uuid)
SELECT $1, $2, 'permission', 'can_read', $3, $4
 WHERE NOT EXISTS (SELECT 1 FROM links WHERE link_class = 'permission' AND tail_uuid = $3 AND head_uuid = $4)
    ON CONFLICT DO NOTHING;

-- name: empty_collection
INSERT INTO collections (uuid, owner_uuid, name, portable_data_hash, manifest_text, current_version_uuid)
SELECT $1, $2, 'empty collection', 'd41d8cd98f00b204e9800998ecf8427e+0', '', $1
 WHERE NOT EXISTS (SELECT 1 FROM collections WHERE uuid = $1)
    ON CONFLICT DO NOTHING;

-- name: job
INSERT INTO periodic_job (name, every)
SELECT $1, $2 WHERE NOT EXISTS (SELECT 1 FROM periodic_job WHERE name = $1)
    ON CONFLICT DO NOTHING;

-- name: job_interval
UPDATE periodic_job SET every = $2, next_at = least(next_at, clock_timestamp() + $2)
 WHERE name = $1 AND every <> $2;

-- name: planted
SELECT EXISTS (SELECT 1 FROM collections WHERE uuid = $1) AND EXISTS (SELECT 1 FROM groups WHERE uuid = $2);

-- name: renumber
UPDATE logs SET xid = '3' WHERE xid >= pg_snapshot_xmax(pg_current_snapshot());
