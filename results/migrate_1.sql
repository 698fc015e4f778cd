-- From version 1: what a run remarks; traffic also by link, which takes a wider key. The views come after it.
ALTER TABLE run ADD COLUMN note TEXT;
ALTER TABLE traffic RENAME TO traffic_1;
CREATE TABLE traffic (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    source INTEGER NOT NULL,
    target INTEGER NOT NULL,
    unit TEXT NOT NULL CHECK (unit IN ('device', 'node', 'nvlink_out', 'nvlink_in', 'nic_out', 'nic_in', 'leaf_up',
                                       'leaf_down')),
    bytes REAL NOT NULL,
    PRIMARY KEY (run, source, target, unit)
) STRICT, WITHOUT ROWID;
INSERT INTO traffic SELECT run, source, target, unit, bytes FROM traffic_1;
DROP TABLE traffic_1;
