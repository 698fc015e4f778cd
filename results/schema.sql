-- moesim.db, version 3. The tables, which may change with user_version; other tools rely on the views of views.sql. A
-- not-a-number is NULL. Hashes are 16 hexadecimal digits.

-- A study: one configuration without its seeds.
CREATE TABLE study (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    config TEXT NOT NULL,  -- JSON
    created TEXT NOT NULL  -- ISO 8601, UTC
) STRICT;

-- A run: one resolved point of a study. It is here with all its figures, or not at all.
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    study INTEGER NOT NULL REFERENCES study ON DELETE CASCADE,
    hash TEXT NOT NULL,
    point INTEGER NOT NULL, -- its place in the study, from 0
    seed INTEGER NOT NULL,
    pairing TEXT NOT NULL,  -- hash of every parameter but the router's and the seed
    state TEXT NOT NULL CHECK (state IN ('done', 'failed')),
    reason TEXT,            -- of a failure
    note TEXT,              -- what people should know of a run that is done
    params TEXT NOT NULL,   -- JSON: every resolved parameter
    -- provenance
    version TEXT,
    revision TEXT,
    compiler TEXT,
    cpu TEXT,
    blas TEXT,
    kernel_path TEXT,
    threads INTEGER,
    files TEXT,             -- JSON: {"path": "hash"}
    workload TEXT,          -- which data it was
    started TEXT,           -- ISO 8601, UTC
    seconds REAL,
    row_hash TEXT NOT NULL, -- over all but reason, note, provenance and measured figures
    UNIQUE (study, hash)
) STRICT;
CREATE INDEX run_by_pairing ON run (study, pairing, seed);

-- params unpacked: 'router.capacity_factor' and so on; 'router', 'workload', 'cluster', 'placement' hold the whole spec.
CREATE TABLE run_param (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    path TEXT NOT NULL,
    value TEXT NOT NULL,
    number REAL, -- NULL for a word
    PRIMARY KEY (run, path)
) STRICT, WITHOUT ROWID;
-- Of routers alone: an index of every path would be written in as many places as a run has parameters.
CREATE INDEX run_param_by_router ON run_param (value) WHERE path = 'router';

-- The metrics that this file knows; ids differ between files, names do not.
CREATE TABLE metric (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    unit TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('counted', 'modelled', 'measured')),
    better TEXT NOT NULL CHECK (better IN ('lower', 'higher', 'neither')),
    fold TEXT NOT NULL CHECK (fold IN ('mean', 'total', 'median', 'last')),
    meaning TEXT NOT NULL
) STRICT;

-- A metric over the steps of one layer, or (layer NULL) over steps and layers; value is the figure of v_runs.
CREATE TABLE summary (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    layer INTEGER,
    metric INTEGER NOT NULL REFERENCES metric,
    value REAL,
    mean REAL,
    std REAL,
    min REAL,
    p50 REAL,
    p95 REAL,
    max REAL,
    n INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX summary_by_run ON summary (run, metric, ifnull(layer, -1));

-- Every value of the metrics that the study records.
CREATE TABLE series (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    step INTEGER NOT NULL,
    layer INTEGER NOT NULL,
    metric INTEGER NOT NULL REFERENCES metric,
    value REAL,
    PRIMARY KEY (run, metric, layer, step)
) STRICT, WITHOUT ROWID;

-- Pairs per expert over a window of steps: before capacity and after it, as JSON arrays by expert.
CREATE TABLE expert_load (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    window INTEGER NOT NULL,
    layer INTEGER NOT NULL,
    first_step INTEGER NOT NULL,
    n_steps INTEGER NOT NULL,
    assigned TEXT NOT NULL,
    kept TEXT NOT NULL,
    PRIMARY KEY (run, window, layer)
) STRICT, WITHOUT ROWID;

-- Bytes of dispatch and combine over the run, from source to target. unit says what the ends are: device to device up
-- to 128 devices, node to node above. The same bytes again by link, where a run has at most 4096 devices: device to its
-- node (nvlink_out), node to device (nvlink_in), device to its leaf switch (nic_out) and back (nic_in); and, with several
-- leaf switches, leaf to spine 0 (leaf_up) and back (leaf_down).
CREATE TABLE traffic (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    source INTEGER NOT NULL,
    target INTEGER NOT NULL,
    unit TEXT NOT NULL CHECK (unit IN ('device', 'node', 'nvlink_out', 'nvlink_in', 'nic_out', 'nic_in', 'leaf_up',
                                       'leaf_down')),
    bytes REAL NOT NULL,
    PRIMARY KEY (run, source, target, unit)
) STRICT, WITHOUT ROWID;

-- Mode train: the held-out text of each domain, by the step of the validation.
CREATE TABLE domain_loss (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    step INTEGER NOT NULL,
    domain TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    bits_per_byte REAL,
    PRIMARY KEY (run, step, domain)
) STRICT, WITHOUT ROWID;

-- Mode train: where the last validation sent the tokens of a domain, and the appearances of each of the most frequent
-- token ids (subject is what the token stands for); assigned is a JSON array of pairs by expert, before capacity.
CREATE TABLE specialisation (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    layer INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('domain', 'token')),
    subject TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    assigned TEXT NOT NULL,
    PRIMARY KEY (run, layer, kind, subject)
) STRICT, WITHOUT ROWID;
