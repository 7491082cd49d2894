-- name: token
-- $1 the token's uuid or null, $2 the secrets it may be stored under.
SELECT a.uuid, a.api_token, a.scopes, a.user_uuid, u.is_admin, u.is_active
  FROM api_client_authorizations a
  JOIN users u ON u.uuid = a.user_uuid
 WHERE ($1::text IS NULL OR a.uuid = $1)
   AND ($1::text IS NOT NULL OR a.api_token = ANY($2::text[]))
   AND (a.expires_at IS NULL OR a.expires_at > statement_timestamp())
   AND (a.refreshes_at IS NULL OR a.refreshes_at > statement_timestamp())
   AND u.redirect_to_user_uuid IS NULL
 LIMIT 1;

-- name: container_of_token
SELECT uuid FROM containers
 WHERE uuid = $1 AND (auth_uuid = $2 OR runtime_token = $3) AND state IN ('Locked', 'Running');

-- name: current_container
SELECT uuid FROM containers WHERE auth_uuid = $1 AND state IN ('Locked', 'Running') LIMIT 1;
