/* SPDX-License-Identifier: MIT
 *
 * The outcome of one run in plain values: what a worker sends, the store writes and nobody else computes.
 */
#ifndef MOESIM_OUTCOME_H
#define MOESIM_OUTCOME_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/metric.h>

#define MOESIM_ALL_LAYERS (-1)
#define MOESIM_MAX_WINDOWS 10

/* One metric over the steps of one layer, or over steps and layers. */
struct moesim_summary {
    int32_t layer; /* MOESIM_ALL_LAYERS or the layer */
    uint32_t metric;
    double value; /* the figure of v_runs: by the metric's fold */
    double mean, std, min, p50, p95, max;
    uint64_t n;
};

struct moesim_sample {
    uint32_t step, layer, metric;
    double value;
};

/* Counts of a run of steps of one layer. */
struct moesim_load_window {
    uint32_t window, layer, first_step, n_steps;
    uint32_t n_experts;
    uint64_t *assigned, *kept; /* [n_experts] */
};

/* What bytes pass: the way from one device to another (up to 128 devices) or from node to node (above, what stays
 * inside a node from it to itself); the ports of a device, one end of which is its node or its leaf switch; the links
 * between a leaf switch and the spine, which is 0. */
enum moesim_link {
    MOESIM_LINK_DEVICE,
    MOESIM_LINK_NODE,
    MOESIM_LINK_NVLINK_OUT,
    MOESIM_LINK_NVLINK_IN,
    MOESIM_LINK_NIC_OUT,
    MOESIM_LINK_NIC_IN,
    MOESIM_LINK_LEAF_UP,
    MOESIM_LINK_LEAF_DOWN,
    MOESIM_N_LINKS
};

/* Bytes of dispatch and combine over the run, from source to target. */
struct moesim_traffic {
    uint32_t source, target;
    double bytes;
    uint32_t link; /* enum moesim_link */
};

/* Held-out text of one domain at a validation. */
struct moesim_domain_loss {
    uint32_t step;
    char *domain;    /* UTF-8 */
    uint64_t tokens; /* that were predicted */
    double bits_per_byte;
};

enum moesim_subject { MOESIM_SUBJECT_DOMAIN, MOESIM_SUBJECT_TOKEN, MOESIM_N_SUBJECTS };

/* Where the last validation sent the tokens of one domain, or the appearances of one token id. */
struct moesim_specialisation {
    uint32_t layer, kind; /* enum moesim_subject */
    char *subject;        /* UTF-8, one of its kind in the layer */
    uint64_t tokens;
    uint32_t n_experts;
    uint64_t *assigned; /* [n_experts] pairs, before capacity */
};

/* Arrays belong to `arena`. */
struct moesim_outcome {
    struct moesim_arena *arena;
    struct moesim_summary *summary;
    struct moesim_sample *series;
    struct moesim_load_window *window;
    struct moesim_traffic *traffic;
    uint64_t n_summaries, n_series, n_windows, n_traffic;
    char *workload_provenance;              /* which data it was; "" for synthetic ones */
    char *kernel_path;                      /* which routing and layer kernels ran */
    char *note;                             /* what people should know of these figures; "" or NULL = nothing */
    double seconds;                         /* wall time of the run on this machine */
    struct moesim_domain_loss *domain_loss; /* mode train; these two belong to validations */
    struct moesim_specialisation *specialisation;
    uint64_t n_domain_losses, n_specialisations;
};

#endif
