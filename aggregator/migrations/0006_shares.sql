-- Who first stated a call, and at which service a flow's events begin: what is bounded is bounded for each of them, too.
ALTER TABLE calls ADD COLUMN service text NOT NULL DEFAULT '';
ALTER TABLE flows ADD COLUMN entry text NOT NULL DEFAULT '';

-- What was one too many, of whom. Bounded by `EXCESSES_MAX`.
CREATE TABLE excesses (
    -- proxies, reporters, calls, types.
    what     text        NOT NULL,
    -- A service that used up its share; `namespace/*` where the namespace did, or where there is no room for anybody.
    who      text        NOT NULL,
    count    bigint      NOT NULL,
    -- The last proxy that was turned away, or whose report was cut; empty where nobody knows.
    proxy    text        NOT NULL,
    last_at  timestamptz NOT NULL,
    CONSTRAINT excesses_pkey PRIMARY KEY (what, who)
);
