/* moesim route: decisions for a file of gate columns. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <moesim/kernels.h>
#include <moesim/plan.h>
#include <moesim/random.h>

#include "cli/catalogue.h"
#include "cli/file.h"
#include "cli/isolate.h"
#include "cli/message.h"
#include "cli/provenance.h"
#include "cli/route_input.h"
#include "cli/stop.h"
#include "cli/verbs.h"
#include "sim/experiment/groups.h"
#include "sim/study/study.h"
#include "workloads/npy.h"

struct route_options {
    const char *router, *output, *group, *phase, *tokens, *hidden, *sequences, *previous;
    uint32_t experts, threads;
    double timeout;
    uint64_t seed;
};

static const struct route_options defaults = {.phase = "train"};

static const struct cli_option options[] = {
    CLI_OPTION(struct route_options, router, "router", "SPEC", "name:key=value,... or ./plugin.so; required"),
    CLI_OPTION_WITH(struct route_options, output, "output", "FILE",
                    "write here: .csv, or .jsonl for a JSON object a line (default: CSV on stdout)", .letter = 'o'),
    CLI_OPTION(struct route_options, group, "group", "G",
               "tokens that share capacity: device, batch, sequence or a number (default: the router's; one device)"),
    CLI_OPTION_WITH(struct route_options, phase, "phase", "P", "train (default) or eval", .choices = "train|eval"),
    CLI_OPTION_WITH(struct route_options, seed, "seed", "N", "of noise and random choices (default 0)",
                    .max = 9007199254740992.0),
    CLI_OPTION_WITH(struct route_options, experts, "experts", "N",
                    "experts, when the file has further gate columns (default: every column is one)", .min = 1,
                    .max = 65535),
    CLI_OPTION(struct route_options, tokens, "tokens", "FILE", "token ids [T] (.npy)"),
    CLI_OPTION(struct route_options, hidden, "hidden", "FILE", "hidden states [T,d] or [L,T,d] (.npy)"),
    CLI_OPTION(struct route_options, sequences, "sequences", "FILE", "sequence ids [T] (.npy)"),
    CLI_OPTION(struct route_options, previous, "previous", "FILE",
               "the previous layer's columns [T,E] or [L,T,E] (.npy)"),
    CLI_OPTION_WITH(struct route_options, threads, "threads", "N", "threads (default: the cores, or OMP_NUM_THREADS)",
                    .min = 1, .max = 1024),
    CLI_OPTION_WITH(struct route_options, timeout, "timeout", "S", "seconds it may take (default: no limit)",
                    .min = 0.001, .max = 1e9),
    CLI_OPTION_END,
};

struct routing {
    const struct route_options *o;
    const struct moesim_router *router;
    struct moesim_arena *arena;
    struct route_input input;
    void *params;
    struct moesim_env env;
    struct moesim_shape shape;
    struct moesim_plan plan;
    void *scratch;
    struct file_output output;
    bool json_lines;
    uint64_t n_bad, n_refused, n_pairs;
};

static enum moesim_status no_memory(struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
}

/* Parameters from the spec; --group is the router's own parameter where it has one. */
static enum moesim_status set_params(struct routing *r, struct moesim_error *err)
{
    struct moesim_schema schema = moesim_router_schema(r->router);
    const struct moesim_param *group = moesim_schema_find(schema, "group");
    r->params = moesim_alloc(r->arena, 1, r->router->params_size);
    if (!r->params)
        return no_memory(err);
    enum moesim_status status = moesim_params_default(schema, r->env.top_k, r->params, r->arena, err);
    if (!status)
        status = moesim_spec_params(r->o->router, schema, r->params, r->arena, err);
    if (!status && r->o->group && group)
        status = moesim_param_set(group, r->o->group, r->params, r->arena, err);
    if (!status)
        status = moesim_files_read(schema, r->params, npy_read_array, r->arena, &r->env.files, &r->env.n_files, err);
    return status;
}

static enum moesim_status shape_router(struct routing *r, struct moesim_error *err)
{
    enum moesim_status status = moesim_router_shape(r->router, r->params, &r->env, &r->shape, err);
    if (!status && r->o->group)
        status = moesim_group_parse(r->o->group, &r->shape, err);
    if (!status)
        status = route_input_check(&r->input, r->router, &r->shape, err);
    if (!status)
        r->env.max_groups = moesim_groups_max(&r->shape, r->env.max_tokens, 1);
    return status;
}

