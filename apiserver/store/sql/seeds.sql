-- name: user
INSERT INTO users (uuid, owner_uuid, email, first_name, last_name, is_admin, is_active, username)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING;

-- name: group
INSERT INTO groups (uuid, owner_uuid, name, description, group_class)
VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING;

-- name: link
INSERT INTO links (uuid, owner_uuid, link_class, name, tail_uuid, head_uuid)
VALUES ($1, $2, 'permission', 'can_read', $3, $4) ON CONFLICT DO NOTHING;

-- name: empty_collection
INSERT INTO collections (uuid, owner_uuid, name, portable_data_hash, manifest_text, current_version_uuid)
VALUES ($1, $2, 'empty collection', 'd41d8cd98f00b204e9800998ecf8427e+0', '', $1) ON CONFLICT DO NOTHING;

-- name: job
INSERT INTO periodic_job (name, every) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE
   SET every = excluded.every, next_at = least(periodic_job.next_at, clock_timestamp() + excluded.every)
 WHERE periodic_job.every <> excluded.every;

-- name: renumber
UPDATE logs SET xid = '3' WHERE xid >= pg_snapshot_xmax(pg_current_snapshot());
