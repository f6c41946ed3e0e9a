-- The whole state of Kaeru. Any number of aggregators share it; none keeps state of its own.

-- One row: which store this is, and how far the feed came.
CREATE TABLE store (
    only_one  boolean     CONSTRAINT store_pkey PRIMARY KEY DEFAULT true,
    -- First part of the feed's epoch; the rest is Postgres' own system identifier and timeline.
    id        text        NOT NULL DEFAULT substr(md5(random()::text || clock_timestamp()::text), 1, 8),
    -- The last feed sequence given. Its row lock, held to commit, makes sequence order commit order.
    feed_seq  bigint      NOT NULL DEFAULT 0,
    CONSTRAINT store_only_one CHECK (only_one)
);
INSERT INTO store DEFAULT VALUES;

-- Every aggregator that was ever here lately, and when it last could commit.
CREATE TABLE aggregators (
    id        bigint      NOT NULL,
    alive_at  timestamptz NOT NULL,
    -- It said goodbye.
    has_left  boolean     NOT NULL DEFAULT false,
    CONSTRAINT aggregators_pkey PRIMARY KEY (id)
);

-- Times in which reports could not be taken, by Kaeru's own fault: no evidence against anybody.
CREATE TABLE outages (
    since  timestamptz NOT NULL,
    until  timestamptz NOT NULL,
    CONSTRAINT outages_pkey PRIMARY KEY (since)
);

-- One VM of one proxy.
CREATE TABLE reporters (
    id           bigint      NOT NULL,
    proxy        text        NOT NULL,
    service      text        NOT NULL,
    gateway      boolean     NOT NULL,
    first_heard  timestamptz NOT NULL,
    last_heard   timestamptz NOT NULL,
    -- By its proxy's last status: the last sequence it gave out, and what it dropped in all.
    marked_seq   bigint      NOT NULL DEFAULT 0,
    marked_at    timestamptz,
    dropped      bigint      NOT NULL DEFAULT 0,
    -- Sequences that never came.
    missing      bigint      NOT NULL DEFAULT 0,
    -- Up to here its sequences were checked for gaps, as they stood at that time.
    checked_seq  bigint      NOT NULL DEFAULT 0,
    checked_at   timestamptz NOT NULL,
    CONSTRAINT reporters_pkey PRIMARY KEY (id)
);
CREATE INDEX reporters_by_proxy ON reporters (proxy);

-- What attempts have in common: a report points here instead of repeating it. Empty is absent. Bounded by
-- CALLS_MAX.
CREATE TABLE calls (
    id          integer GENERATED ALWAYS AS IDENTITY CONSTRAINT calls_pkey PRIMARY KEY,
    caller      text NOT NULL,
    callee      text NOT NULL,
    method      text NOT NULL,
    path        text NOT NULL,
    event_type  text NOT NULL,
    -- The last day that a report pointed here (as of its receipt).
    used        date NOT NULL,
    CONSTRAINT calls_once UNIQUE (caller, callee, method, path, event_type)
);

-- Facts, never changed. One partition per UTC day of `at`, each with a unique index on (reporter, seq):
-- the day, the reporter and the sequence make delivery exactly once in effect.
CREATE TABLE reports (
    reporter  bigint      NOT NULL,
    seq       bigint      NOT NULL,
    at        timestamptz NOT NULL,
    received  timestamptz NOT NULL,
    sent      timestamptz,
    call      integer,
    ms        integer     NOT NULL,
    -- In the order of kaeru_protocol::Kind; 100 is a proxy's status.
    kind      smallint    NOT NULL,
    status    smallint,
    outbound  boolean     NOT NULL,
    borrowed  boolean     NOT NULL,
    -- Null for a proxy's status.
    event     text COLLATE "C",
    -- From here on null costs nothing, and mostly is.
    word      smallint,
    grpc      smallint,
    attempt   integer,
    due_ms    integer,
    flags     bigint,
    opened    bigint,
    -- What is rare: progress, cost, deadline_s, decision, detail; or the proxy's status.
    rest      jsonb
) PARTITION BY RANGE (at);
CREATE INDEX reports_event ON reports (event) WHERE event IS NOT NULL;

