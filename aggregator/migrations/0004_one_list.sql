-- The decider's list holds what has news and what is to be looked at again without: an entry is taken when it is due.
ALTER TABLE intake
    ADD COLUMN news    boolean     NOT NULL DEFAULT true,
    ADD COLUMN due_at  timestamptz NOT NULL DEFAULT now(),
    -- No report that is the news is of an earlier time. Null where there is no new report.
    ADD COLUMN since   timestamptz;
ALTER TABLE intake ALTER COLUMN news DROP DEFAULT, ALTER COLUMN due_at DROP DEFAULT;
CREATE INDEX intake_by_time ON intake (due_at);
INSERT INTO intake (news, due_at, events)
    SELECT false, wake_at, array_agg(event) FROM events WHERE wake_at IS NOT NULL GROUP BY wake_at;

-- A row is made to be locked and written when it was looked at, in one transaction: only then it enters these indexes. When
-- to look at it again, which changes with every look, stands in none, so that it is written in place.
DROP INDEX events_to_wake, events_by_time, events_by_state, events_by_type, events_by_service;
ALTER TABLE events SET (fillfactor = 80);
CREATE INDEX events_by_time ON events (first_at, event) WHERE reports > 0;
CREATE INDEX events_by_state ON events (state, first_at, event) WHERE reports > 0 AND state <> 'succeeded';
CREATE INDEX events_by_type ON events (type, first_at, event) WHERE reports > 0;
CREATE INDEX events_by_service ON events USING gin (services) WHERE reports > 0;
