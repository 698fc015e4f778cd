/* SPDX-License-Identifier: MIT
 *
 * The table of metrics. Symbols: T tokens of the step without padding, E experts, k experts per token, c_e pairs that
 * named expert e (assigned), m_e pairs it kept, mu = mean_e c_e, q_e = c_e / sum c, p_te = softmax over e of token t's
 * logits l_te, L_d kept pairs on device d (a node's is the sum of its devices').
 */
#include <moesim/metric.h>

#include <string.h>

#define ROW(id, name_, unit_, kind_, better_, fold_, meaning_, formula_, defined_)                                     \
    [MOESIM_##id] = {.name = (name_),                                                                                  \
                     .unit = (unit_),                                                                                  \
                     .kind = MOESIM_##kind_,                                                                           \
                     .better = MOESIM_##better_,                                                                       \
                     .fold = MOESIM_FOLD_##fold_,                                                                      \
                     .meaning = (meaning_),                                                                            \
                     .formula = (formula_),                                                                            \
                     .defined = (defined_)}

const struct moesim_metric moesim_metrics[MOESIM_N_METRICS] = {
    ROW(LOAD_CV, "load_cv", "", COUNTED, LOWER, MEAN, "spread of the expert loads over their mean",
        "sqrt(mean_e (c_e - mu)^2) / mu", "when any pair is assigned"),
    ROW(MAX_VIO, "max_vio", "", COUNTED, LOWER, MEAN, "how far the busiest expert is above an even share",
        "(max_e c_e - mu) / mu", "when any pair is assigned"),
    ROW(LOAD_GINI, "load_gini", "", COUNTED, LOWER, MEAN, "Gini coefficient of the expert loads",
        "(2 sum_i i c_(i) - (E + 1) sum c) / (E sum c), c ascending, i from 1", "when any pair is assigned"),
    ROW(LOAD_ENTROPY, "load_entropy", "", COUNTED, HIGHER, MEAN, "entropy of the expert loads; 1 = even",
        "-sum_e q_e ln q_e / ln E; 1 for E = 1", "when any pair is assigned"),
    ROW(DEAD_EXPERTS, "dead_experts", "experts", COUNTED, LOWER, MEAN, "experts that no token named over a window",
        "#{e: sum of c_e over the window = 0}, ten windows a run", "always"),
    ROW(DROPPED_FRACTION, "dropped_fraction", "", COUNTED, LOWER, MEAN,
        "share of the wanted pairs that were not served", "1 - served / wanted",
        "where tokens ask for experts: not for expert-choice, mod, soft"),
    ROW(DROPPED_TOKENS, "dropped_tokens", "", COUNTED, LOWER, MEAN, "share of the tokens that no expert processes",
        "#{t: no kept pair} / T", "when there are tokens"),
    ROW(PADDING_FRACTION, "padding_fraction", "", MODELLED, LOWER, MEAN,
        "share of the computed rows that hold no token",
        "1 - sum m / rows, rows by the cost's padding: m_e, capacity, or m_e up to whole tiles",
        "when any row is computed"),
    ROW(EXPERTS_PER_TOKEN, "experts_per_token", "experts", COUNTED, NEITHER, MEAN,
        "mean number of experts a token gets", "sum_e m_e / T", "when there are tokens"),
    ROW(ROUTER_ENTROPY, "router_entropy", "nat", COUNTED, NEITHER, MEAN, "mean entropy of a token's router scores",
        "mean_t -sum_e p_te ln p_te", "with gate logits"),
    ROW(ROUTER_Z, "router_z", "", COUNTED, LOWER, MEAN, "size of the logits as the z-loss sees it",
        "mean_t (ln sum_e exp l_te)^2", "with gate logits"),
    ROW(AUX_LOSS, "aux_loss", "", COUNTED, NEITHER, MEAN, "the router's auxiliary losses with their coefficients",
        "sum of the router's own losses", "with a router that has such losses"),
    ROW(LAG1_OVERLAP, "lag1_overlap", "", COUNTED, NEITHER, MEAN,
        "share of a token's experts that the token before has too",
        "mean_t |E_t intersect E_(t-1)| / |E_t| within a sequence", "when a sequence has two tokens"),
    ROW(LAG64_OVERLAP, "lag64_overlap", "", COUNTED, NEITHER, MEAN,
        "share of a token's experts that the one 64 back has too",
        "mean_t |E_t intersect E_(t-64)| / |E_t| within a sequence", "when a sequence has 65 tokens"),
    ROW(LOAD_CHURN, "load_churn", "", COUNTED, LOWER, MEAN, "share of the load that moved since the step before",
        "sum_e |q_e(step) - q_e(step - 1)| / 2", "from the second step on"),
    ROW(BAD_ROWS, "bad_rows", "tokens", COUNTED, LOWER, TOTAL, "tokens without one finite score: routed nowhere",
        "#{t: no finite l_te}", "always"),
    ROW(DEVICE_IMBALANCE, "device_imbalance", "", MODELLED, LOWER, MEAN, "busiest device over the mean",
        "max_d L_d / mean_d L_d", "with a cluster, when any pair is kept"),
    ROW(NODE_IMBALANCE, "node_imbalance", "", MODELLED, LOWER, MEAN, "busiest node over the mean",
        "max_n L_n / mean_n L_n", "with a cluster, when any pair is kept"),
    ROW(BALANCEDNESS, "balancedness", "", MODELLED, HIGHER, MEAN, "mean device over the busiest; 1 = even",
        "mean_d L_d / max_d L_d", "with a cluster, when any pair is kept"),
    ROW(DEVICE_FANOUT, "device_fanout", "devices", MODELLED, LOWER, MEAN, "distinct devices a token visits",
        "mean over tokens with a kept pair of #devices", "with a cluster, when any pair is kept"),
    ROW(NODE_FANOUT, "node_fanout", "nodes", MODELLED, LOWER, MEAN, "distinct nodes a token visits",
        "mean over tokens with a kept pair of #nodes", "with a cluster, when any pair is kept"),
    ROW(BYTES_DISPATCH, "bytes_dispatch", "B", MODELLED, LOWER, MEAN, "bytes that leave a device towards the experts",
        "sum over copies (by dispatch: of a token to a device, a node, an expert) of the bytes of one",
        "with a cluster"),
    ROW(BYTES_COMBINE, "bytes_combine", "B", MODELLED, LOWER, MEAN, "bytes that leave a device on the way back",
        "sum over the answers to the copies of dispatch of the bytes of one", "with a cluster"),
    ROW(BYTES_INTER_NODE, "bytes_inter_node", "B", MODELLED, LOWER, MEAN, "bytes of both exchanges between nodes",
        "sum over copies that cross nodes, dispatch + combine", "with a cluster"),
    ROW(BYTES_INTRA_NODE, "bytes_intra_node", "B", MODELLED, LOWER, MEAN, "bytes of both exchanges inside nodes",
        "sum over copies between devices of one node, dispatch + combine", "with a cluster"),
    ROW(FLOP_EXPERT, "flop_expert", "FLOP", MODELLED, LOWER, MEAN, "arithmetic of the kept pairs in one layer",
        "sum over FFN experts of m_e * 2 d_model d_ff * (2, or 3 if gated)", "with a model"),
    ROW(FLOP_PADDED, "flop_padded", "FLOP", MODELLED, LOWER, MEAN, "arithmetic of all computed rows in one layer",
        "as flop_expert over the rows that padding adds", "with a model"),
    ROW(FLOP_ROUTER, "flop_router", "FLOP", MODELLED, LOWER, MEAN, "arithmetic of the gate in one layer",
        "2 T d_model * gate columns", "with a model"),
    ROW(TIME_GATE, "time_gate", "s", MODELLED, LOWER, MEAN, "gate on the slowest device", "max_d flop_router_d / rate",
        "with a cluster"),
    ROW(TIME_DISPATCH, "time_dispatch", "s", MODELLED, LOWER, MEAN, "exchange towards the experts, port bound",
        "max over ports p of (latency_p + bytes_p / bandwidth_p); max-min fair flows over shared uplinks",
        "with a cluster"),
    ROW(TIME_COMPUTE, "time_compute", "s", MODELLED, LOWER, MEAN, "experts on the slowest device, roofline",
        "max_d (start + max(bytes_d / memory bandwidth, FLOP_d / rate) + activation bytes_d / memory bandwidth)",
        "with a cluster"),
    ROW(TIME_COMBINE, "time_combine", "s", MODELLED, LOWER, MEAN, "exchange on the way back, port bound",
        "max over ports p of (latency_p + bytes_p / bandwidth_p); max-min fair flows over shared uplinks",
        "with a cluster"),
    ROW(TIME_LAYER, "time_layer", "s", MODELLED, LOWER, MEAN, "one MoE layer of one step",
        "time_gate + time_dispatch + time_compute + time_combine; less where chunks overlap", "with a cluster"),
    ROW(TIME_SYNC, "time_sync", "s", MODELLED, LOWER, MEAN, "what summing one layer's gradients adds to a global batch",
        "all-reduces of the dense weights and of the experts' copies; sync: overlapped = what outlasts the backward "
        "arithmetic",
        "with a cluster and backward: true"),
    ROW(TOKENS_PER_SECOND, "tokens_per_second", "1/s", MODELLED, HIGHER, MEAN,
        "tokens through one MoE layer per second", "T / (time_layer + time_sync / micro_batches)", "with a cluster"),
    ROW(BYTES_MIGRATION, "bytes_migration", "B", MODELLED, LOWER, TOTAL, "expert weights that re-placements moved",
        "sum over re-placements, layers and devices of the weights of experts new to the device",
        "when a placement is made anew in the run"),
    ROW(TIME_MIGRATION, "time_migration", "s", MODELLED, LOWER, TOTAL, "moving them, all layers at once, port bound",
        "sum over re-placements of max over ports p of (latency_p + bytes_p / bandwidth_p)",
        "when a placement is made anew in the run"),
    ROW(DEVICE_MEMORY, "device_memory", "B", MODELLED, LOWER, MEAN, "what the fullest device holds of the whole model",
        "max_d (weights + gradients + optimizer + activations + exchange buffers)", "with a cluster"),
    ROW(CPU_TIME_ROUTE, "cpu_time_route", "s", MEASURED, LOWER, MEDIAN, "wall time of route() on this machine",
        "wall seconds of one step and layer, not summed over threads", "always; no part of the result's hash"),
    ROW(CPU_TIME_LAYER, "cpu_time_layer", "s", MEASURED, LOWER, MEDIAN,
        "wall time of the executed layer on this machine",
        "wall seconds of dispatch, experts and combine, not summed over threads", "in mode execute"),
    ROW(CPU_FLOP_RATE, "cpu_flop_rate", "FLOP/s", MEASURED, HIGHER, MEDIAN,
        "arithmetic rate of the executed layer here", "(flop_expert + that of the shared experts) / cpu_time_layer",
        "in mode execute"),
    ROW(BENCH_CLOCK, "bench_clock", "s", MEASURED, LOWER, MEDIAN, "wall time of one run of a benchmark figure",
        "wall seconds of a repeat / runs in it", "in a database of moesim-bench"),
    ROW(BENCH_CPU, "bench_cpu", "s", MEASURED, LOWER, MEDIAN,
        "processor time of the mean thread in one run of a benchmark figure",
        "processor seconds of a repeat / (runs in it * threads)", "in a database of moesim-bench"),
    ROW(BENCH_OF_LIMIT, "bench_of_limit", "", MEASURED, HIGHER, MEDIAN,
        "share of the machine's limit beside it that a benchmark figure reaches",
        "work / bench_cpu / rate of multiply-adds or of reading, by processor time",
        "in a database of moesim-bench, where a figure has a limit"),
    ROW(BENCH_OF_RIVAL, "bench_of_rival", "", MEASURED, HIGHER, MEDIAN,
        "time of the fastest rival by the time of a benchmark figure", "min over rivals of their bench_cpu / bench_cpu",
        "in a database of moesim-bench, where a figure has rivals"),
};

int moesim_metric_find(const char *name)
{
    for (int i = 0; i < MOESIM_N_METRICS; i++)
        if (strcmp(moesim_metrics[i].name, name) == 0)
            return i;
    return -1;
}
