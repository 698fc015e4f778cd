/*
 * CSV logs of routing: a line of names, then rows. A row is a token in one layer with its experts in one field ("3 17
 * 5"), or one pair, or an expert's load: `moesim route`, llama.cpp's logs, tables of counts.
 */
#include <string.h>

#include <moesim/hash.h>

#include "workloads/trace/csv_line.h"
#include "workloads/trace/json_record.h"

struct table {
    struct csv csv;
    int column[N_KEYS]; /* -1 = none */
    struct trace_rows *rows;
    struct token_scratch scratch;
    bool loads; /* rows without a token are counted */
};

static enum moesim_status read_names(struct table *t)
{
    bool more;
    struct trace_keys keys;
    trace_keys_init(&keys);
    const enum moesim_status status = csv_next(&t->csv, &more);
    if (status)
        return status;
    for (uint32_t key = 0; key < N_KEYS; key++)
        t->column[key] = -1;
    for (uint32_t i = 0; more && i < t->csv.n_fields; i++) {
        const enum trace_key key = trace_key_of(&keys, t->csv.field[i]);
        if (key != N_KEYS && t->column[key] < 0)
            t->column[key] = (int)i;
    }
    if (t->column[KEY_LAYER] < 0 || (t->column[KEY_EXPERT] < 0 && t->column[KEY_EXPERTS] < 0))
        return csv_wrong(&t->csv, "the first line should name the columns, layer and experts (or expert) among them");
    t->loads = t->column[KEY_EXPERT] >= 0 && (t->column[KEY_TOKEN] < 0 || t->column[KEY_COUNT] >= 0);
    return MOESIM_OK;
}

/* The field of a key, or NULL where the table has no such column. */
static const struct scan_text *field_of(const struct table *t, enum trace_key key)
{
    return t->column[key] < 0 ? NULL : &t->csv.field[t->column[key]];
}

static enum moesim_status whole(const struct table *t, enum trace_key key, uint64_t limit, uint64_t *value)
{
    const struct scan_text *field = field_of(t, key);
    *value = 0;
    if (!field || csv_whole(*field, limit, value))
        return MOESIM_OK;
    return moesim_fail(t->csv.err, MOESIM_EIO, "%.300s:%llu: field %d should be a whole number from 0 to %llu",
                       t->csv.path, (unsigned long long)t->csv.line, t->column[key] + 1, (unsigned long long)limit);
}

static enum moesim_status number(const struct table *t, enum trace_key key, double *value)
{
    const struct scan_text *field = field_of(t, key);
    if (!field || csv_number(*field, value))
        return MOESIM_OK;
    return moesim_fail(t->csv.err, MOESIM_EIO, "%.300s:%llu: field %d should be a finite number", t->csv.path,
                       (unsigned long long)t->csv.line, t->column[key] + 1);
}

static enum moesim_status at_line(const struct table *t, enum moesim_status status)
{
    if (status)
        moesim_error_prefix(t->csv.err, "%.300s:%llu", t->csv.path, (unsigned long long)t->csv.line);
    return status;
}

/* A slot is -1 where refused. */
static bool slot_of(const struct scan_text *field, int32_t *slot)
{
    uint64_t value = 0;
    *slot = -1;
    if (!field || (field->n == 2 && field->at[0] == '-' && field->at[1] == '1'))
        return true;
    const bool good = csv_whole(*field, INT32_MAX - 1, &value);
    *slot = (int32_t)value;
    return good;
}

static enum moesim_status take_pair(struct table *t)
{
    uint64_t layer, token, expert, kept = 1;
    double weight = 0;
    int32_t slot;
    enum moesim_status status = whole(t, KEY_LAYER, INT32_MAX, &layer);
    if (!status)
        status = whole(t, KEY_TOKEN, INT64_MAX, &token);
    if (!status)
        status = whole(t, KEY_EXPERT, TRACE_MAX_EXPERTS - 1, &expert);
    if (!status && field_of(t, KEY_KEPT))
        status = whole(t, KEY_KEPT, 1, &kept);
    if (!status)
        status = number(t, KEY_WEIGHT, &weight);
    if (!status && !slot_of(field_of(t, KEY_SLOT), &slot))
        status = csv_wrong(&t->csv, "slot should be a whole number, or -1");
    if (status)
        return status;
    const struct trace_row_pair pair = {.layer = (uint32_t)layer,
                                        .expert = (uint32_t)expert,
                                        .token = token,
                                        .weight = (float)weight,
                                        .has_weight = field_of(t, KEY_WEIGHT) != NULL,
                                        .refused = !kept,
                                        .has_slot = slot >= 0,
                                        .slot = slot};
    return at_line(t, trace_rows_pair(t->rows, &pair, t->csv.err));
}

static enum moesim_status take_count(struct table *t)
{
    uint64_t layer, expert;
    double count = 1;
    enum moesim_status status = whole(t, KEY_LAYER, INT32_MAX, &layer);
    if (!status)
        status = whole(t, KEY_EXPERT, TRACE_MAX_EXPERTS - 1, &expert);
    if (!status)
        status = number(t, KEY_COUNT, &count);
    return status ? status
                  : at_line(t, trace_rows_count(t->rows, (uint32_t)layer, (uint32_t)expert, count, t->csv.err));
}

