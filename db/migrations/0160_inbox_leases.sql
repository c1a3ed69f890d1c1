-- An intake looks for new elements, then for those whose lease has run out the longest: both without walking the others.
-- locks: rlc_inbox SHARE while the indexes are built; open elements are few.

CREATE INDEX rlc_inbox_new ON rlc_inbox (inbox_id) WHERE state = 'new';
CREATE INDEX rlc_inbox_leased ON rlc_inbox (lease_expires, inbox_id) WHERE state = 'dispatched';
