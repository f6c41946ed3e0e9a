-- How far the store's clock is ahead of a reporter's: the least time, ms, that one of its batches seemed to take.
-- Null until it sent one.
ALTER TABLE reporters ADD COLUMN clock_ms bigint;
-- By its proxy's last status it had fallen silent.
ALTER TABLE reporters ADD COLUMN marked_gone boolean NOT NULL DEFAULT false;
-- Since when its proxy no longer names it at all.
ALTER TABLE reporters ADD COLUMN gone_at timestamptz;
