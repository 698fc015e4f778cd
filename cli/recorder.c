/* Recording a run. */
#include "cli/recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "workloads/trace/writer.h"

struct recorder {
    char *path;
    int fd;
    struct trace_writer *writer;
    uint32_t *taken;    /* [n_experts] */
    uint32_t *sequence; /* [room] */
    uint32_t room, next_sequence;
};

static enum moesim_status no_memory(struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "--record: memory is exhausted");
}

enum moesim_status recorder_open(const char *path, struct recorder **recorder, struct moesim_error *err)
{
    struct recorder *r = *recorder = calloc(1, sizeof *r);
    if (!r || !(r->path = strdup(path))) {
        free(r);
        *recorder = NULL;
        return no_memory(err);
    }
    r->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (r->fd >= 0)
        return MOESIM_OK;
    moesim_fail(err, MOESIM_EIO, "--record: %s: cannot be written: %s", path, strerror(errno));
    free(r->path);
    free(r);
    *recorder = NULL;
    return MOESIM_EIO;
}

enum moesim_status recorder_close(struct recorder *r, bool keep, struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    if (!r)
        return status;
    if (keep && r->writer)
        status = trace_writer_finish(r->writer, err);
    if (close(r->fd) != 0 && !status)
        status = moesim_fail(err, MOESIM_EIO, "%s", strerror(errno));
    if (status)
        moesim_error_prefix(err, "--record");
    trace_writer_destroy(r->writer);
    free(r->taken);
    free(r->sequence);
    free(r->path);
    free(r);
    return status;
}

/* Whether every kept pair has the slot that the order of the tokens gives it: then slots need not be written. */
static bool seated_in_order(struct recorder *r, const struct moesim_batch *batch, const struct moesim_plan *plan)
{
    for (uint32_t g = 0; g < batch->n_groups; g++) {
        memset(r->taken, 0, plan->n_experts * sizeof *r->taken);
        for (uint32_t i = plan->first[batch->group_start[g]]; i < plan->first[batch->group_start[g + 1]]; i++)
            if (plan->fate[i] == MOESIM_KEPT && plan->slot[i] != (int32_t)r->taken[plan->expert[i]]++)
                return false;
    }
    return true;
}

/* A sequence ends with its step: ids go on from the largest so far. */
static enum moesim_status add_sequences(struct recorder *r, const struct moesim_batch *batch, struct moesim_error *err)
{
    uint32_t least = UINT32_MAX, most = 0;
    if (batch->n_tokens > r->room) {
        uint32_t *more = realloc(r->sequence, batch->n_tokens * sizeof *more);
        if (!more)
            return no_memory(err);
        r->sequence = more;
        r->room = batch->n_tokens;
    }
    for (uint32_t t = 0; t < batch->n_tokens; t++)
        least = batch->sequence_id[t] < least ? batch->sequence_id[t] : least;
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        r->sequence[t] = r->next_sequence + (batch->sequence_id[t] - least);
        most = r->sequence[t] > most ? r->sequence[t] : most;
    }
    r->next_sequence = most + 1;
    return trace_write_labels(r->writer, TRACE_SEQUENCE, batch->n_tokens, r->sequence, err);
}

static enum moesim_status add_labels(struct recorder *r, const struct moesim_batch *batch, struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    if (batch->sequence_id && batch->n_tokens)
        status = add_sequences(r, batch, err);
    if (!status && batch->token_id)
        status = trace_write_labels(r->writer, TRACE_TOKEN_ID, batch->n_tokens, batch->token_id, err);
    if (!status && batch->domain)
        status = trace_write_labels(r->writer, TRACE_DOMAIN, batch->n_tokens, batch->domain, err);
    return status;
}

static enum moesim_status begin(struct recorder *r, const struct moesim_plan *plan, struct moesim_error *err)
{
    if (plan->n_slots)
        return moesim_fail(err, MOESIM_EINVAL, "a soft router mixes all tokens in all slots: there are no decisions");
    r->taken = malloc(plan->n_experts * sizeof *r->taken);
    return r->taken ? trace_writer_create(r->fd, TRACE_DECISIONS, plan->n_experts, &r->writer, err) : no_memory(err);
}

enum moesim_status recorder_add(struct recorder *r, const struct moesim_routed *routed, struct moesim_error *err)
{
    const struct moesim_batch *batch = routed->batch;
    const struct moesim_plan *plan = routed->plan;
    enum moesim_status status = r->writer ? MOESIM_OK : begin(r, plan, err);
    if (!status) {
        const struct trace_pairs pairs = {.first = plan->first,
                                          .expert = plan->expert,
                                          .weight = plan->weight,
                                          .fate = plan->fate,
                                          .slot = seated_in_order(r, batch, plan) ? NULL : plan->slot};
        status = trace_write_pairs(r->writer, batch->layer, batch->n_tokens, &pairs, err);
    }
    if (!status && batch->layer == 0)
        status = add_labels(r, batch, err);
    if (status)
        moesim_error_prefix(err, "--record");
    return status;
}
