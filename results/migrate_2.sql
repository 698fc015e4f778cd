-- From version 2: metrics folded to their last value, and what training tells. Foreign keys are not enforced meanwhile:
-- the rows of other tables refer to the metrics by ids, which stay. The later files of version 2 have the index.
CREATE TABLE metric_2 AS SELECT * FROM metric;
DROP TABLE metric;
CREATE TABLE metric (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    unit TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('counted', 'modelled', 'measured')),
    better TEXT NOT NULL CHECK (better IN ('lower', 'higher', 'neither')),
    fold TEXT NOT NULL CHECK (fold IN ('mean', 'total', 'median', 'last')),
    meaning TEXT NOT NULL
) STRICT;
INSERT INTO metric SELECT id, name, unit, kind, better, fold, meaning FROM metric_2;
DROP TABLE metric_2;
CREATE TABLE domain_loss (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    step INTEGER NOT NULL,
    domain TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    bits_per_byte REAL,
    PRIMARY KEY (run, step, domain)
) STRICT, WITHOUT ROWID;
CREATE TABLE specialisation (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    layer INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('domain', 'token')),
    subject TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    assigned TEXT NOT NULL,
    PRIMARY KEY (run, layer, kind, subject)
) STRICT, WITHOUT ROWID;
DROP INDEX IF EXISTS run_param_by_value;
CREATE INDEX IF NOT EXISTS run_param_by_router ON run_param (value) WHERE path = 'router';
