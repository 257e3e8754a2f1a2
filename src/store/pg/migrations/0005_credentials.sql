-- The time of the rotation: a token has at most one successor, otherwise several successors would
-- rotate for ever.
alter table token add column rotated_at timestamptz;
