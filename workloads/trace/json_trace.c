/*
 * JSON and JSON lines: the logs of vLLM, SGLang, Megatron-LM, moe-balance, moe-cache-lab, speculative decoding and
 * gpt-oss fingerprints, SGLang's loads, and `moesim route`. One reader for all: what a record is shows in its keys.
 */
#include <stdio.h>
#include <string.h>

#include "workloads/trace/json_loads.h"
#include "workloads/trace/json_record.h"

enum { MAX_INSIDE = 8 };

struct document {
    struct trace_rows *rows;
    struct trace_keys keys;
    struct token_scratch scratch;
    struct scan_text stage; /* the routing stage that came first */
    bool counts_slots;      /* a placement stood for loads */
    uint64_t n_requests;    /* arrays [tokens][layers][k] so far: each is a sequence */
};

static enum moesim_status take_value(struct document *d, struct scan *j, uint32_t depth);

static enum moesim_status at_record(const struct json_record *record, enum moesim_status status)
{
    const struct scan *j = &record->start;
    if (status)
        moesim_error_prefix(j->err, "%.300s: byte %zu", j->path, (size_t)(j->at - j->start));
    return status;
}

/* ---- one row a pair: what `moesim route` writes; without a token, counts ---- */

static enum moesim_status take_count(struct document *d, const struct json_record *record, uint32_t layer,
                                     uint32_t expert)
{
    struct scan j = record->value[KEY_COUNT];
    double count = 1;
    enum moesim_status status = j.at ? scan_number(&j, &count) : MOESIM_OK;
    return status ? status : at_record(record, trace_rows_count(d->rows, layer, expert, count, record->start.err));
}

static enum moesim_status take_pair(struct document *d, const struct json_record *record)
{
    int64_t layer, token, expert, kept, slot;
    double weight = 0;
    enum moesim_status status = json_record_whole(record, KEY_LAYER, 0, INT32_MAX, &layer);
    if (!status)
        status = json_record_whole(record, KEY_TOKEN, -1, INT64_MAX, &token);
    if (!status)
        status = json_record_whole(record, KEY_EXPERT, 0, TRACE_MAX_EXPERTS - 1, &expert);
    if (!status && token < 0)
        return take_count(d, record, (uint32_t)layer, (uint32_t)expert);
    if (!status)
        status = json_record_whole(record, KEY_KEPT, 1, 1, &kept);
    struct scan slot_at = record->value[KEY_SLOT], weight_at = record->value[KEY_WEIGHT];
    slot = -1;
    if (!status && slot_at.at)
        status = scan_whole(&slot_at, "slot", &slot);
    if (!status && weight_at.at)
        status = scan_number(&weight_at, &weight);
    if (!status && slot > INT32_MAX - 1)
        status = scan_wrong(&record->start, "a slot is too large");
    if (status)
        return status;
    const struct trace_row_pair pair = {.layer = (uint32_t)layer,
                                        .expert = (uint32_t)expert,
                                        .token = (uint64_t)token,
                                        .weight = (float)weight,
                                        .has_weight = weight_at.at != NULL,
                                        .refused = kept == 0,
                                        .has_slot = slot >= 0,
                                        .slot = (int32_t)slot};
    return at_record(record, trace_rows_pair(d->rows, &pair, record->start.err));
}

/* ---- decisions ---- */

/* Encoder and decoder route different tokens; the layers of multi-token prediction route theirs a second time. */
static enum moesim_status check_stage(struct document *d, const struct json_record *record, bool *skip)
{
    struct scan j = record->value[KEY_STAGE];
    struct scan_text stage;
    *skip = false;
    if (!j.at || scan_peek(&j) != SCAN_STRING)
        return MOESIM_OK;
    const enum moesim_status status = scan_string(&j, &stage);
    if (status)
        return status;
    *skip = scan_is(stage, "mtp");
    if (!*skip && !d->stage.at)
        d->stage = stage;
    if (!*skip && (stage.n != d->stage.n || memcmp(stage.at, d->stage.at, stage.n)))
        return scan_wrong(&record->start, "encoder and decoder route different tokens; keep the rows of one of them");
    return MOESIM_OK;
}

