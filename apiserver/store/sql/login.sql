-- name: now
SELECT floor(extract(epoch FROM clock_timestamp()))::bigint;

-- name: use
-- Use nonce $1 of a login begun at $2: no row when it was used, or when it is older than $3 seconds.
INSERT INTO finished_logins (nonce)
SELECT $1 WHERE extract(epoch FROM clock_timestamp()) - $2::bigint <= $3::bigint
    ON CONFLICT DO NOTHING RETURNING 1;

-- name: user
-- The user with identity $1, else one with address $2 that has no identity yet; a merged one leads to its successor.
SELECT coalesce(s.uuid, u.uuid) AS uuid, coalesce(s.identity_url, u.identity_url) AS identity_url
  FROM users u LEFT JOIN users s ON s.uuid = u.redirect_to_user_uuid
 WHERE u.identity_url = $1 OR (u.identity_url IS NULL AND lower(u.email) = lower($2))
 ORDER BY u.identity_url = $1 DESC NULLS LAST, u.redirect_to_user_uuid NULLS FIRST, u.id LIMIT 1;

-- name: expiry
SELECT clock_timestamp() + make_interval(secs => $1::double precision);

-- name: stored_token
SELECT 1 FROM api_client_authorizations WHERE uuid = $1;