static enum moesim_status set_up(struct routing *r, struct moesim_error *err)
{
    const struct moesim_workload_shape *file = &r->input.shape;
    uint32_t experts = r->o->experts ? r->o->experts : file->n_columns;
    if (experts > file->n_columns)
        return moesim_fail(err, MOESIM_EINVAL, "--experts %u: the file has %u columns", experts, file->n_columns);
    r->env = (struct moesim_env){.struct_size = sizeof r->env,
                                 .phase = strcmp(r->o->phase, "eval") == 0 ? MOESIM_EVAL : MOESIM_TRAIN,
                                 .seed = r->o->seed,
                                 .n_layers = file->n_layers,
                                 .n_experts = experts,
                                 .top_k = experts < 2 ? experts : 2,
                                 .d_model = r->input.d_model,
                                 .vocabulary = r->input.vocabulary,
                                 .max_tokens = file->n_tokens,
                                 .n_devices = 1,
                                 .arena = r->arena};
    uint32_t *device = moesim_alloc(r->arena, experts, sizeof *device);
    if (!device)
        return no_memory(err);
    r->env.expert_device = device;
    enum moesim_status status = set_params(r, err);
    if (!status)
        status = shape_router(r, err);
    if (!status)
        status = route_input_prepare(&r->input, r->router, &r->env, &r->shape, r->arena, err);
    if (!status)
        status = moesim_plan_init(&r->plan, r->env.max_tokens, r->shape.n_experts, r->env.max_groups,
                                  r->shape.max_pairs, 0, r->arena, err);
    r->scratch =
        status ? NULL : moesim_alloc(r->arena, moesim_plan_check_scratch(r->shape.n_experts, r->shape.max_pairs), 1);
    return !status && !r->scratch ? no_memory(err) : status;
}

/* ---- writing ---- */

static void write_pair(struct routing *r, uint32_t layer, uint32_t token, uint32_t rank, uint32_t pair)
{
    const struct moesim_plan *plan = &r->plan;
    const bool kept = plan->fate[pair] == MOESIM_KEPT;
    fprintf(r->output.stream,
            r->json_lines ? "{\"layer\":%u,\"token\":%u,\"choice\":%u,\"expert\":%u,\"weight\":%.9g,\"kept\":%d,"
                            "\"slot\":%d}\n"
                          : "%u,%u,%u,%u,%.9g,%d,%d\n",
            layer, token, rank, plan->expert[pair], (double)plan->weight[pair], kept, plan->slot[pair]);
    r->n_pairs++;
    r->n_refused += !kept;
}

/* Every decision of the layer; false when nobody takes them any more. */
static bool write_layer(struct routing *r, uint32_t layer)
{
    const struct moesim_plan *plan = &r->plan;
    for (uint32_t t = 0; t < plan->n_tokens; t++) {
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++)
            if (plan->expert[i] != MOESIM_NO_EXPERT)
                write_pair(r, layer, t, i - plan->first[t], i);
        if (t % 4096 == 4095 && (ferror(r->output.stream) || stop_signal()))
            return false;
    }
    r->n_bad += plan->n_bad_rows;
    return !ferror(r->output.stream);
}

/* ---- routing ---- */

static enum moesim_status make_state(struct routing *r, struct moesim_env *env, void **state, struct moesim_error *err)
{
    *state = moesim_alloc(env->arena, 1, r->router->state_size);
    env->weights = moesim_alloc(env->arena, r->shape.n_weights, sizeof(float));
    env->memory = moesim_alloc(env->arena, r->shape.n_memory, sizeof(float));
    if (!*state || !env->weights || !env->memory)
        return no_memory(err);
    const struct moesim_random random = {.seed = env->seed, .stream = MOESIM_STREAM_ROUTER_WEIGHT, .layer = env->layer};
    moesim_random_normals(&random, 0, r->shape.n_weights, env->weights);
    for (uint64_t i = 0; i < r->shape.n_weights; i++)
        env->weights[i] *= r->shape.weight_std;
    return moesim_router_init(r->router, *state, r->params, env, err);
}

static enum moesim_status route_layer(struct routing *r, struct moesim_env *env, struct moesim_batch *batch,
                                      struct moesim_error *err)
{
    void *state;
    enum moesim_status status = make_state(r, env, &state, err);
    if (status)
        return status;
    status = route_input_batch(&r->input, env, &r->shape, env->layer, batch, err);
    batch->weights = env->weights;
    batch->memory = env->memory;
    if (!status) {
        moesim_plan_reset(&r->plan, batch);
        status = moesim_router_route(r->router, state, batch, &r->plan, err);
    }
    if (!status)
        status = moesim_plan_check(&r->plan, batch, r->router->name, r->scratch, err);
    if (!status && r->plan.note)
        cli_note("layer %u: %s", env->layer, r->plan.note);
    if (r->router->finish)
        r->router->finish(state);
    return status;
}

static enum moesim_status route_all(struct routing *r, struct moesim_error *err)
{
    struct moesim_batch batch = {.n_tokens = 0};
    enum moesim_status status = MOESIM_OK;
    fputs(r->json_lines ? "" : "layer,token,choice,expert,weight,kept,slot\n", r->output.stream);
    for (uint32_t layer = 0; !status && layer < r->env.n_layers; layer++) {
        struct moesim_env env = r->env;
        env.layer = layer;
        env.arena = moesim_arena_create(0); /* of this layer's instance */
        status = env.arena ? route_layer(r, &env, &batch, err) : no_memory(err);
        moesim_arena_destroy(env.arena);
        if (!status && !write_layer(r, layer))
            break;
    }
    if (!status && stop_signal())
        status = moesim_fail(err, MOESIM_ESTOP, "stopped; nothing was written");
    return status;
}

