/*
 * Worker processes: each resolves the same study, runs groups of points (one routing, priced together) and sends the
 * outcomes back. A worker that crashes, exits, hangs or eats memory fails its own points only.
 *
 * The parent sends "setup BYTES THREADS MEMORY\n" and the study source, then "run N POINT:HASH ...\n" a group. The
 * worker answers "outcome POINT BYTES\n" or "failed POINT BYTES\n" and that many bytes for each point: an outcome as
 * moesim_outcome_pack() has it, or a sentence.
 */
#ifndef MOESIM_CLI_WORKER_H
#define MOESIM_CLI_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <moesim/status.h>

#include "sim/study/point.h"

struct worker_setup {
    const char *source_json;
    const struct moesim_point *const *points; /* of the study */
    uint32_t n_workers, threads;
    double timeout_s;      /* of a group; 0 = none, 600 s for plugins */
    uint64_t memory_bytes; /* of a worker, beyond what it starts with; 0 = none */
};

enum worker_news { WORKER_QUIET, WORKER_OUTCOME, WORKER_FAILED };

struct worker_event {
    enum worker_news news;
    uint32_t point;
    char *text;     /* the outcome's bytes, or why the run failed; ends with a 0; the caller frees it */
    size_t size;    /* without that 0 */
    time_t started; /* when its group was sent */
};

struct worker_pool;

/* Texts of `setup` are borrowed. Workers start when they are needed. */
MOESIM_MUST_CHECK enum moesim_status worker_pool_create(const struct worker_setup *setup, struct worker_pool **pool,
                                                        struct moesim_error *err);
/* Workers that are busy are killed, but for trainings, which save themselves first; NULL is allowed. */
void worker_pool_destroy(struct worker_pool *pool);

bool worker_pool_has_room(const struct worker_pool *pool);
bool worker_pool_is_busy(const struct worker_pool *pool);

/* Gives a group to an idle worker. Routers out of tree get a fresh process, so that what they leave behind touches
 * nobody. `point` [n] is borrowed until all its events came. */
MOESIM_MUST_CHECK enum moesim_status worker_pool_send(struct worker_pool *pool, const uint32_t *point, uint32_t n,
                                                      struct moesim_error *err);

/* The next event, or WORKER_QUIET after `seconds` or a signal. */
MOESIM_MUST_CHECK enum moesim_status worker_pool_wait(struct worker_pool *pool, double seconds,
                                                      struct worker_event *event, struct moesim_error *err);

#endif
