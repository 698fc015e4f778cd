/*
 * Objects of a log. The values are found first, since keys may come in any order, and read where they lie after that:
 * however long a record is, it takes no memory but one token's.
 */
#include "workloads/trace/json_record.h"

#include <stdlib.h>
#include <string.h>

#include <moesim/hash.h>

void token_scratch_free(struct token_scratch *s)
{
    free(s->expert);
    free(s->weight);
    *s = (struct token_scratch){0};
}

enum moesim_status token_scratch_room(struct token_scratch *s, struct moesim_error *err)
{
    if (s->n < s->room)
        return MOESIM_OK;
    if (s->n == TRACE_MAX_EXPERTS)
        return moesim_fail(err, MOESIM_EIO, "a token has more than %u experts", TRACE_MAX_EXPERTS);
    const uint32_t room = s->room ? 2 * s->room : 64;
    uint32_t *expert = realloc(s->expert, room * sizeof *expert);
    s->expert = expert ? expert : s->expert;
    float *weight = realloc(s->weight, room * sizeof *weight);
    s->weight = weight ? weight : s->weight;
    if (!expert || !weight)
        return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted while a trace is read");
    s->room = room;
    return MOESIM_OK;
}

static uint64_t hash_value(const struct scan *from, const struct scan *to)
{
    return moesim_hash(MOESIM_HASH_START, from->at, (size_t)(to->at - from->at));
}

enum moesim_status json_record_read(const struct trace_keys *keys, struct scan *j, struct json_record *record)
{
    struct scan_walk walk;
    struct scan_text name;
    scan_peek(j);
    memset(record, 0, sizeof *record);
    record->start = *j;
    record->part = MOESIM_HASH_START;
    enum moesim_status status = scan_open(j, SCAN_OBJECT, &walk);
    while (!status && !(status = scan_member(j, &walk, &name)) && walk.more) {
        const enum trace_key key = trace_key_of(keys, name);
        scan_peek(j);
        const struct scan at = *j;
        status = scan_skip(j);
        if (status || key == N_KEYS)
            continue;
        if (!record->value[key].at)
            record->value[key] = at;
        if (key == KEY_PART) {
            const uint64_t value = hash_value(&at, j);
            record->part = moesim_hash(moesim_hash(record->part, name.at, name.n), &value, sizeof value);
            record->has_part = true;
        }
    }
    return status;
}

enum moesim_status json_record_whole(const struct json_record *record, enum trace_key key, int64_t missing,
                                     int64_t limit, int64_t *value)
{
    struct scan j = record->value[key];
    *value = missing;
    if (!j.at)
        return MOESIM_OK;
    const enum moesim_status status = scan_whole(&j, trace_key_names(key), value);
    if (!status && (*value < 0 || *value > limit))
        return moesim_fail(j.err, MOESIM_EIO, "%.300s: byte %zu: %lld is outside 0..%lld", j.path,
                           (size_t)(record->value[key].at - j.start), (long long)*value, (long long)limit);
    return status;
}

/* A name that is a number or a string, hashed. */
static enum moesim_status hash_name(const struct json_record *record, enum trace_key key, uint64_t *hash)
{
    struct scan j = record->value[key];
    const struct scan from = j;
    const enum moesim_status status = scan_skip(&j);
    if (!status)
        *hash = hash_value(&from, &j);
    return status;
}

enum moesim_status json_record_row(const struct json_record *record, struct trace_row *row)
{
    int64_t layer, token, token_id;
    const bool has_token = json_record_has(record, KEY_TOKEN);
    *row = (struct trace_row){.sequence = record->part};
    enum moesim_status status = json_record_whole(record, KEY_LAYER, 0, INT32_MAX, &layer);
    if (!status)
        status = json_record_whole(record, KEY_TOKEN, 0, INT64_MAX, &token);
    if (!status)
        status = json_record_whole(record, KEY_TOKEN_ID, 0, UINT32_MAX - 1ll, &token_id);
    if (!status && json_record_has(record, KEY_SEQUENCE)) {
        uint64_t name = 0;
        status = hash_name(record, KEY_SEQUENCE, &name);
        row->sequence = moesim_hash(row->sequence, &name, sizeof name);
    }
    if (status)
        return status;
    row->layer = (uint32_t)layer;
    row->token = (uint64_t)(has_token ? token : token_id);
    row->has_sequence = json_record_has(record, KEY_SEQUENCE) || record->has_part;
    row->has_token_id = has_token && json_record_has(record, KEY_TOKEN_ID);
    row->token_id = (uint32_t)token_id;
    return MOESIM_OK;
}

/* ---- decisions ---- */

/* Experts and weights side by side; weights.at NULL = none. */
struct cursors {
    struct scan experts, weights;
    struct token_scratch *scratch;
    struct trace_rows *rows;
};

static enum moesim_status take_pair(struct cursors *c, int64_t id, double weight)
{
    struct token_scratch *s = c->scratch;
    if (id < 0) /* -1 = no expert */
        return MOESIM_OK;
    if (id >= TRACE_MAX_EXPERTS)
        return moesim_fail(c->experts.err, MOESIM_EIO, "%.300s: byte %zu: expert %lld is not one of at most %u",
                           c->experts.path, (size_t)(c->experts.at - c->experts.start), (long long)id,
                           TRACE_MAX_EXPERTS);
    const enum moesim_status status = token_scratch_room(s, c->experts.err);
    if (status)
        return status;
    s->expert[s->n] = (uint32_t)id;
    s->weight[s->n++] = (float)weight;
    return MOESIM_OK;
}