static enum moesim_status take_decisions(struct document *d, const struct json_record *record)
{
    struct trace_row row;
    struct scan state = record->value[KEY_STATE];
    struct scan_text word = {"", 0};
    bool skip;
    enum moesim_status status = check_stage(d, record, &skip);
    if (status || skip)
        return status;
    status = json_record_row(record, &row);
    if (!status && state.at && scan_peek(&state) == SCAN_STRING)
        status = scan_string(&state, &word);
    row.refused = scan_is(word, "unassigned");
    if (scan_array_depth(record->value[KEY_EXPERTS]) == 3 && !row.has_sequence) {
        row.has_sequence = true;
        row.sequence = d->n_requests++;
    }
    return status ? status : json_record_decisions(record, row, &d->scratch, d->rows);
}

/* The number after "token_" or "layer_". */
static bool numbered(struct scan_text name, const char *head, uint64_t *number)
{
    const size_t n = strlen(head);
    if (name.n <= n || name.n > n + 9 || memcmp(name.at, head, n))
        return false;
    *number = 0;
    for (size_t i = n; i < name.n; i++) {
        if (name.at[i] < '0' || name.at[i] > '9')
            return false;
        *number = *number * 10 + (uint64_t)(name.at[i] - '0');
    }
    return true;
}

/* {"layer_0": {"selected_experts": [..], ..}, ..} of one token. */
static enum moesim_status take_layers(struct document *d, struct scan *j, uint64_t token)
{
    struct scan_walk walk;
    struct scan_text name;
    struct json_record record;
    enum moesim_status status = scan_open(j, SCAN_OBJECT, &walk);
    while (!status && !(status = scan_member(j, &walk, &name)) && walk.more) {
        uint64_t layer;
        if (!numbered(name, "layer_", &layer))
            return scan_wrong(j, "a key layer_N was expected before this");
        status = json_record_read(&d->keys, j, &record);
        record.value[KEY_LAYER] = record.start; /* known from the name */
        const struct trace_row row = {.layer = (uint32_t)layer, .token = token};
        if (!status && !json_record_has(&record, KEY_EXPERTS))
            status = scan_wrong(&record.start, "a layer without experts");
        if (!status)
            status = json_record_decisions(&record, row, &d->scratch, d->rows);
    }
    return status;
}

/* [{"token_0": {..}}, {"token_1": {..}}, ..] */
static enum moesim_status take_fingerprint(struct document *d, struct scan j)
{
    struct scan_walk tokens, members;
    struct scan_text name;
    enum moesim_status status = scan_open(&j, SCAN_ARRAY, &tokens);
    while (!status && !(status = scan_element(&j, &tokens)) && tokens.more) {
        status = scan_open(&j, SCAN_OBJECT, &members);
        while (!status && !(status = scan_member(&j, &members, &name)) && members.more) {
            uint64_t token;
            if (!numbered(name, "token_", &token))
                return scan_wrong(&j, "a key token_N was expected before this");
            status = take_layers(d, &j, token);
        }
    }
    return status;
}

/* ---- what a value is ---- */

static enum moesim_status take_n_experts(struct document *d, const struct json_record *record)
{
    int64_t n;
    struct scan j = record->value[KEY_N_EXPERTS];
    if (!j.at || scan_peek(&j) != SCAN_NUMBER)
        return MOESIM_OK;
    const enum moesim_status status = json_record_whole(record, KEY_N_EXPERTS, 0, TRACE_MAX_EXPERTS, &n);
    if (!status)
        trace_rows_experts(d->rows, (uint32_t)n);
    return status;
}

static enum moesim_status take_object(struct document *d, struct scan *j, uint32_t depth)
{
    struct json_record record;
    enum moesim_status status = json_record_read(&d->keys, j, &record);
    if (!status)
        status = take_n_experts(d, &record);
    if (status)
        return status;
    if (json_record_has(&record, KEY_LOGICAL_COUNT) || json_record_has(&record, KEY_PHYSICAL_COUNT) ||
        json_record_has(&record, KEY_PHYSICAL_MAP)) {
        d->counts_slots = !json_record_has(&record, KEY_LOGICAL_COUNT) && !json_record_has(&record, KEY_PHYSICAL_COUNT);
        return json_loads_record(&record, d->rows);
    }
    if (json_record_has(&record, KEY_ROUTER_DATA))
        return take_fingerprint(d, record.value[KEY_ROUTER_DATA]);
    if (json_record_has(&record, KEY_EXPERTS) || json_record_has(&record, KEY_EXPERTS_BY_LAYER))
        status = take_decisions(d, &record);
    else if (json_record_has(&record, KEY_EXPERT) && json_record_has(&record, KEY_LAYER))
        return take_pair(d, &record);
    struct scan inside = record.value[KEY_INSIDE];
    if (!status && inside.at && (scan_peek(&inside) == SCAN_OBJECT || scan_peek(&inside) == SCAN_ARRAY))
        status = take_value(d, &inside, depth + 1);
    return status;
}

