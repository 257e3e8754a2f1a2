-- When the token got its successor: it gets one, or each would get successors of its own for ever.
alter table token add column rotated_at timestamptz;
