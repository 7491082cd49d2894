-- name: refresh_edge
-- Recompute what one changed edge can change: $1 its head, $2 the highest level it had or has, $3 its tails.
-- Targets are what the head leads to; users are those that reach a tail. Rows of other targets cannot have changed,
-- so they seed the search. The caller holds the PERMISSIONS lock.
WITH RECURSIVE reached(uuid, level) AS (
  SELECT $1::text, $2::smallint
  UNION
  SELECT e.head, least(r.level, e.level)::smallint
    FROM reached r JOIN permission_edges e ON e.tail = r.uuid
   WHERE substring(r.uuid, 7, 5) <> 'tpzed' OR r.level = 3
), targets AS MATERIALIZED (
  SELECT DISTINCT uuid FROM reached
), affected AS MATERIALIZED (
  SELECT DISTINCT user_uuid FROM materialized_permissions WHERE target_uuid = ANY($3::text[]) AND traverse_owned
), search(user_uuid, target_uuid, level) AS (
  (
    SELECT p.user_uuid, e.head, least(p.perm_level, e.level)::smallint
      FROM targets t
      JOIN permission_edges e ON e.head = t.uuid
      JOIN materialized_permissions p ON p.target_uuid = e.tail AND p.traverse_owned
      JOIN affected a ON a.user_uuid = p.user_uuid
     WHERE NOT EXISTS (SELECT 1 FROM targets inside WHERE inside.uuid = e.tail)
    UNION
    SELECT a.user_uuid, a.user_uuid, 3::smallint FROM affected a JOIN targets t ON t.uuid = a.user_uuid
  )
  UNION
  SELECT s.user_uuid, e.head, least(s.level, e.level)::smallint
    FROM search s
    JOIN permission_edges e ON e.tail = s.target_uuid
    JOIN targets t ON t.uuid = e.head
   WHERE substring(s.target_uuid, 7, 5) <> 'tpzed' OR s.level = 3 OR s.target_uuid = s.user_uuid
), best AS MATERIALIZED (
  SELECT user_uuid, target_uuid, max(level)::smallint AS level FROM search GROUP BY user_uuid, target_uuid
), gone AS (
  DELETE FROM materialized_permissions p USING targets t, affected a
   WHERE p.target_uuid = t.uuid AND p.user_uuid = a.user_uuid
     AND NOT EXISTS (SELECT 1 FROM best b WHERE b.user_uuid = p.user_uuid AND b.target_uuid = p.target_uuid)
)
INSERT INTO materialized_permissions AS p (user_uuid, target_uuid, perm_level, traverse_owned)
SELECT user_uuid, target_uuid, level,
       substring(target_uuid, 7, 5) <> 'tpzed' OR level = 3
  FROM best
    ON CONFLICT (user_uuid, target_uuid) DO UPDATE
   SET perm_level = excluded.perm_level, traverse_owned = excluded.traverse_owned
 WHERE p.perm_level <> excluded.perm_level OR p.traverse_owned <> excluded.traverse_owned;

-- name: refresh_all
-- Recompute everything from the edges, writing only what differs.
WITH RECURSIVE search(user_uuid, target_uuid, level) AS (
  SELECT uuid, uuid, 3::smallint FROM users
  UNION
  SELECT s.user_uuid, e.head, least(s.level, e.level)::smallint
    FROM search s JOIN permission_edges e ON e.tail = s.target_uuid
   WHERE substring(s.target_uuid, 7, 5) <> 'tpzed' OR s.level = 3 OR s.target_uuid = s.user_uuid
), best AS MATERIALIZED (
  SELECT user_uuid, target_uuid, max(level)::smallint AS level FROM search GROUP BY user_uuid, target_uuid
), gone AS (
  DELETE FROM materialized_permissions p
   WHERE NOT EXISTS (SELECT 1 FROM best b WHERE b.user_uuid = p.user_uuid AND b.target_uuid = p.target_uuid)
)
INSERT INTO materialized_permissions AS p (user_uuid, target_uuid, perm_level, traverse_owned)
SELECT user_uuid, target_uuid, level, substring(target_uuid, 7, 5) <> 'tpzed' OR level = 3
  FROM best
    ON CONFLICT (user_uuid, target_uuid) DO UPDATE
   SET perm_level = excluded.perm_level, traverse_owned = excluded.traverse_owned
 WHERE p.perm_level <> excluded.perm_level OR p.traverse_owned <> excluded.traverse_owned;

-- name: add_user
-- A user manages itself.
INSERT INTO materialized_permissions (user_uuid, target_uuid, perm_level, traverse_owned)
VALUES ($1, $1, 3, true) ON CONFLICT DO NOTHING;

-- name: forget_target
DELETE FROM materialized_permissions WHERE target_uuid = $1;

-- name: owner_level
-- What user $1 may do with things owned by $2: its level, and whether $2 is below a frozen project.
SELECT (SELECT coalesce(max(perm_level), 0) FROM materialized_permissions
         WHERE user_uuid = $1 AND target_uuid = $2 AND traverse_owned) AS level,
       is_frozen($2) AS frozen,
       EXISTS (SELECT 1 FROM users WHERE uuid = $2)
         OR EXISTS (SELECT 1 FROM groups WHERE uuid = $2 AND group_class = 'project') AS may_own,
       EXISTS (SELECT 1 FROM trashed_groups WHERE group_uuid = $2 AND trash_at <= statement_timestamp()) AS trashed;

-- name: target_level
SELECT coalesce(max(perm_level), 0) FROM materialized_permissions WHERE user_uuid = $1 AND target_uuid = $2;

-- name: above
-- The projects that hold $1, itself first.
WITH RECURSIVE up(uuid, owner_uuid) AS (
  SELECT uuid, owner_uuid FROM groups WHERE uuid = $1
  UNION
  SELECT g.uuid, g.owner_uuid FROM groups g JOIN up ON g.uuid = up.owner_uuid
)
SELECT uuid FROM up;

-- name: refresh_trash
-- Bring trashed_groups up to date for group $1 and all below it.
WITH RECURSIVE down(uuid, trash_at) AS (
  SELECT g.uuid, least(g.trash_at, (SELECT t.trash_at FROM trashed_groups t WHERE t.group_uuid = g.owner_uuid))
    FROM groups g WHERE g.uuid = $1
  UNION
  SELECT g.uuid, least(g.trash_at, d.trash_at) FROM groups g JOIN down d ON g.owner_uuid = d.uuid
), gone AS (
  DELETE FROM trashed_groups t USING down d WHERE t.group_uuid = d.uuid AND d.trash_at IS NULL
)
INSERT INTO trashed_groups (group_uuid, trash_at)
SELECT uuid, trash_at FROM down WHERE trash_at IS NOT NULL
    ON CONFLICT (group_uuid) DO UPDATE SET trash_at = excluded.trash_at;
