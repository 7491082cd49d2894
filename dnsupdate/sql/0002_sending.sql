-- What a batch on its way may change, from before its messages leave until their answers are booked: one row a batch and
-- not one a record set. While a target's sender has nothing on its way, a row here is of messages that were lost.
CREATE TABLE IF NOT EXISTS dns_sending (
  id bigserial PRIMARY KEY,
  target text NOT NULL,
  record_sets text NOT NULL  -- a line each: zone, name and type, with tabs between
);
