/*
 * replay: decisions that were made elsewhere, again. With `file` it is what `moesim route` wrote as CSV: every pair
 * with its weight, kept or not, and slot, bit for bit, each layer its own, the same in every step. Without a file it is
 * what the workload has recorded: the first k pairs of each token with their weights (1/n where none are recorded), and
 * their fates and slots where those are recorded; else all are kept and seated in token order, or as many as a
 * capacity_factor leaves room for: what a model would have dropped that was recorded without a capacity.
 *
 * A CSV does not tell why a pair was refused: it counts as over capacity. It does not tell the capacity either, and the
 * groups are the batch's: slots that are distinct in the groups of the recording have to be so in those of `group`.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <moesim/kernels.h>
#include <moesim/router.h>

#define HEADER "layer,token,choice,expert,weight,kept,slot"

struct replay_params {
    const char *file;
    uint32_t k;
    double capacity_factor;
    uint32_t capacity_rule; /* enum moesim_capacity_rule */
    const char *group;
};

static const struct moesim_param replay_schema[] = {
    MOESIM_PARAM(struct replay_params, file, "", 0, 0, "CSV from `moesim route`; empty = what the workload recorded"),
    MOESIM_PARAM(struct replay_params, k, "top_k", 1, 65536, "experts of a token taken from the workload's record"),
    MOESIM_PARAM(struct replay_params, capacity_factor, "0", 0, 65536,
                 "expert slots over an even share for a record without refusals, by capacity_rule; 0 = dropless"),
    MOESIM_CHOICE(struct replay_params, capacity_rule, "megatron", MOESIM_CAPACITY_CHOICES,
                  "the library whose capacity formula is used"),
    MOESIM_PARAM(struct replay_params, group, "device", 0, 0,
                 "tokens whose slots are numbered together: device, batch, sequence or a number of tokens"),
    MOESIM_PARAM_END,
};

struct replay {
    uint32_t k, n_experts, capacity_rule;
    double capacity_factor;
    const char *file; /* "" = the workload's record */
    void *check;      /* of moesim_plan_check */
    uint32_t *taken;  /* [E] */

    /* the layer's part of the file */
    uint32_t n_tokens;
    uint64_t n_pairs;
    uint32_t *first;  /* [n_tokens + 1] */
    uint32_t *expert; /* [n_pairs] */
    float *weight;
    int32_t *slot;
    uint8_t *fate;
};

/* ---- the file ---- */

/* One line of the CSV. */
struct row {
    uint32_t layer, token, choice, expert, kept;
    float weight;
    int32_t slot;
};

struct reader {
    FILE *stream;
    const char *name;
    uint32_t n_experts;
    uint64_t line;
    bool any;
    struct row row; /* the last one read */
};

/* What a whole file holds. */
struct extent {
    uint32_t n_layers, n_tokens;
    uint64_t most_pairs; /* of a layer */
};

static enum moesim_status wrong_line(const struct reader *r, struct moesim_error *err, const char *what)
{
    return moesim_fail(err, MOESIM_EINVAL, "%.300s:%llu: %s", r->name, (unsigned long long)r->line, what);
}

static enum moesim_status open_file(struct reader *r, const char *name, uint32_t n_experts, struct moesim_error *err)
{
    char line[sizeof HEADER + 2];
    struct stat info;
    *r = (struct reader){.name = name, .n_experts = n_experts, .line = 1};
    /* it is read more than once, and to open a pipe may wait for ever */
    if (stat(name, &info) == 0 && !S_ISREG(info.st_mode))
        return moesim_fail(err, MOESIM_EIO, "%.300s: not a regular file", name);
    r->stream = fopen(name, "r");
    if (!r->stream)
        return moesim_fail(err, MOESIM_EIO, "%.300s: %s", name, strerror(errno));
    if (!fgets(line, sizeof line, r->stream))
        line[0] = '\0';
    line[strcspn(line, "\r\n")] = '\0';
    return strcmp(line, HEADER) == 0 ? MOESIM_OK : wrong_line(r, err, "the header should be " HEADER);
}

/* Takes a whole number below 2^32 and the comma after it. */
static bool take_count(const char **text, uint32_t *value)
{
    char *end;
    errno = 0;
    if (**text < '0' || **text > '9')
        return false;
    const unsigned long long n = strtoull(*text, &end, 10);
    const bool whole = errno == 0 && n < UINT32_MAX && *end == ',';
    *value = (uint32_t)n;
    *text = end + 1;
    return whole;
}

