-- name: lock_migrations
-- One migration at a time, whoever runs it: API nodes apply these files too, under the same lock and in the same table.
SELECT pg_advisory_xact_lock(1095915073, 1);

-- name: create_schema_version
-- As API nodes make it.
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
-- The content of a step that was applied.
SELECT sha256 FROM schema_version WHERE component = 'dnsupdate' AND version = $1;

-- name: record
-- A step was applied.
INSERT INTO schema_version (component, version, name, sha256) VALUES ('dnsupdate', $1, $2, $3);
