-- The views v_* are the stable interface for other tools (sqlite3 -csv, pandas, gnuplot), whatever the tables below them
-- become. Made with a new file, and anew when a file is brought up to date.
DROP VIEW IF EXISTS v_runs; -- on v_run_params; made again when the file's metrics are read
DROP VIEW IF EXISTS v_run_params;
DROP VIEW IF EXISTS v_compare;
DROP VIEW IF EXISTS v_expert_load;
DROP VIEW IF EXISTS v_domain_loss;
DROP VIEW IF EXISTS v_specialisation;

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

-- Bits per byte of each domain's held-out text over training.
CREATE VIEW v_domain_loss AS SELECT run, step, domain, tokens, bits_per_byte FROM domain_loss;

-- specialisation unpacked: one row a run, layer, subject and expert.
CREATE VIEW v_specialisation AS
SELECT s.run, s.layer, s.kind, s.subject, s.tokens, a.key AS expert, a.value AS assigned
FROM specialisation s, json_each(s.assigned) a;