static bool take_weight(const char **text, float *value)
{
    char *end;
    *value = strtof(*text, &end);
    const bool number = end != *text && **text > ' ' && isfinite(*value) && *end == ',';
    *text = end + 1;
    return number;
}

static bool take_slot(const char *text, int32_t *value)
{
    char *end;
    errno = 0;
    const long n = strtol(text, &end, 10);
    *value = (int32_t)n;
    return (*text == '-' || (*text >= '0' && *text <= '9')) && errno == 0 && n >= -1 && n <= INT32_MAX && *end == '\0';
}

/* What is wrong with a row after `last` (NULL = the first one), or NULL. */
static const char *fault(const struct row *row, const struct row *last, uint32_t n_experts)
{
    const bool same_layer = last && row->layer == last->layer, same_token = same_layer && row->token == last->token;
    if (last && (row->layer < last->layer || (same_layer && row->token < last->token)))
        return "rows should be sorted by layer, then token";
    if (row->choice != (same_token ? last->choice + 1 : 0))
        return "a token's choices should count from 0";
    if (row->expert >= n_experts)
        return "there is no such expert";
    if (row->kept > 1)
        return "kept should be 0 or 1";
    if (row->kept ? row->slot < 0 : row->slot != -1)
        return "slot should be 0 or more where kept is 1, and -1 where it is 0";
    if (!row->kept && row->weight != 0)
        return "weight should be 0 where kept is 0";
    return NULL;
}

/* Reads the next row; *end tells that there is none. */
static enum moesim_status read_row(struct reader *r, bool *end, struct moesim_error *err)
{
    char line[160];
    const char *at = line;
    struct row row;
    r->line++;
    *end = fgets(line, sizeof line, r->stream) == NULL;
    if (*end && ferror(r->stream))
        return moesim_fail(err, MOESIM_EIO, "%.300s: %s", r->name, strerror(errno));
    if (*end)
        return MOESIM_OK;
    line[strcspn(line, "\r\n")] = '\0';
    if (!take_count(&at, &row.layer) || !take_count(&at, &row.token) || !take_count(&at, &row.choice) ||
        !take_count(&at, &row.expert) || !take_weight(&at, &row.weight) || !take_count(&at, &row.kept) ||
        !take_slot(at, &row.slot))
        return wrong_line(r, err, "a row should hold seven numbers: " HEADER);
    const char *wrong = fault(&row, r->any ? &r->row : NULL, r->n_experts);
    if (wrong)
        return wrong_line(r, err, wrong);
    r->row = row;
    r->any = true;
    return MOESIM_OK;
}

/* Reads all of the file for its size and mistakes. */
static enum moesim_status measure(const char *name, uint32_t n_experts, struct extent *extent, struct moesim_error *err)
{
    struct reader r;
    bool end = false;
    uint64_t n = 0;
    *extent = (struct extent){0};
    enum moesim_status status = open_file(&r, name, n_experts, err);
    while (!status && !(status = read_row(&r, &end, err)) && !end) {
        n = extent->n_layers == r.row.layer + 1 ? n + 1 : 1;
        extent->n_layers = r.row.layer + 1;
        extent->n_tokens = r.row.token >= extent->n_tokens ? r.row.token + 1 : extent->n_tokens;
        extent->most_pairs = n > extent->most_pairs ? n : extent->most_pairs;
    }
    if (r.stream)
        fclose(r.stream);
    return status;
}

/* Keeps the layer's rows. */
static enum moesim_status load(struct replay *s, uint32_t layer, struct moesim_error *err)
{
    struct reader r;
    bool end = false;
    uint32_t n_started = 0; /* tokens whose first[] is set */
    enum moesim_status status = open_file(&r, s->file, s->n_experts, err);
    while (!status && !(status = read_row(&r, &end, err)) && !end) {
        if (r.row.layer != layer)
            continue;
        while (n_started <= r.row.token)
            s->first[n_started++] = (uint32_t)s->n_pairs;
        s->expert[s->n_pairs] = r.row.expert;
        s->weight[s->n_pairs] = r.row.weight;
        s->slot[s->n_pairs] = r.row.slot;
        s->fate[s->n_pairs++] = r.row.kept ? MOESIM_KEPT : MOESIM_OVER_CAPACITY;
    }
    while (n_started <= s->n_tokens)
        s->first[n_started++] = (uint32_t)s->n_pairs;
    if (r.stream)
        fclose(r.stream);
    return status;
}

/* ---- the router ---- */

