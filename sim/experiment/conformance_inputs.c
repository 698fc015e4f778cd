/*
 * The batches of a conformance case: a pure function of its seed, its sizes and what the router asks for.
 */
#include <string.h>

#include "sim/experiment/conformance_suite.h"
#include "sim/experiment/groups.h"

#define SEQUENCE_TOKENS 29u

/* Where a batch's numbers come from; streams past the one of draw_start. */
enum { STREAM_COLUMNS = MOESIM_STREAM_TEST + 1, STREAM_PREVIOUS, STREAM_HIDDEN, STREAM_UPSTREAM };

struct making {
    struct trial_inputs *in;
    uint32_t step;
    const struct trial_case *c;
    uint32_t needs;
    bool enough; /* memory, so far */
};

static void *take(struct making *m, size_t n, size_t size)
{
    void *memory = moesim_alloc(m->in->arena, n, size);
    m->enough = m->enough && memory;
    return memory;
}

static float *normals(struct making *m, uint32_t stream, size_t n)
{
    const struct moesim_random random = {.seed = m->c->seed, .stream = stream, .step = m->step};
    float *values = take(m, n, sizeof *values);
    if (values)
        moesim_random_normals(&random, 0, n, values);
    return values;
}

/* Whole numbers below n, one for each token. */
static uint32_t *numbers(struct making *m, struct draw *d, uint32_t n_tokens, uint32_t n)
{
    uint32_t *values = take(m, n_tokens, sizeof *values);
    for (uint32_t i = 0; values && i < n_tokens; i++)
        values[i] = draw_below(d, n);
    return values;
}

static const uint32_t *make_sequences(struct making *m, uint32_t n_tokens)
{
    uint32_t *id = take(m, n_tokens, sizeof *id);
    for (uint32_t i = 0; id && i < n_tokens; i++)
        id[i] = i / SEQUENCE_TOKENS;
    return id;
}

static const uint8_t *make_padding(struct making *m, struct draw *d, uint32_t n_tokens)
{
    uint8_t *padding = take(m, n_tokens, 1);
    for (uint32_t i = 0; padding && i < n_tokens; i++)
        padding[i] = draw_below(d, 8) == 0;
    return padding;
}

static const struct moesim_decisions *make_decisions(struct making *m, struct draw *d, uint32_t n_tokens)
{
    const uint32_t k = m->c->top_k, n = m->c->n_experts;
    struct moesim_decisions *decisions = take(m, 1, sizeof *decisions);
    uint32_t *first = take(m, (size_t)n_tokens + 1, sizeof *first);
    uint32_t *expert = take(m, (size_t)n_tokens * k, sizeof *expert);
    float *weight = take(m, (size_t)n_tokens * k, sizeof *weight);
    if (!m->enough)
        return NULL;
    for (uint32_t i = 0; i < n_tokens; i++) {
        const uint32_t start = draw_below(d, n);
        first[i + 1] = (i + 1) * k;
        for (uint32_t c = 0; c < k; c++) {
            expert[i * k + c] = (start + c) % n;
            weight[i * k + c] = 1 / (float)k;
        }
    }
    *decisions = (struct moesim_decisions){.first = first, .expert = expert, .weight = weight};
    return decisions;
}

static uint32_t common_divisor(uint32_t a, uint32_t b)
{
    return b ? common_divisor(b, a % b) : a;
}

/* Tokens of a step: batches of odd steps are a quarter shorter, but where tokens x k is a multiple of E it stays one:
 * some routers share tokens out evenly. */
static uint32_t step_tokens(const struct trial_case *c, uint32_t step)
{
    const uint32_t n = step % 2 == 0 ? c->n_tokens : c->n_tokens - c->n_tokens / 4;
    return n - n % common_divisor(c->n_tokens, c->n_experts);
}

static void make_groups(struct making *m, struct moesim_batch *b, uint32_t max_groups)
{
    uint32_t *device = take(m, b->n_tokens, sizeof *device);
    uint32_t *group_start = take(m, (size_t)max_groups + 1, sizeof *group_start);
    if (!m->enough)
        return;
    moesim_home_devices(device, b->n_tokens, b->n_devices);
    b->device = device;
    b->n_groups = moesim_groups_make(&m->in->shape, b, group_start);
    b->group_start = group_start;
}

static void make_batch(struct making *m, uint32_t max_groups)
{
    struct trial_inputs *in = m->in;
    const struct trial_case *c = m->c;
    struct draw d = draw_start(c->seed, m->step);
    struct moesim_batch *b = &in->batch[m->step];
    *b = (struct moesim_batch){.struct_size = sizeof *b,
                               .phase = c->phase,
                               .seed = c->seed,
                               .step = m->step,
                               .layer = 1,
                               .n_tokens = step_tokens(c, m->step),
                               .n_experts = c->n_experts,
                               .n_columns = in->shape.n_columns,
                               .stride = (in->shape.n_columns + 7) / 8 * 8,
                               .d_model = TRIAL_D_MODEL,
                               .n_devices = c->n_devices};
    const uint32_t n = b->n_tokens;
    const size_t cells = (size_t)n * b->stride, slots = (size_t)n * in->shape.n_slots;
    b->columns = in->columns[m->step] = normals(m, STREAM_COLUMNS, cells);
    if (m->needs & MOESIM_NEEDS_PREVIOUS_LOGITS)
        b->previous_logits = normals(m, STREAM_PREVIOUS, cells);
    if (m->needs & MOESIM_NEEDS_HIDDEN)
        b->hidden = normals(m, STREAM_HIDDEN, (size_t)n * TRIAL_D_MODEL);
    if (m->needs & MOESIM_NEEDS_TOKEN_IDS)
        b->token_id = numbers(m, &d, n, TRIAL_VOCABULARY);
    if (m->needs & MOESIM_NEEDS_SEQUENCES || in->shape.group == MOESIM_GROUP_SEQUENCE)
        b->sequence_id = make_sequences(m, n);
    if (c->has_padding)
        b->padding = make_padding(m, &d, n);
    if (m->needs & MOESIM_NEEDS_DECISIONS)
        b->decisions = make_decisions(m, &d, n);
    make_groups(m, b, max_groups);
    if (c->phase == MOESIM_TRAIN)
        in->upstream[m->step] =
            normals(m, STREAM_UPSTREAM, in->shape.max_pairs > slots ? (size_t)in->shape.max_pairs : slots);
}

enum moesim_status inputs_init(struct trial_inputs *in, const struct trial_case *c, uint32_t needs,
                               const struct moesim_shape *shape, uint32_t max_groups, struct moesim_error *err)
{
    *in = (struct trial_inputs){.arena = moesim_arena_create(TRIAL_BYTES), .shape = *shape};
    if (!in->arena)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a conformance trial");
    struct making m = {.in = in, .c = c, .needs = needs, .enough = true};
    for (; m.step < c->n_steps && m.enough; m.step++)
        make_batch(&m, max_groups);
    if (!m.enough)
        return moesim_fail(err, MOESIM_EREFUSE, "batches of %u tokens do not fit %zu MiB", c->n_tokens,
                           TRIAL_BYTES >> 20);
    return MOESIM_OK;
}

void inputs_finish(struct trial_inputs *in)
{
    moesim_arena_destroy(in->arena);
    *in = (struct trial_inputs){.arena = NULL};
}