/* [k] ids, and as many weights. */
static enum moesim_status read_list(struct cursors *c)
{
    struct scan_walk ids, weights = {.more = true};
    enum moesim_status status = scan_open(&c->experts, SCAN_ARRAY, &ids);
    if (!status && c->weights.at)
        status = scan_open(&c->weights, SCAN_ARRAY, &weights);
    while (!status && !(status = scan_element(&c->experts, &ids))) {
        int64_t id = 0;
        double weight = 0;
        if (c->weights.at && (status = scan_element(&c->weights, &weights)))
            break;
        if (c->weights.at && ids.more != weights.more)
            return scan_wrong(&c->weights, "there should be as many weights as experts");
        if (!ids.more)
            break;
        status = scan_whole(&c->experts, "an expert's id", &id);
        if (!status && c->weights.at)
            status = scan_number(&c->weights, &weight);
        if (!status)
            status = take_pair(c, id, weight);
    }
    return status;
}

/* "3 17 5": ids separated by blanks, commas or semicolons. */
static enum moesim_status read_words(struct cursors *c)
{
    struct scan_text text;
    enum moesim_status status = scan_string(&c->experts, &text);
    for (size_t i = 0; !status && i < text.n;) {
        int64_t id = 0;
        if (memchr(" ,;[]", text.at[i], 5)) {
            i++;
            continue;
        }
        for (; i < text.n && text.at[i] >= '0' && text.at[i] <= '9' && id < INT32_MAX; i++)
            id = id * 10 + (text.at[i] - '0');
        if (i < text.n && !memchr(" ,;]", text.at[i], 4))
            return scan_wrong(&c->experts, "the experts in this string are not whole numbers with blanks between them "
                                           "(base64 is not read: decode it with numpy.frombuffer)");
        status = take_pair(c, id, 0);
    }
    return status;
}

static enum moesim_status take_token(struct cursors *c, struct trace_row *row)
{
    struct scan *j = &c->experts;
    scan_peek(j);
    const size_t at = (size_t)(j->at - j->start);
    int64_t id = 0;
    c->scratch->n = 0;
    enum moesim_status status;
    const enum scan_type type = scan_peek(j);
    if (type == SCAN_STRING)
        status = read_words(c);
    else if (type == SCAN_NUMBER && !(status = scan_whole(j, "an expert's id", &id)))
        status = take_pair(c, id, 0);
    else
        status = read_list(c);
    if (status)
        return status;
    row->n = c->scratch->n;
    row->expert = c->scratch->expert;
    row->weight = c->weights.at && type == SCAN_ARRAY ? c->scratch->weight : NULL;
    status = trace_rows_token(c->rows, row, j->err);
    if (status)
        moesim_error_prefix(j->err, "%.300s: byte %zu", j->path, at);
    return status;
}

/* `depth` arrays around lists of experts; `inner` says what an index of the last but one counts. */
enum index { INDEX_TOKENS, INDEX_LAYERS };

static enum moesim_status take_level(struct cursors *c, struct trace_row row, uint32_t depth, enum index inner)
{
    struct scan_walk outer, beside = {.more = true};
    if (depth <= 1)
        return take_token(c, &row);
    const bool counts_layers = depth == 2 ? inner == INDEX_LAYERS : inner == INDEX_TOKENS;
    enum moesim_status status = scan_open(&c->experts, SCAN_ARRAY, &outer);
    if (!status && c->weights.at)
        status = scan_open(&c->weights, SCAN_ARRAY, &beside);
    while (!status && !(status = scan_element(&c->experts, &outer))) {
        if (c->weights.at && (status = scan_element(&c->weights, &beside)))
            break;
        if (c->weights.at && beside.more != outer.more)
            return scan_wrong(&c->weights, "there should be as many lists of weights as of experts");
        if (!outer.more)
            break;
        status = take_level(c, row, depth - 1, inner);
        if (counts_layers)
            row.layer++;
        else
            row.token++;
    }
    return status;
}

enum moesim_status json_record_decisions(const struct json_record *record, struct trace_row row,
                                         struct token_scratch *scratch, struct trace_rows *rows)
{
    const bool by_layer = !json_record_has(record, KEY_EXPERTS);
    struct cursors c = {.experts = record->value[by_layer ? KEY_EXPERTS_BY_LAYER : KEY_EXPERTS],
                        .weights = record->value[KEY_WEIGHTS],
                        .scratch = scratch,
                        .rows = rows};
    const uint32_t depth = scan_array_depth(c.experts);
    if (depth > 3 || (by_layer && depth != 3))
        return scan_wrong(&c.experts, "experts should be [k], [tokens][k] or [tokens][layers][k]");
    if (depth < 3 && !json_record_has(record, KEY_LAYER))
        return scan_wrong(&record->start, "a record of experts without a layer");
    if (scan_peek(&c.weights) != SCAN_ARRAY)
        c.weights.at = NULL;
    return take_level(&c, row, depth, depth == 3 && !by_layer ? INDEX_LAYERS : INDEX_TOKENS);
}