/* The next word of a list; false at its end. */
static bool next_word(struct scan_text *list, struct scan_text *word)
{
    static const char separators[] = " ;,[]|";
    while (list->n && memchr(separators, *list->at, sizeof separators - 1)) {
        list->at++;
        list->n--;
    }
    *word = (struct scan_text){list->at, 0};
    while (list->n && !memchr(separators, *list->at, sizeof separators - 1)) {
        list->at++;
        list->n--;
        word->n++;
    }
    return word->n > 0;
}

/* The ids of one field and, where there are any, the weights of another. */
static enum moesim_status read_lists(struct table *t, bool *weighted)
{
    struct token_scratch *s = &t->scratch;
    struct scan_text ids = *field_of(t, KEY_EXPERTS), word;
    const struct scan_text *field = field_of(t, KEY_WEIGHTS);
    enum moesim_status status = MOESIM_OK;
    s->n = 0;
    while (!status && next_word(&ids, &word)) {
        uint64_t id;
        if (!csv_whole(word, TRACE_MAX_EXPERTS - 1, &id))
            return csv_wrong(&t->csv, "experts should be whole numbers with blanks between them");
        status = token_scratch_room(s, t->csv.err);
        if (status)
            return at_line(t, status);
        s->expert[s->n++] = (uint32_t)id;
    }
    *weighted = field && field->n > 0;
    struct scan_text weights = *weighted ? *field : (struct scan_text){"", 0};
    uint32_t n = 0;
    for (; *weighted && next_word(&weights, &word); n++) {
        double weight;
        if (n == s->n || !csv_number(word, &weight))
            return csv_wrong(&t->csv, "there should be as many weights as experts, all finite numbers");
        s->weight[n] = (float)weight;
    }
    return *weighted && n != s->n ? csv_wrong(&t->csv, "there should be as many weights as experts") : MOESIM_OK;
}

static enum moesim_status take_token(struct table *t)
{
    uint64_t layer, token, token_id;
    bool weighted;
    const bool has_token = t->column[KEY_TOKEN] >= 0;
    enum moesim_status status = whole(t, KEY_LAYER, INT32_MAX, &layer);
    if (!status)
        status = whole(t, KEY_TOKEN, INT64_MAX, &token);
    if (!status)
        status = whole(t, KEY_TOKEN_ID, UINT32_MAX - 1u, &token_id);
    if (!status)
        status = read_lists(t, &weighted);
    if (status)
        return status;
    const struct scan_text *name = field_of(t, KEY_SEQUENCE);
    const struct trace_row row = {.layer = (uint32_t)layer,
                                  .token = has_token ? token : token_id,
                                  .sequence = name ? moesim_hash(MOESIM_HASH_START, name->at, name->n) : 0,
                                  .has_sequence = name != NULL,
                                  .has_token_id = has_token && t->column[KEY_TOKEN_ID] >= 0,
                                  .token_id = (uint32_t)token_id,
                                  .n = t->scratch.n,
                                  .expert = t->scratch.expert,
                                  .weight = weighted ? t->scratch.weight : NULL};
    return at_line(t, trace_rows_token(t->rows, &row, t->csv.err));
}

static enum moesim_status take_rows(struct table *t, const struct mapping *file)
{
    bool more;
    const char *forgotten = t->csv.at;
    enum moesim_status status = read_names(t);
    const uint32_t n = t->csv.n_fields;
    while (!status && !(status = csv_next(&t->csv, &more)) && more) {
        if (t->csv.n_fields != n)
            return moesim_fail(t->csv.err, MOESIM_EIO, "%.300s:%llu: %u fields; the first line has %u", t->csv.path,
                               (unsigned long long)t->csv.line, t->csv.n_fields, n);
        status = t->loads ? take_count(t) : t->column[KEY_EXPERTS] >= 0 ? take_token(t) : take_pair(t);
        if (t->csv.at - forgotten > 64 << 20) { /* what was read may go */
            mapping_forget(file);
            forgotten = t->csv.at;
        }
    }
    return status;
}

enum moesim_status trace_open_csv(const char *path, const struct trace_options *options, struct trace_source *source,
                                  struct moesim_error *err)
{
    struct table t = {.csv = {.path = path, .err = err}};
    struct mapping file;
    enum moesim_status status = mapping_open(path, "a log of routing", &file, err);
    if (status)
        return status;
    const bool marked = file.size >= 3 && memcmp(file.bytes, "\xef\xbb\xbf", 3) == 0; /* a byte order mark */
    t.csv.at = (const char *)file.bytes + (marked ? 3 : 0);
    t.csv.end = (const char *)file.bytes + file.size;
    status = trace_rows_create(path, options, &t.rows, err);
    if (!status)
        status = take_rows(&t, &file);
    if (!status)
        status = trace_rows_finish(t.rows, source, err);
    trace_rows_destroy(t.rows);
    token_scratch_free(&t.scratch);
    mapping_close(&file);
    return status;
}
