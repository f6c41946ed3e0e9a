-- An operator closes a breaker; the type can trip again under the same policy, on what happens after that.
ALTER TABLE breakers
    ADD COLUMN closed_by   text,
    ADD COLUMN closed_for  text,
    -- Null while it is open.
    ADD COLUMN closed_at   timestamptz,
    DROP CONSTRAINT breakers_pkey,
    ADD CONSTRAINT breakers_pkey PRIMARY KEY (type, policy_version, tripped_at);
CREATE UNIQUE INDEX breakers_one_open ON breakers (type, policy_version) WHERE closed_at IS NULL;
