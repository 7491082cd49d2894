-- Tables of an API node. Times are timestamptz; every clock that decides something is this database's.

CREATE TABLE users (
  id bigserial PRIMARY KEY,
  uuid text NOT NULL UNIQUE,
  owner_uuid text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  modified_by_user_uuid text,
  modified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  email text,
  first_name text,
  last_name text,
  identity_url text UNIQUE,
  is_admin boolean NOT NULL DEFAULT false,
  prefs text NOT NULL DEFAULT '{}',
  is_active boolean NOT NULL DEFAULT false,
  username text UNIQUE,
  redirect_to_user_uuid text
);
CREATE INDEX users_email ON users (lower(email));

CREATE TABLE api_client_authorizations (
  id bigserial PRIMARY KEY,
  uuid text NOT NULL UNIQUE,
  user_uuid text NOT NULL REFERENCES users (uuid) ON DELETE CASCADE,
  api_token text NOT NULL UNIQUE,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  modified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  created_by_ip_address text,
  last_used_by_ip_address text,
  last_used_at timestamptz,
  expires_at timestamptz,
  refreshes_at timestamptz,
  scopes text NOT NULL DEFAULT '["all"]'
);
CREATE INDEX api_client_authorizations_user ON api_client_authorizations (user_uuid);
CREATE INDEX api_client_authorizations_expiry ON api_client_authorizations (least(expires_at, refreshes_at));

CREATE TABLE groups (
  id bigserial PRIMARY KEY,
  uuid text NOT NULL UNIQUE,
  owner_uuid text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  modified_by_user_uuid text,
  modified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  name text NOT NULL DEFAULT '',
  description text,
  group_class text NOT NULL,
  trash_at timestamptz,
  is_trashed boolean NOT NULL DEFAULT false,
  delete_at timestamptz,
  properties jsonb NOT NULL DEFAULT '{}',
  frozen_by_uuid text
);
CREATE UNIQUE INDEX groups_owner_name ON groups (owner_uuid, name) WHERE NOT is_trashed;
CREATE INDEX groups_owner ON groups (owner_uuid);
CREATE INDEX groups_trash_at ON groups (trash_at);
CREATE INDEX groups_delete_at ON groups (delete_at);
CREATE INDEX groups_modified ON groups (modified_at, uuid);
CREATE INDEX groups_frozen ON groups (uuid) WHERE frozen_by_uuid IS NOT NULL;