static enum moesim_status check_extent(const struct replay_params *p, const struct moesim_env *env,
                                       const struct extent *extent, struct moesim_error *err)
{
    if (extent->n_tokens != env->max_tokens)
        return moesim_fail(err, MOESIM_EINVAL, "%.300s holds decisions for %u tokens, the workload has %u", p->file,
                           extent->n_tokens, env->max_tokens);
    if (extent->n_layers < env->n_layers)
        return moesim_fail(err, MOESIM_EINVAL, "%.300s holds decisions of %u layers, the model has %u", p->file,
                           extent->n_layers, env->n_layers);
    return MOESIM_OK;
}

static enum moesim_status replay_shape(const void *params, const struct moesim_env *env, struct moesim_shape *shape,
                                       struct moesim_error *err)
{
    const struct replay_params *p = params;
    struct extent extent;
    if (!*p->file) {
        shape->needs |= MOESIM_NEEDS_DECISIONS;
        shape->max_pairs = (uint64_t)env->max_tokens * (p->k < env->n_experts ? p->k : env->n_experts);
        return moesim_group_parse(p->group, shape, err);
    }
    if (p->capacity_factor > 0)
        return moesim_fail(err, MOESIM_EINVAL, "%.300s says what is kept: capacity_factor is for a workload's record",
                           p->file);
    enum moesim_status status = measure(p->file, env->n_experts, &extent, err);
    if (!status)
        status = check_extent(p, env, &extent, err);
    shape->max_pairs = extent.most_pairs;
    return status ? status : moesim_group_parse(p->group, shape, err);
}

static enum moesim_status replay_init(void *state, const void *params, const struct moesim_env *env,
                                      struct moesim_error *err)
{
    struct replay *s = state;
    const struct replay_params *p = params;
    struct moesim_shape shape = {.struct_size = sizeof shape};
    const enum moesim_status status = replay_shape(params, env, &shape, err);
    if (status)
        return status;
    struct moesim_arena *arena = env->arena;
    const size_t n = (size_t)shape.max_pairs;
    *s = (struct replay){.k = p->k,
                         .capacity_rule = p->capacity_rule,
                         .capacity_factor = p->capacity_factor,
                         .n_experts = env->n_experts,
                         .n_tokens = env->max_tokens,
                         .file = moesim_strdup(arena, p->file),
                         .check = moesim_alloc(arena, moesim_plan_check_scratch(env->n_experts, n), 1),
                         .taken = moesim_alloc(arena, env->n_experts, sizeof *s->taken),
                         .first = moesim_alloc(arena, (size_t)env->max_tokens + 1, sizeof *s->first),
                         .expert = moesim_alloc(arena, n, sizeof *s->expert),
                         .weight = moesim_alloc(arena, n, sizeof *s->weight),
                         .slot = moesim_alloc(arena, n, sizeof *s->slot),
                         .fate = moesim_alloc(arena, n, sizeof *s->fate)};
    if (!s->file || !s->check || !s->taken || !s->first || !s->expert || !s->weight || !s->slot || !s->fate)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %zu recorded pairs", n);
    return *s->file ? load(s, env->layer, err) : MOESIM_OK;
}

static void replay_file(const struct replay *s, struct moesim_plan *plan)
{
    const size_t n = (size_t)s->n_pairs;
    memcpy(plan->first, s->first, ((size_t)s->n_tokens + 1) * sizeof *plan->first);
    memcpy(plan->expert, s->expert, n * sizeof *plan->expert);
    memcpy(plan->weight, s->weight, n * sizeof *plan->weight);
    memcpy(plan->slot, s->slot, n * sizeof *plan->slot);
    memcpy(plan->fate, s->fate, n * sizeof *plan->fate);
    plan->n_pairs = plan->n_wanted = n;
}

/* The first k recorded pairs of each token. */
static enum moesim_status take_record(const struct replay *s, const struct moesim_batch *batch,
                                      struct moesim_plan *plan, struct moesim_error *err)
{
    const struct moesim_decisions *d = batch->decisions;
    uint32_t n = 0;
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        const bool padding = batch->padding && batch->padding[t];
        const uint32_t recorded = d->first[t + 1] - d->first[t];
        const uint32_t count = padding ? 0 : recorded < s->k ? recorded : s->k;
        plan->first[t] = n;
        for (uint32_t i = 0; i < count; i++, n++) {
            const uint32_t from = d->first[t] + i;
            const bool bad = d->fate && d->fate[from] == MOESIM_BAD_ROW;
            if ((d->expert[from] >= s->n_experts && !bad) || n == plan->max_pairs)
                return moesim_fail(err, MOESIM_EINVAL, "replay: token %u, choice %u: expert %u is not one of the %u", t,
                                   i, d->expert[from], s->n_experts);
            plan->expert[n] = bad ? MOESIM_NO_EXPERT : d->expert[from];
            plan->weight[n] = d->weight ? d->weight[from] : 1 / (float)count;
            plan->fate[n] = d->fate ? d->fate[from] : MOESIM_KEPT;
        }
    }
    plan->first[batch->n_tokens] = n;
    plan->n_pairs = n;
    return MOESIM_OK;
}

