-- Multiplies what the aggregator wrote. A copy is every row of the seed once more, at another time and under other ids.
CREATE SCHEMA seed;
CREATE TABLE seed.reports AS SELECT * FROM public.reports WHERE event IS NOT NULL;
CREATE TABLE seed.events AS SELECT * FROM public.events;
CREATE TABLE seed.decisions AS SELECT * FROM public.decisions;
CREATE TABLE seed.revisions AS SELECT * FROM public.decision_revisions;
CREATE TABLE seed.evidence AS SELECT * FROM public.decision_evidence;
ANALYZE seed.reports, seed.events, seed.decisions, seed.revisions, seed.evidence;

-- The id of a copy: one that is ordered by time (UUIDv7) gets the copy's time, any other becomes another random one.
CREATE FUNCTION seed.id(id text, ms bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN substr(id, 15, 1) = '7'
        THEN substr(lpad(to_hex(ms), 12, '0'), 1, 8) || '-' || substr(lpad(to_hex(ms), 12, '0'), 9) || substr(id, 14)
        ELSE overlay(md5(id || ms)::uuid::text PLACING '4' FROM 15 FOR 1) END
$$;

-- Copy number `copy` begins so many days ago, at a moment from 0 (midnight) to 1 (the next, or now). Sequences are shifted,
-- for a day has each of a reporter's once.
CREATE PROCEDURE seed.multiply(copy bigint, days_ago int, moment float8) LANGUAGE plpgsql AS $$
DECLARE
    midnight timestamptz := date_trunc('day', now(), 'UTC');
    length interval := CASE WHEN days_ago = 0 THEN now() - midnight ELSE interval '1 day' END;
    begins timestamptz := midnight - days_ago * interval '1 day' + (length - interval '1 minute') * moment;
    shift interval := begins - (SELECT min(at) FROM seed.reports);
    stamp bigint := (extract(epoch FROM begins) * 1000)::bigint;
    seqs bigint := copy * 1000000;
BEGIN
    INSERT INTO public.reports (reporter, seq, at, received, sent, call, ms, kind, status, outbound, borrowed, event,
            word, grpc, attempt, due_ms, flags, opened, rest)
        SELECT r.reporter, r.seq + seqs, r.at + shift, r.received + shift, r.sent + shift, r.call, r.ms, r.kind, r.status,
            r.outbound, r.borrowed, seed.id(r.event, stamp), r.word, r.grpc, r.attempt, r.due_ms, r.flags,
            r.opened + seqs, r.rest
        FROM seed.reports r;
    INSERT INTO public.events (event, type, state, borrowed, shared, entry, services, failed, decision, first_at,
            last_at, last_received, reports, wake_at, learned)
        -- What is minutes old waits for nothing any more.
        SELECT seed.id(event, stamp), type, state, borrowed, shared, entry, services, failed, seed.id(decision, stamp),
            first_at + shift, last_at + shift, last_received + shift, reports, NULL, learned
        FROM seed.events;
    INSERT INTO public.decisions (id, event, type, revision, state, mode, failed, policy_version, flow_version,
            decided_at, revised_at, body)
        SELECT seed.id(id, stamp), seed.id(event, stamp), type, revision, state, mode, failed, policy_version, flow_version,
            decided_at + shift, revised_at + shift, body
        FROM seed.decisions;
    INSERT INTO public.decision_revisions (decision, revision, at, body)
        SELECT seed.id(decision, stamp), revision, at + shift, body FROM seed.revisions;
    INSERT INTO public.decision_evidence (decision, reporter, seq, service, proxy, received)
        SELECT seed.id(decision, stamp), reporter, seq + seqs, service, proxy, received + shift FROM seed.evidence;
END
$$;