CREATE TABLE links (
  id bigserial PRIMARY KEY,
  uuid text NOT NULL UNIQUE,
  owner_uuid text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  modified_by_user_uuid text,
  modified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  tail_uuid text,
  link_class text NOT NULL DEFAULT '',
  name text NOT NULL DEFAULT '',
  head_uuid text,
  properties jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX links_tail ON links (tail_uuid);
CREATE INDEX links_head ON links (head_uuid);
CREATE INDEX links_owner ON links (owner_uuid);
CREATE INDEX links_modified ON links (modified_at, uuid);
-- One level a pair: what two nodes would insert at the same instant.
CREATE UNIQUE INDEX links_permission ON links (tail_uuid, head_uuid)
  WHERE link_class = 'permission' AND name IN ('can_read', 'can_write', 'can_manage');
CREATE UNIQUE INDEX links_can_login ON links (tail_uuid, head_uuid, coalesce(properties ->> 'username', ''))
  WHERE link_class = 'permission' AND name = 'can_login';
CREATE UNIQUE INDEX links_published_port ON links (name) WHERE link_class = 'published_port';

CREATE TABLE materialized_permissions (
  user_uuid text NOT NULL,
  target_uuid text NOT NULL,
  perm_level smallint NOT NULL,
  traverse_owned boolean NOT NULL,
  PRIMARY KEY (user_uuid, target_uuid)
);
CREATE INDEX materialized_permissions_target ON materialized_permissions (target_uuid, user_uuid);

CREATE TABLE trashed_groups (
  group_uuid text PRIMARY KEY,
  trash_at timestamptz NOT NULL
);

CREATE TABLE collections (
  id bigserial PRIMARY KEY,
  uuid text NOT NULL UNIQUE,
  owner_uuid text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  modified_by_user_uuid text,
  modified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  portable_data_hash text NOT NULL,
  replication_desired integer,
  replication_confirmed_at timestamptz,
  replication_confirmed integer,
  manifest_text text NOT NULL DEFAULT '',
  name text,
  description text,
  properties jsonb NOT NULL DEFAULT '{}',
  delete_at timestamptz,
  trash_at timestamptz,
  is_trashed boolean NOT NULL DEFAULT false,
  storage_classes_desired jsonb NOT NULL DEFAULT '["default"]',
  storage_classes_confirmed jsonb NOT NULL DEFAULT '[]',
  storage_classes_confirmed_at timestamptz,
  current_version_uuid text NOT NULL,
  version integer NOT NULL DEFAULT 1,
  preserve_version boolean NOT NULL DEFAULT false,
  file_count integer NOT NULL DEFAULT 0,
  file_size_total bigint NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX collections_owner_name ON collections (owner_uuid, name)
  WHERE NOT is_trashed AND current_version_uuid = uuid;
CREATE UNIQUE INDEX collections_version ON collections (current_version_uuid, version);
CREATE INDEX collections_owner ON collections (owner_uuid);
CREATE INDEX collections_pdh ON collections (portable_data_hash);
CREATE INDEX collections_modified ON collections (modified_at, uuid);
CREATE INDEX collections_trash_at ON collections (trash_at) WHERE NOT is_trashed;
CREATE INDEX collections_delete_at ON collections (delete_at);
CREATE INDEX collections_properties ON collections USING gin (properties);

CREATE TABLE logs (
  id bigserial PRIMARY KEY,
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  uuid text NOT NULL UNIQUE,
  owner_uuid text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  modified_by_user_uuid text,
  modified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  object_uuid text,
  object_owner_uuid text,
  event_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  event_type text,
  summary text,
  properties text NOT NULL DEFAULT '{}'
);
CREATE INDEX logs_order ON logs (xid, id);
CREATE INDEX logs_created_at ON logs (created_at, uuid);
CREATE INDEX logs_modified ON logs (modified_at, uuid);
CREATE INDEX logs_object ON logs (object_uuid);
CREATE INDEX logs_object_owner ON logs (object_owner_uuid);
CREATE INDEX logs_owner ON logs (owner_uuid);
ALTER TABLE logs SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

CREATE TABLE nodes (
  id bigserial PRIMARY KEY,
  uuid text NOT NULL UNIQUE,
  owner_uuid text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  modified_by_client_uuid text,
  modified_by_user_uuid text,
  modified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  slot_number integer UNIQUE,
  hostname text,
  domain text,
  ip_address text,
  first_ping_at timestamptz,
  last_ping_at timestamptz,
  info jsonb NOT NULL DEFAULT '{}',
  properties jsonb NOT NULL DEFAULT '{}',
  job_uuid text,
  dns_gen bigint NOT NULL DEFAULT 0
);
CREATE INDEX nodes_ip_address ON nodes (ip_address);
CREATE INDEX nodes_hostname ON nodes (hostname);

CREATE TABLE containers (
  id bigserial PRIMARY KEY,
  uuid text NOT NULL UNIQUE,
  owner_uuid text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  modified_by_user_uuid text,
  modified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  state text NOT NULL DEFAULT 'Queued',
  started_at timestamptz,
  finished_at timestamptz,
  log text,
  environment text NOT NULL DEFAULT '{}',
  cwd text NOT NULL DEFAULT '.',
  command text NOT NULL DEFAULT '[]',
  output_path text,
  mounts text NOT NULL DEFAULT '{}',
  runtime_constraints text NOT NULL DEFAULT '{}',
  output text,
  container_image text,
  progress double precision,
  priority bigint NOT NULL DEFAULT 0,
  exit_code integer,
  auth_uuid text,
  locked_by_uuid text,
  scheduling_parameters text NOT NULL DEFAULT '{}',
  secret_mounts jsonb NOT NULL DEFAULT '{}',
  secret_mounts_md5 text NOT NULL DEFAULT '99914b932bd37a50b983c5e7c90ae93b',
  runtime_status jsonb NOT NULL DEFAULT '{}',
  runtime_user_uuid text,
  runtime_auth_scopes text NOT NULL DEFAULT '["all"]',
  runtime_token text,
  lock_count integer NOT NULL DEFAULT 0,
  gateway_address text,
  interactive_session_started boolean NOT NULL DEFAULT false,
  output_storage_classes jsonb NOT NULL DEFAULT '["default"]',
  output_properties jsonb NOT NULL DEFAULT '{}',
  cost double precision NOT NULL DEFAULT 0,
  subrequests_cost double precision NOT NULL DEFAULT 0,
  output_glob text NOT NULL DEFAULT '[]',
  service boolean NOT NULL DEFAULT false,
  published_ports jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX containers_state ON containers (state, priority);
CREATE INDEX containers_auth ON containers (auth_uuid);
CREATE INDEX containers_reuse ON containers (md5(command), container_image);
CREATE INDEX containers_modified ON containers (modified_at, uuid);

CREATE TABLE container_requests (
  id bigserial PRIMARY KEY,
  uuid text NOT NULL UNIQUE,
  owner_uuid text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  modified_by_user_uuid text,
  modified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  name text,
  description text,
  properties jsonb NOT NULL DEFAULT '{}',
  state text NOT NULL DEFAULT 'Uncommitted',
  requesting_container_uuid text,
  container_uuid text,
  container_count_max integer,
  mounts text NOT NULL DEFAULT '{}',
  runtime_constraints text NOT NULL DEFAULT '{}',
  container_image text,
  environment text NOT NULL DEFAULT '{}',
  cwd text NOT NULL DEFAULT '.',
  command text NOT NULL DEFAULT '[]',
  output_path text,
  priority integer,
  expires_at timestamptz,
  filters text,
  container_count integer NOT NULL DEFAULT 0,
  use_existing boolean NOT NULL DEFAULT true,
  scheduling_parameters text NOT NULL DEFAULT '{}',
  output_uuid text,
  log_uuid text,
  output_name text,
  output_ttl integer NOT NULL DEFAULT 0,
  secret_mounts jsonb NOT NULL DEFAULT '{}',
  runtime_token text,
  output_storage_classes jsonb NOT NULL DEFAULT '["default"]',
  output_properties jsonb NOT NULL DEFAULT '{}',
  cumulative_cost double precision NOT NULL DEFAULT 0,
  output_glob text NOT NULL DEFAULT '[]',
  service boolean NOT NULL DEFAULT false,
  published_ports jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX container_requests_owner ON container_requests (owner_uuid);
CREATE INDEX container_requests_container ON container_requests (container_uuid);
CREATE INDEX container_requests_requesting ON container_requests (requesting_container_uuid);
CREATE INDEX container_requests_modified ON container_requests (modified_at, uuid);

CREATE TABLE workflows (
  id bigserial PRIMARY KEY,
  uuid text NOT NULL UNIQUE,
  owner_uuid text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  modified_by_user_uuid text,
  modified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  name text,
  description text,
  definition text,
  collection_uuid text
);
CREATE INDEX workflows_owner ON workflows (owner_uuid);
CREATE INDEX workflows_modified ON workflows (modified_at, uuid);

CREATE TABLE virtual_machines (
  id bigserial PRIMARY KEY,
  uuid text NOT NULL UNIQUE,
  owner_uuid text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  modified_by_user_uuid text,
  modified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  hostname text
);

CREATE TABLE keep_services (
  id bigserial PRIMARY KEY,
  uuid text NOT NULL UNIQUE,
  owner_uuid text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  modified_by_user_uuid text,
  modified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  service_host text,
  service_port integer,
  service_ssl_flag boolean,
  service_type text,
  read_only boolean NOT NULL DEFAULT false
);

CREATE TABLE authorized_keys (
  id bigserial PRIMARY KEY,
  uuid text NOT NULL UNIQUE,
  owner_uuid text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  modified_by_user_uuid text,
  modified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  name text,
  key_type text,
  authorized_user_uuid text,
  public_key text,
  expires_at timestamptz
);
CREATE INDEX authorized_keys_user ON authorized_keys (authorized_user_uuid);
CREATE UNIQUE INDEX authorized_keys_public_key ON authorized_keys (md5(public_key));

CREATE TABLE idempotency_keys (
  owner_uuid text NOT NULL,
  key text NOT NULL,
  request_hash text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  status smallint,
  body text,
  PRIMARY KEY (owner_uuid, key)
);
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);

CREATE TABLE periodic_job (
  name text PRIMARY KEY,
  every interval NOT NULL,
  next_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  run_no bigint NOT NULL DEFAULT 0,
  lease_until timestamptz,
  cursor jsonb,
  started timestamptz,
  finished timestamptz,
  last_error text,
  last_rows bigint
);

-- Who is one step from whom. Objects that are neither users nor groups follow their owner and need no edge.
CREATE VIEW permission_edges AS
  SELECT owner_uuid AS tail, uuid AS head, 3::smallint AS level FROM groups
  UNION ALL
  SELECT tail_uuid, head_uuid,
         (CASE name WHEN 'can_manage' THEN 3 WHEN 'can_write' THEN 2 ELSE 1 END)::smallint
    FROM links
   WHERE link_class = 'permission' AND name IN ('can_read', 'can_login', 'can_write', 'can_manage');

-- Whether a project or one above it is frozen.
CREATE FUNCTION is_frozen(project text) RETURNS boolean LANGUAGE sql STABLE AS $$
  WITH RECURSIVE up(uuid, owner_uuid, frozen) AS (
    SELECT g.uuid, g.owner_uuid, g.frozen_by_uuid IS NOT NULL FROM groups g WHERE g.uuid = project
    UNION
    SELECT g.uuid, g.owner_uuid, g.frozen_by_uuid IS NOT NULL FROM groups g JOIN up ON g.uuid = up.owner_uuid
  )
  SELECT coalesce(bool_or(frozen), false) FROM up
$$;

-- The highest designation that a ping came with; an older balancer's pings are refused.
CREATE TABLE designation_seen (
  name text PRIMARY KEY,
  epoch bigint NOT NULL
);