/* Fates and slots as they were recorded; what the order of the tokens tells is there already. */
static void restore(const struct moesim_batch *batch, struct moesim_plan *plan)
{
    const struct moesim_decisions *d = batch->decisions;
    plan->n_wanted = plan->n_bad_rows = 0;
    for (uint32_t t = 0; t < batch->n_tokens; t++)
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
            const uint32_t from = d->first[t] + i - plan->first[t];
            plan->fate[i] = d->fate ? d->fate[from] : MOESIM_KEPT;
            if (plan->fate[i] == MOESIM_KEPT && d->slot && d->slot[from] != MOESIM_SLOT_BY_ORDER)
                plan->slot[i] = d->slot[from];
            plan->n_wanted += plan->fate[i] == MOESIM_KEPT || plan->fate[i] == MOESIM_OVER_CAPACITY;
            plan->n_bad_rows += plan->fate[i] == MOESIM_BAD_ROW;
        }
}

/* The slots that capacity_factor leaves in each group, padding not counted. */
static void limit(const struct replay *s, const struct moesim_batch *batch, struct moesim_plan *plan)
{
    for (uint32_t g = 0; g < batch->n_groups; g++) {
        uint32_t n = batch->group_start[g + 1] - batch->group_start[g];
        for (uint32_t t = batch->group_start[g]; batch->padding && t < batch->group_start[g + 1]; t++)
            n -= batch->padding[t] != 0;
        const uint32_t slots = moesim_capacity(s->capacity_rule, n, s->n_experts, s->k, s->capacity_factor, 0);
        for (uint32_t e = 0; e < s->n_experts; e++)
            plan->capacity[(size_t)g * s->n_experts + e] = slots;
    }
}

static enum moesim_status replay_record(const struct replay *s, const struct moesim_batch *batch,
                                        struct moesim_plan *plan, struct moesim_error *err)
{
    const enum moesim_status status = take_record(s, batch, plan, err);
    if (status)
        return status;
    if (s->capacity_factor > 0 && (batch->decisions->fate || batch->decisions->slot))
        return moesim_fail(err, MOESIM_EINVAL,
                           "replay: the record says what was kept; capacity_factor is for one that "
                           "does not");
    if (s->capacity_factor > 0)
        limit(s, batch, plan);
    moesim_seat(batch, s->taken, plan);
    if (batch->decisions->fate || batch->decisions->slot)
        restore(batch, plan);
    return MOESIM_OK;
}

static enum moesim_status replay_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                       struct moesim_error *err)
{
    const struct replay *s = state;
    enum moesim_status status = MOESIM_OK;
    moesim_plan_unlimited(plan);
    if (*s->file && batch->n_tokens != s->n_tokens)
        return moesim_fail(err, MOESIM_EINVAL, "%.300s holds decisions for %u tokens, the batch has %u", s->file,
                           s->n_tokens, batch->n_tokens);
    if (*s->file)
        replay_file(s, plan);
    else
        status = replay_record(s, batch, plan, err);
    /* what was recorded is input: where it breaks a plan's promises, that is its fault */
    if (!status && moesim_plan_check(plan, batch, "replay", s->check, err)) {
        moesim_error_prefix(err, "%.200s does not fit this batch and group", *s->file ? s->file : "the record");
        status = MOESIM_EINVAL;
    }
    return status;
}

const struct moesim_router moesim_router_replay = {
    MOESIM_ROUTER_HEAD,
    .name = "replay",
    .summary = "decisions recorded before: the CSV of `moesim route`, or those of the workload",
    .reference = "moesim's own; cf. the routing replay of Megatron-LM",
    .params = replay_schema,
    .params_size = sizeof(struct replay_params),
    .state_size = sizeof(struct replay),
    .shape = replay_shape,
    .init = replay_init,
    .route = replay_route,
};
