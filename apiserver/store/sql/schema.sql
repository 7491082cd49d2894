-- name: create_schema_version
CREATE TABLE IF NOT EXISTS schema_version (
  component text NOT NULL,
  version integer NOT NULL,
  name text NOT NULL,
  sha256 text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  min_app integer NOT NULL DEFAULT 0,
  PRIMARY KEY (component, version)
);

-- name: applied
SELECT sha256 FROM schema_version WHERE component = $1 AND version = $2;

-- name: record
INSERT INTO schema_version (component, version, name, sha256, min_app) VALUES ($1, $2, $3, $4, $5);

-- name: exists
SELECT to_regclass('schema_version') IS NOT NULL;

-- name: level
SELECT coalesce(max(version) FILTER (WHERE component = 'apiserver'), 0) AS version,
       coalesce(max(min_app) FILTER (WHERE component = 'apiserver'), 0) AS min_app,
       current_setting('transaction_read_only')::boolean AS read_only
  FROM schema_version;
