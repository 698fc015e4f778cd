/*
 * One object of a JSON log: where the values lie that its keys name, and its decisions, token by token.
 */
#ifndef MOESIM_WORKLOADS_TRACE_JSON_RECORD_H
#define MOESIM_WORKLOADS_TRACE_JSON_RECORD_H

#include "workloads/trace/keys.h"
#include "workloads/trace/rows.h"

/* Experts and weights of one token. */
struct token_scratch {
    uint32_t n, room;
    uint32_t *expert;
    float *weight;
};
void token_scratch_free(struct token_scratch *scratch);
MOESIM_MUST_CHECK enum moesim_status token_scratch_room(struct token_scratch *scratch, struct moesim_error *err);

struct json_record {
    struct scan start;         /* the object's brace */
    struct scan value[N_KEYS]; /* at = NULL: there is no such key */
    uint64_t part;             /* hash of the values of KEY_PART */
    bool has_part;
};

/* Finds the values of the object at `j` and goes past it. Of a key that comes twice the first counts. */
MOESIM_MUST_CHECK enum moesim_status json_record_read(const struct trace_keys *keys, struct scan *j,
                                                      struct json_record *record);

static inline bool json_record_has(const struct json_record *record, enum trace_key key)
{
    return record->value[key].at != NULL;
}

/* A whole number of the record, or `missing` where the key is not there; `limit` is the largest that is taken. */
MOESIM_MUST_CHECK enum moesim_status json_record_whole(const struct json_record *record, enum trace_key key,
                                                       int64_t missing, int64_t limit, int64_t *value);

/* The row's parts that do not depend on the token: layer, sequence, token. */
MOESIM_MUST_CHECK enum moesim_status json_record_row(const struct json_record *record, struct trace_row *row);

/* Adds all decisions of KEY_EXPERTS or KEY_EXPERTS_BY_LAYER: [k] of one token, [tokens][k] of one layer, or
 * [tokens][layers][k]. */
MOESIM_MUST_CHECK enum moesim_status json_record_decisions(const struct json_record *record, struct trace_row row,
                                                           struct token_scratch *scratch, struct trace_rows *rows);

#endif
