-- Browser logins that are finished: each is finished once, on whichever node. Kept until its state is too old anyway.
CREATE TABLE finished_logins (
  nonce text PRIMARY KEY,
  finished_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX finished_logins_finished_at ON finished_logins (finished_at);
