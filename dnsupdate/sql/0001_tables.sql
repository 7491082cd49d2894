-- Hosts, what is to be sent, what was sent, who sends. All times are the database's.

CREATE SEQUENCE IF NOT EXISTS dns_gen;

-- The facts of each host, as its newest ping gave them. gen: one sequence for all, so it also orders claims on a name.
CREATE TABLE IF NOT EXISTS dns_hosts (
  uuid text PRIMARY KEY,
  facts jsonb NOT NULL,
  gen bigint NOT NULL DEFAULT nextval('dns_gen'),
  removed boolean NOT NULL DEFAULT false,
  missing boolean NOT NULL DEFAULT false,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  last_ping_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  source_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS dns_hosts_ips ON dns_hosts USING gin ((facts -> 'ips'));
CREATE INDEX IF NOT EXISTS dns_hosts_hostname ON dns_hosts ((facts ->> 'hostname'));
CREATE INDEX IF NOT EXISTS dns_hosts_last_ping ON dns_hosts (last_ping_at) WHERE NOT removed AND NOT missing;

-- One row a target: who may send to it, until when, and the number of the fence that goes with that right.
CREATE TABLE IF NOT EXISTS dns_lease (
  target text PRIMARY KEY,
  kind text NOT NULL DEFAULT 'rfc2136',
  holder text,
  epoch bigint NOT NULL DEFAULT 0,
  until timestamptz NOT NULL DEFAULT '-infinity',
  server_state jsonb NOT NULL DEFAULT '{}'
);

-- At most one row a host and target: the host is to be looked at, whatever happened to it since.
CREATE TABLE IF NOT EXISTS dns_dirty (
  target text NOT NULL,
  node_uuid text NOT NULL,
  gen bigint NOT NULL,
  since timestamptz NOT NULL DEFAULT clock_timestamp(),
  attempts integer NOT NULL DEFAULT 0,
  not_before timestamptz NOT NULL DEFAULT '-infinity',
  state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'conflict', 'failed', 'held')),
  released boolean NOT NULL DEFAULT false,
  last_error text,
  PRIMARY KEY (target, node_uuid)
);
CREATE INDEX IF NOT EXISTS dns_dirty_due ON dns_dirty (target, not_before, since);

-- What the server has been told and has confirmed, by the host that it is there for.
CREATE TABLE IF NOT EXISTS dns_published (
  target text NOT NULL,
  zone text NOT NULL,
  name text NOT NULL,
  rdtype text NOT NULL,
  rdata text NOT NULL,
  ttl integer NOT NULL,
  node_uuid text NOT NULL,
  gen bigint NOT NULL,
  shared boolean NOT NULL DEFAULT false,
  yields boolean NOT NULL DEFAULT false,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (target, zone, name, rdtype, rdata, node_uuid)
);
CREATE INDEX IF NOT EXISTS dns_published_node ON dns_published (target, node_uuid);

-- Record sets about which dns_published may be wrong: a message with them is on its way, or was lost on it.
CREATE TABLE IF NOT EXISTS dns_unsure (
  target text NOT NULL,
  zone text NOT NULL,
  name text NOT NULL,
  rdtype text NOT NULL,
  PRIMARY KEY (target, zone, name, rdtype)
);

-- Names that an operator told us to take over from somebody else.
CREATE TABLE IF NOT EXISTS dns_adopted (
  target text NOT NULL,
  zone text NOT NULL,
  name text NOT NULL,
  PRIMARY KEY (target, zone, name)
);

-- The last messages, for `dns trace`. One row a message and not a host: a batch has 250.
CREATE TABLE IF NOT EXISTS dns_messages (
  id bigserial PRIMARY KEY,
  target text NOT NULL,
  zone text NOT NULL,
  hosts text[] NOT NULL,
  message_id integer NOT NULL,
  epoch bigint NOT NULL,
  holder text NOT NULL,
  sent_at timestamptz NOT NULL,
  answered_at timestamptz NOT NULL,
  rcode text NOT NULL
);

-- What an operator should know, newest last.
CREATE TABLE IF NOT EXISTS dns_events (
  id bigserial PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  target text NOT NULL,
  kind text NOT NULL,
  text text NOT NULL
);

-- The state of each host at each target. A host that only waits has the trouble of its target.
CREATE OR REPLACE VIEW dns_host_states AS
SELECT h.uuid AS node_uuid, l.target, h.gen,
       CASE WHEN d.state = 'pending'
             AND l.server_state #>> '{error,kind}' IN ('refused', 'key', 'clock', 'zone', 'unable') THEN 'failed'
            ELSE coalesce(d.state, 'published') END AS state,
       coalesce(d.since, h.changed_at) AS since, coalesce(d.attempts, 0) AS attempts, d.not_before,
       CASE WHEN d.node_uuid IS NOT NULL THEN coalesce(d.last_error, l.server_state #>> '{error,text}') END AS last_error
FROM dns_hosts h CROSS JOIN dns_lease l
LEFT JOIN dns_dirty d ON d.target = l.target AND d.node_uuid = h.uuid;
