-- The schema of version 2, as it was: what tests bring up to date.
-- moesim.db, version 2. The tables, which may change with user_version; other tools rely on the views of views.sql. A
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
CREATE INDEX run_param_by_value ON run_param (path, value);

-- The metrics that this file knows; ids differ between files, names do not.
CREATE TABLE metric (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    unit TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('counted', 'modelled', 'measured')),
    better TEXT NOT NULL CHECK (better IN ('lower', 'higher', 'neither')),
    fold TEXT NOT NULL CHECK (fold IN ('mean', 'total', 'median')),
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


-- One row a run. v_runs, made when the file is opened for writing, is this and one column a metric.
CREATE VIEW v_run_params AS
SELECT r.id AS run, s.name AS study, s.id AS study_id, r.state, r.seed,
    (SELECT value FROM run_param WHERE run = r.id AND path = 'router') AS router,
    (SELECT value FROM run_param WHERE run = r.id AND path = 'router.name') AS router_name,
    (SELECT value FROM run_param WHERE run = r.id AND path = 'workload') AS workload,
    (SELECT value FROM run_param WHERE run = r.id AND path = 'workload.name') AS workload_name,
    (SELECT value FROM run_param WHERE run = r.id AND path = 'cluster') AS cluster,
    (SELECT value FROM run_param WHERE run = r.id AND path = 'placement') AS placement,
    (SELECT value FROM run_param WHERE run = r.id AND path = 'mode') AS mode,
    (SELECT value FROM run_param WHERE run = r.id AND path = 'phase') AS phase,
    (SELECT CAST(value AS INTEGER) FROM run_param WHERE run = r.id AND path = 'steps') AS steps,
    (SELECT CAST(value AS INTEGER) FROM run_param WHERE run = r.id AND path = 'workload.tokens') AS tokens,
    (SELECT CAST(value AS INTEGER) FROM run_param WHERE run = r.id AND path = 'model.layers') AS layers,
    (SELECT CAST(value AS INTEGER) FROM run_param WHERE run = r.id AND path = 'model.experts') AS experts,
    (SELECT CAST(value AS INTEGER) FROM run_param WHERE run = r.id AND path = 'model.top_k') AS top_k,
    (SELECT number FROM run_param WHERE run = r.id AND path = 'router.capacity_factor') AS capacity_factor,
    r.point, r.hash, r.row_hash, r.reason, r.note, r.started, r.seconds
FROM run r JOIN study s ON s.id = r.study;

-- Pairs of finished runs that differ in the router alone, metric by metric: "what would this router have changed?"
CREATE VIEW v_compare AS
SELECT s.name AS study, s.id AS study_id,
    (SELECT value FROM run_param WHERE run = b.id AND path = 'workload') AS workload,
    a.seed, m.name AS metric,
    pa.value AS baseline, pb.value AS router,
    x.value AS baseline_value, y.value AS value, y.value - x.value AS difference,
    a.id AS baseline_run, b.id AS run
FROM run_param pa
JOIN run a ON a.id = pa.run AND a.state = 'done'
JOIN study s ON s.id = a.study
JOIN run b ON b.study = a.study AND b.pairing = a.pairing AND b.seed = a.seed AND b.state = 'done'
JOIN run_param pb ON pb.run = b.id AND pb.path = 'router' AND pb.value <> pa.value
JOIN summary x ON x.run = a.id AND ifnull(x.layer, -1) = -1 AND x.value IS NOT NULL
JOIN summary y ON y.run = b.id AND y.metric = x.metric AND ifnull(y.layer, -1) = -1 AND y.value IS NOT NULL
JOIN metric m ON m.id = x.metric
WHERE pa.path = 'router';

-- expert_load unpacked: one row a run, window, layer and expert.
CREATE VIEW v_expert_load AS
SELECT l.run, l.window, l.layer, a.key AS expert, a.value AS assigned, k.value AS kept, l.first_step, l.n_steps
FROM expert_load l, json_each(l.assigned) a, json_each(l.kept) k
WHERE k.key = a.key;
