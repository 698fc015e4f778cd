/*
 * drift: calibrated tokens whose domain shifts over time, as traffic does.
 *
 * At step s a share x of the step's sequences comes from domain `to`, the others from domain `from` (0: all domains in
 * turn). A ramp has x = 0 up to `start`, rises evenly over `over` steps, and stays at 1; over: 0 is a jump. A wave goes
 * from 0 up to 1 and back every `over` steps. They lie evenly among the step's sequences, from a drawn beginning on;
 * their number is x times all, rounded up or down.
 */
#include <math.h>

#include <moesim/workload.h>

#include "workloads/calibrated/source.h"
#include "workloads/table.h"

enum drift_course { RAMP, WAVE };

struct drift_params {
    struct source_params source;
    uint32_t from, to, start, over, course;
};

static const struct moesim_param params[] = {
    SOURCE_PARAMS(struct drift_params, source, "olmoe-1b-7b"),
    MOESIM_PARAM(struct drift_params, from, "1", 0, 65536, "the domain at first; 0 = all in turn"),
    MOESIM_PARAM(struct drift_params, to, "2", 0, 65536, "the domain in the end; 0 = all in turn"),
    MOESIM_PARAM(struct drift_params, start, "0", 0, 4294967295, "the step at which the shift begins"),
    MOESIM_PARAM(struct drift_params, over, "100", 0, 4294967295,
                 "steps from one to the other, of a wave there and back"),
    MOESIM_CHOICE(struct drift_params, course, "ramp", "ramp|wave", "once, or to and fro"),
    MOESIM_PARAM_END,
};

struct drift {
    struct source source;
    struct drift_params p;
};

static enum moesim_status check_domains(const struct drift_params *p, struct moesim_error *err)
{
    const uint32_t n = source_domains(&p->source);
    if (p->from > n || p->to > n)
        return moesim_fail(err, MOESIM_EINVAL, "drift: %s = %u, but domains = %u", p->from > n ? "from" : "to",
                           p->from > n ? p->from : p->to, n);
    if (p->course == WAVE && p->over == 0)
        return moesim_fail(err, MOESIM_EINVAL, "drift: over = 0: a wave needs at least one step");
    return MOESIM_OK;
}

static enum moesim_status drift_shape(const void *p, struct moesim_workload_shape *shape, struct moesim_error *err)
{
    const struct drift_params *params_ = p;
    const enum moesim_status status = check_domains(params_, err);
    return status ? status : source_shape(&params_->source, shape, err);
}

static enum moesim_status drift_init(void *state, const void *p, const struct moesim_workload_env *env,
                                     struct moesim_error *err)
{
    struct drift *d = state;
    d->p = *(const struct drift_params *)p;
    const enum moesim_status status = check_domains(&d->p, err);
    return status ? status : source_init(&d->source, "drift", &d->p.source, env, err);
}

/* The share of sequences from `to`. */
static double shifted(const struct drift_params *p, uint32_t step)
{
    if (step < p->start)
        return 0;
    const uint32_t since = step - p->start;
    if (p->course == WAVE)
        return 1 - fabs(1 - 2 * (double)(since % p->over) / p->over);
    return since < p->over ? (double)since / p->over : 1;
}

/* Systematic sampling: sequence q is from `to` where q * share, drawn beginning added, passes a whole number. */
static void make_domains(struct drift *d, uint32_t step)
{
    struct source *s = &d->source;
    const struct moesim_random random = {s->seed, EFFECTS_CHOICE, 0, step};
    const double share = shifted(&d->p, step), begin = (double)moesim_random_uniform(&random, 0);
    for (uint32_t q = 0; q < s->n_sequences; q++) {
        const bool is_shifted = floor((q + 1) * share + begin) > floor(q * share + begin);
        const uint32_t domain = is_shifted ? d->p.to : d->p.from, first = q * s->sequence;
        for (uint32_t t = first; domain && t < s->n_tokens && t - first < s->sequence; t++)
            s->domain[t] = domain - 1;
    }
}

static enum moesim_status drift_step(void *state, uint32_t step, uint32_t layer, struct moesim_batch *batch,
                                     struct moesim_error *err)
{
    (void)err;
    struct drift *d = state;
    if (source_label(&d->source, step))
        make_domains(d, step);
    source_draw(&d->source, step, layer, batch);
    return MOESIM_OK;
}

const struct moesim_workload moesim_workload_drift = {
    MOESIM_WORKLOAD_HEAD,
    .provides = MOESIM_NEEDS_COLUMNS | MOESIM_NEEDS_TOKEN_IDS | MOESIM_NEEDS_SEQUENCES,
    .name = "drift",
    .summary = "calibrated tokens whose domain shifts over time",
    .reference = "docs/synthetic-load.md",
    .params = params,
    .params_size = sizeof(struct drift_params),
    .state_size = sizeof(struct drift),
    .shape = drift_shape,
    .init = drift_init,
    .step = drift_step,
};