static void tell(const struct routing *r)
{
    const uint64_t rows = (uint64_t)r->env.n_layers * r->env.max_tokens;
    if (r->n_bad)
        cli_note("%" PRIu64 " of %" PRIu64 " rows have no finite value and are routed nowhere", r->n_bad, rows);
    if (r->n_refused)
        cli_note("%" PRIu64 " of %" PRIu64 " pairs are over capacity (kept = 0)", r->n_refused, r->n_pairs);
}

static bool has_suffix(const char *text, const char *suffix)
{
    size_t n = text ? strlen(text) : 0, m = strlen(suffix);
    return n > m && strcmp(text + n - m, suffix) == 0;
}

/* A router out of tree may print: its stdout becomes our stderr, the results keep ours. */
static enum moesim_status open_output(struct routing *r, bool isolated, struct moesim_error *err)
{
    r->json_lines = has_suffix(r->o->output, ".jsonl");
    enum moesim_status status = cli_file_output_open(&r->output, r->o->output, err);
    int results = !status && isolated && !r->o->output ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 100) : -1;
    FILE *stream = results >= 0 ? fdopen(results, "w") : NULL;
    if (stream) {
        dup2(STDERR_FILENO, STDOUT_FILENO);
        r->output.stream = stream;
    }
    return status;
}

static int route_with(const struct cli_call *call, const struct moesim_router *router, struct moesim_arena *arena)
{
    const struct route_options *o = call->options;
    struct routing r = {.o = o, .router = router, .arena = arena};
    const struct route_files files = {call->args[0], o->tokens, o->hidden, o->sequences, o->previous};
    struct moesim_error err;
    omp_set_num_threads((int)(o->threads ? o->threads : provenance_threads()));
    enum moesim_status status = route_input_open(&r.input, &files, arena, &err);
    if (!status)
        status = set_up(&r, &err);
    stop_watch(); /* a temporary file must not stay behind */
    if (!status)
        status = open_output(&r, call->isolated, &err);
    if (!status) {
        status = route_all(&r, &err);
        if (!status && r.output.stream != stdout && !r.output.path && fflush(r.output.stream) != 0 && errno != EPIPE)
            status = moesim_fail(&err, MOESIM_EIO, "the decisions could not be written: %s", strerror(errno));
        struct moesim_error disk;
        enum moesim_status closed = cli_file_output_close(&r.output, status == MOESIM_OK, &disk);
        if (!status && closed) {
            status = closed;
            err = disk;
        }
        if (!status)
            tell(&r);
    }
    route_input_close(&r.input);
    int exit = status ? cli_fail_status(status, &err) : CLI_DONE;
    return status == MOESIM_ESTOP ? stop_exit() : exit;
}

static int route(const struct cli_call *call)
{
    const struct route_options *o = call->options;
    if (!o->router)
        return cli_fail(CLI_USAGE, "route: --router SPEC is missing; 'moesim list routers' names them");
    if (o->output && !*o->output)
        return cli_fail(CLI_USAGE, "route: -o needs a file's name");
    const char *const inputs[] = {call->args[0], o->tokens, o->hidden, o->sequences, o->previous};
    for (size_t i = 0; o->output && i < sizeof inputs / sizeof *inputs; i++)
        if (inputs[i] && cli_file_same(inputs[i], o->output))
            return cli_fail(CLI_USAGE, "route: -o %s would replace what is read", o->output);
    struct catalogue catalogue;
    const struct moesim_router_entry *entry;
    struct moesim_error err = {"memory is exhausted"};
    struct moesim_arena *arena = moesim_arena_create(0);
    enum moesim_status status = arena ? catalogue_init(&catalogue, &err) : MOESIM_ENOMEM;
    if (!arena)
        return cli_fail_status(status, &err);
    if (!status)
        status = catalogue_router(&catalogue, o->router, call->isolated, &entry, &err);
    int exit = CLI_DONE;
    if (status)
        exit = cli_fail_status(status, &err);
    else if ((entry->plugin || o->timeout > 0) && !call->isolated)
        exit = isolate_call(call, entry->spec, o->output, o->timeout);
    else
        exit = route_with(call, entry->router, arena);
    catalogue_finish(&catalogue);
    moesim_arena_destroy(arena);
    return exit;
}

static const struct cli_example examples[] = {
    {"moesim route logits.npy --router softmax-topk:k=8 -o decisions.csv",
     "gate logits [tokens, experts] or [layers, tokens, experts], saved by numpy.save"},
    {"moesim route logits.npy --router switch:capacity_factor=1.25 --group 4096 --phase eval",
     "capacity inside groups of 4096 tokens, without training noise"},
    {NULL, NULL},
};

const struct cli_verb cli_route = {
    .name = "route",
    .arguments = "LOGITS.npy",
    .summary = "route a file of gate logits and write every decision",
    .details = "The columns are layer, token, choice (rank from 0), expert, weight (the multiplier that is applied), "
               "kept (0 or 1) and slot (-1 when refused). Tokens without a finite logit do not appear; stderr counts "
               "them.",
    .examples = examples,
    .options = options,
    .defaults = &defaults,
    .options_size = sizeof(struct route_options),
    .min_args = 1,
    .max_args = 1,
    .run = route,
};