/* Whether the array here begins with an object. */
static bool holds_objects(struct scan j)
{
    struct scan_walk walk;
    struct moesim_error unused;
    j.err = &unused;
    return scan_open(&j, SCAN_ARRAY, &walk) == MOESIM_OK && scan_peek(&j) == SCAN_OBJECT;
}

static enum moesim_status take_array(struct document *d, struct scan *j, uint32_t depth)
{
    struct scan_walk walk;
    if (!holds_objects(*j) && scan_array_depth(*j) < 3)
        return json_loads_read(j, d->rows);
    if (!holds_objects(*j)) {
        const struct json_record record = {.start = *j, .value = {[KEY_EXPERTS] = *j}};
        const struct trace_row row = {.has_sequence = true, .sequence = d->n_requests++};
        const enum moesim_status status = json_record_decisions(&record, row, &d->scratch, d->rows);
        return status ? status : scan_skip(j);
    }
    enum moesim_status status = scan_open(j, SCAN_ARRAY, &walk);
    while (!status && !(status = scan_element(j, &walk)) && walk.more)
        status = take_value(d, j, depth);
    return status;
}

static enum moesim_status take_value(struct document *d, struct scan *j, uint32_t depth)
{
    const enum scan_type type = scan_peek(j);
    if (depth > MAX_INSIDE)
        return scan_wrong(j, "records are nested too deeply");
    if (type == SCAN_OBJECT)
        return take_object(d, j, depth);
    if (type == SCAN_ARRAY && depth < MAX_INSIDE)
        return take_array(d, j, depth + 1);
    return scan_wrong(j, "an object or an array was expected: one record of routing after the other");
}

static enum moesim_status take_file(struct document *d, const char *path, struct moesim_error *err)
{
    struct mapping file;
    enum moesim_status status = mapping_open(path, "a log of routing", &file, err);
    if (status)
        return status;
    const char *text = (const char *)file.bytes;
    const bool marked = file.size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0; /* a byte order mark */
    struct scan j = {path, text, text + (marked ? 3 : 0), text + file.size, err};
    size_t forgotten = 0;
    while (!status && scan_peek(&j) != SCAN_END) {
        status = take_value(d, &j, 0);
        if ((size_t)(j.at - text) - forgotten > (size_t)64 << 20) { /* what was read may go */
            mapping_forget(&file);
            forgotten = (size_t)(j.at - text);
        }
    }
    d->stage = (struct scan_text){NULL, 0};
    mapping_close(&file);
    return status;
}

static enum moesim_status open_files(const char *name, char *const *paths, size_t n,
                                     const struct trace_options *options, struct trace_source *source,
                                     struct moesim_error *err)
{
    struct document d = {.rows = NULL};
    trace_keys_init(&d.keys);
    enum moesim_status status = trace_rows_create(name, options, &d.rows, err);
    for (size_t i = 0; !status && i < n; i++)
        status = take_file(&d, paths[i], err);
    if (!status)
        status = trace_rows_finish(d.rows, source, err);
    if (!status && d.counts_slots)
        snprintf(source->note, sizeof source->note,
                 "the file is a placement: an expert's load is the number of its slots");
    trace_rows_destroy(d.rows);
    token_scratch_free(&d.scratch);
    return status;
}

enum moesim_status trace_open_json(const char *path, const struct trace_options *options, struct trace_source *source,
                                   struct moesim_error *err)
{
    char *const paths[] = {(char *)(uintptr_t)path};
    return open_files(path, paths, 1, options, source, err);
}

/* Megatron-LM's folder: router_trace_rank0.jsonl and on, one file a rank, whose tokens are put one after the other. */
enum moesim_status trace_open_megatron_folder(const char *path, const struct trace_options *options,
                                              struct trace_source *source, struct moesim_error *err)
{
    char **paths = NULL;
    size_t n = 0;
    const enum moesim_status listed = trace_list_ranks(path, "router_trace_rank", ".jsonl", &paths, &n, err);
    const enum moesim_status status = listed ? listed : open_files(path, paths, n, options, source, err);
    trace_free_list(paths, n);
    return status;
}