-- The decider's durable to-do list, written in the transaction of the reports.
CREATE TABLE intake (
    id      bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT intake_pkey PRIMARY KEY,
    events  text[] NOT NULL
);

-- What was made of the reports of one event, last time they were looked at.
CREATE TABLE events (
    event          text COLLATE "C" NOT NULL,
    type           text,
    state          text        NOT NULL,
    borrowed       boolean     NOT NULL,
    shared         boolean     NOT NULL DEFAULT false,
    entry          text,
    services       text[]      NOT NULL DEFAULT '{}',
    failed         text,
    decision       text,
    first_at       timestamptz NOT NULL,
    last_at        timestamptz NOT NULL,
    last_received  timestamptz NOT NULL,
    reports        bigint      NOT NULL DEFAULT 0,
    -- When the decider looks again without a new report.
    wake_at        timestamptz,
    -- Its flow has been learned from it.
    learned        boolean     NOT NULL DEFAULT false,
    CONSTRAINT events_pkey PRIMARY KEY (event),
    CONSTRAINT events_state CHECK (state IN
        ('running', 'succeeded', 'failed', 'abandoned', 'rolling_back', 'rolled_back', 'rollback_stuck'))
);
CREATE INDEX events_by_time ON events (first_at, event);
CREATE INDEX events_by_state ON events (state, first_at, event);
CREATE INDEX events_by_type ON events (type, first_at, event);
CREATE INDEX events_by_service ON events USING gin (services);
CREATE INDEX events_to_wake ON events (wake_at) WHERE wake_at IS NOT NULL;

-- That an event must be rolled back, and why. Kept longer than reports.
CREATE TABLE decisions (
    id              text COLLATE "C" NOT NULL,
    event           text COLLATE "C" NOT NULL,
    type            text,
    revision        integer     NOT NULL,
    state           text        NOT NULL,
    mode            text        NOT NULL,
    failed          text,
    policy_version  bigint      NOT NULL,
    flow_version    bigint,
    decided_at      timestamptz NOT NULL,
    revised_at      timestamptz NOT NULL,
    -- kaeru_flow's decision in full.
    body            jsonb       NOT NULL,
    withdrawn_by    text,
    withdrawn_for   text,
    withdrawn_at    timestamptz,
    CONSTRAINT decisions_pkey PRIMARY KEY (id),
    CONSTRAINT decisions_state CHECK (state IN ('live', 'contested', 'withdrawn')),
    CONSTRAINT decisions_mode CHECK (mode IN ('off', 'shadow', 'enforce'))
);
CREATE UNIQUE INDEX decisions_one_live ON decisions (event) WHERE state <> 'withdrawn';
CREATE INDEX decisions_by_event ON decisions (event);
CREATE INDEX decisions_by_time ON decisions (decided_at, id);
CREATE INDEX decisions_by_type ON decisions (type, decided_at, id);

-- What each revision said.
CREATE TABLE decision_revisions (
    decision  text COLLATE "C" NOT NULL CONSTRAINT decision_revisions_decision
                  REFERENCES decisions (id) ON DELETE CASCADE,
    revision  integer     NOT NULL,
    at        timestamptz NOT NULL,
    body      jsonb       NOT NULL,
    CONSTRAINT decision_revisions_pkey PRIMARY KEY (decision, revision)
);

-- The newest verdict of each event, in the order of commits. A newer one moves its row to the end, so reading
-- from 0 is the snapshot.
CREATE TABLE feed (
    event       text COLLATE "C" NOT NULL,
    seq         bigint      NOT NULL,
    decision    text        NOT NULL,
    type        text,
    verdict     text        NOT NULL,
    mode        text        NOT NULL,
    failed      text,
    told_at     timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    CONSTRAINT feed_pkey PRIMARY KEY (event),
    CONSTRAINT feed_seq_once UNIQUE (seq),
    CONSTRAINT feed_verdict CHECK (verdict IN ('proceed', 'roll_back'))
);
CREATE INDEX feed_expiry ON feed (expires_at);

