-- name: user
SELECT uuid, is_admin, is_active FROM users WHERE uuid = $1 AND redirect_to_user_uuid IS NULL;

-- name: links
SELECT * FROM links WHERE tail_uuid = $1 OR head_uuid = $1 ORDER BY id FOR NO KEY UPDATE;

-- name: same_link
-- The permission link that would be in the way of one from $1 to $2: levels share a place, logins have one a name.
SELECT * FROM links
 WHERE link_class = 'permission' AND tail_uuid = $1 AND head_uuid = $2
   AND CASE WHEN $3 = 'can_login' THEN name = 'can_login' AND properties ->> 'username' IS NOT DISTINCT FROM
                                       $4::jsonb ->> 'username'
            ELSE name <> 'can_login' END;

-- name: raise_link
UPDATE links SET name = $2, modified_at = clock_timestamp() WHERE uuid = $1 RETURNING *;

-- name: move_link
UPDATE links SET tail_uuid = $2, head_uuid = $3, modified_at = clock_timestamp() WHERE uuid = $1 RETURNING *;

-- name: tokens
UPDATE api_client_authorizations SET user_uuid = $2 WHERE user_uuid = $1;

-- name: keys
UPDATE authorized_keys SET authorized_user_uuid = $2 WHERE authorized_user_uuid = $1;

-- name: followers
-- Users that were merged with this one before.
UPDATE users SET redirect_to_user_uuid = $2 WHERE redirect_to_user_uuid = $1;

-- name: redirect
UPDATE users SET redirect_to_user_uuid = $2 WHERE uuid = $1;

-- name: any_owned
SELECT EXISTS (SELECT 1 FROM groups WHERE uuid = ANY($1::text[]) AND owner_uuid = $2);
