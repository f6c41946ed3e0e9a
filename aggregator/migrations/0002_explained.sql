-- An operator closes a breaker; the type can trip again under the same policy, on what happens after that.
ALTER TABLE breakers
    ADD COLUMN closed_by   text,
    ADD COLUMN closed_for  text,
    -- Null while it is open.
    ADD COLUMN closed_at   timestamptz,
    DROP CONSTRAINT breakers_pkey,
    ADD CONSTRAINT breakers_pkey PRIMARY KEY (type, policy_version, tripped_at);
CREATE UNIQUE INDEX breakers_one_open ON breakers (type, policy_version) WHERE closed_at IS NULL;

-- Who stated the reports that a decision rests on: kept as long as the decision, longer than reports.
CREATE TABLE decision_evidence (
    decision  text COLLATE "C" NOT NULL CONSTRAINT decision_evidence_decision
                  REFERENCES decisions (id) ON DELETE CASCADE,
    reporter  bigint      NOT NULL,
    seq       bigint      NOT NULL,
    service   text        NOT NULL,
    proxy     text        NOT NULL,
    received  timestamptz NOT NULL,
    CONSTRAINT decision_evidence_pkey PRIMARY KEY (decision, reporter, seq)
);