-- The newest version is in force.
CREATE TABLE policies (
    version  bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT policies_pkey PRIMARY KEY,
    yaml     text        NOT NULL,
    at       timestamptz NOT NULL
);

-- What was learned of the events of one type, in sums: learning is addition. Bounded by TYPES_MAX.
CREATE TABLE flows (
    type       text        NOT NULL,
    version    bigint      NOT NULL,
    events     bigint      NOT NULL,
    succeeded  bigint      NOT NULL,
    failed     bigint      NOT NULL,
    abandoned  bigint      NOT NULL,
    doomed     bigint      NOT NULL,
    last_at    timestamptz NOT NULL,
    CONSTRAINT flows_pkey PRIMARY KEY (type)
);

-- What one service did in them.
CREATE TABLE flow_steps (
    type              text   NOT NULL CONSTRAINT flow_steps_flow REFERENCES flows (type) ON DELETE CASCADE,
    peer              text   NOT NULL,
    events            bigint NOT NULL,
    attempts          bigint NOT NULL,
    failed            bigint NOT NULL,
    failed_undecided  bigint NOT NULL,
    failed_whole      bigint NOT NULL,
    total_ms          bigint NOT NULL,
    timed             bigint NOT NULL,
    CONSTRAINT flow_steps_pkey PRIMARY KEY (type, peer)
);

-- Who called whom in them.
CREATE TABLE flow_edges (
    type       text   NOT NULL CONSTRAINT flow_edges_flow REFERENCES flows (type) ON DELETE CASCADE,
    -- Empty at the entry.
    caller     text   NOT NULL,
    callee     text   NOT NULL,
    method     text   NOT NULL,
    path       text   NOT NULL,
    count      bigint NOT NULL,
    positions  bigint NOT NULL,
    CONSTRAINT flow_edges_pkey PRIMARY KEY (type, caller, callee, method, path)
);

-- The last that each proxy said of itself, and its counts since it was first seen.
CREATE TABLE proxies (
    proxy            text        NOT NULL,
    service          text        NOT NULL,
    gateway          boolean     NOT NULL,
    first_heard      timestamptz NOT NULL,
    last_heard       timestamptz NOT NULL,
    -- Null until it stated its status.
    status_at        timestamptz,
    -- It says something again before this, or is out of touch.
    due_at           timestamptz,
    status           jsonb,
    succeeded        bigint      NOT NULL DEFAULT 0,
    rejected         bigint      NOT NULL DEFAULT 0,
    failed           bigint      NOT NULL DEFAULT 0,
    unknown          bigint      NOT NULL DEFAULT 0,
    refused          bigint      NOT NULL DEFAULT 0,
    possible_splits  bigint      NOT NULL DEFAULT 0,
    invalid_ids      bigint      NOT NULL DEFAULT 0,
    dropped          bigint      NOT NULL DEFAULT 0,
    CONSTRAINT proxies_pkey PRIMARY KEY (proxy)
);
CREATE INDEX proxies_by_service ON proxies (service);
CREATE INDEX proxies_by_promise ON proxies (due_at);

-- Reports that were lost on the way, by gap or by the reporter's own count.
CREATE TABLE losses (
    reporter  bigint      NOT NULL,
    service   text        NOT NULL,
    since     timestamptz NOT NULL,
    until     timestamptz NOT NULL,
    lost      bigint      NOT NULL,
    CONSTRAINT losses_pkey PRIMARY KEY (reporter, until)
);
CREATE INDEX losses_by_time ON losses (until);

-- Event types that too many events of were doomed at once; their mode is at most shadow until the policy
-- changes or an operator closes the breaker.
CREATE TABLE breakers (
    type            text        NOT NULL,
    policy_version  bigint      NOT NULL,
    tripped_at      timestamptz NOT NULL,
    doomed          bigint      NOT NULL,
    CONSTRAINT breakers_pkey PRIMARY KEY (type, policy_version)
);
