/*
 * Max-min fair flows against SimGrid (model CM02, without cross-traffic and TCP's window): 50 random matrices on up to
 * 64 devices, NVLink, NICs and oversubscribed leaf switches.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdint.h>

enum { N_CASES = 50 };

#ifdef MOESIM_HAS_SIMGRID

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <simgrid/actor.h>
#include <simgrid/engine.h>
#include <simgrid/host.h>

#include <moesim/random.h>

#include "sim/cost/flows.h"

#define NVLINK 150e9
#define NIC 45e9

/* Links: device d's NVLink out is 4d, in 4d + 1, its NIC out 4d + 2, in 4d + 3; then leaf l's uplink and downlink. */
struct world {
    uint32_t devices, per_node, per_leaf, n_leaves;
    double uplink;
    size_t n;
    struct moesim_flow flow[64 * 64];
    uint32_t source[64 * 64], target[64 * 64];
    double end[64 * 64], theirs[64 * 64];
};
static struct world world;

/* ---- one random exchange ---- */

static double draw_bytes(const struct moesim_random *random, uint32_t kind, uint32_t s, uint32_t t)
{
    const uint64_t at = (uint64_t)s * 64 + t;
    const double u = (1 + moesim_random_below(random, 100 + at, 1000000)) / 1e6;
    switch (kind) {
    case 0: /* even */
        return 1e10;
    case 1: /* lognormal */
        return 1e10 * exp(sqrt(-2 * log(u)) * cos(6.2831853 * moesim_random_below(random, 9000 + at, 1000) / 1e3));
    case 2: /* sparse */
        return u < 0.2 || s + t == 1 ? 1e11 * u : 0;
    case 3: /* popular targets */
        return 1e11 / (1 + t) / (1 + s % 7);
    default: /* one hot device */
        return t == 5 ? 1e11 : 1e9;
    }
}

static void make_world(uint32_t seed)
{
    static const uint32_t nodes[] = {2, 4, 4, 8, 16}, per_node[] = {2, 2, 4, 4, 4};
    const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
    struct world *w = &world;
    w->per_node = per_node[seed % 5];
    w->devices = nodes[seed % 5] * w->per_node;
    w->per_leaf = w->per_node * (1 + moesim_random_below(&random, 0, nodes[seed % 5] / 2));
    w->n_leaves = (w->devices + w->per_leaf - 1) / w->per_leaf;
    w->uplink = w->per_leaf * NIC / (1 + moesim_random_below(&random, 1, 4));
    for (uint32_t s = 0; s < w->devices; s++)
        for (uint32_t t = 0; t < w->devices; t++) {
            const double bytes = s == t ? 0 : draw_bytes(&random, seed / 5 % 5, s, t);
            if (!(bytes > 0))
                continue;
            const uint32_t inside = s / w->per_node == t / w->per_node ? 0 : 2;
            struct moesim_flow *f = &w->flow[w->n];
            *f = (struct moesim_flow){{4 * s + inside, 4 * t + inside + 1}, 2, bytes};
            if (s / w->per_leaf != t / w->per_leaf) {
                f->link[f->n_links++] = 4 * w->devices + 2 * (s / w->per_leaf);
                f->link[f->n_links++] = 4 * w->devices + 2 * (t / w->per_leaf) + 1;
            }
            w->source[w->n] = s;
            w->target[w->n++] = t;
        }
}

/* ---- the same in SimGrid ---- */

static void write_route(FILE *out, uint32_t s, uint32_t t)
{
    const struct world *w = &world;
    const char *kind = s / w->per_node == t / w->per_node ? "nvlink" : "nic";
    fprintf(out, "<route src=\"h%u\" dst=\"h%u\" symmetrical=\"NO\"><link_ctn id=\"%s%u\" direction=\"UP\"/>", s, t,
            kind, s);
    if (s / w->per_leaf != t / w->per_leaf)
        fprintf(out, "<link_ctn id=\"leaf%u\" direction=\"UP\"/><link_ctn id=\"leaf%u\" direction=\"DOWN\"/>",
                s / w->per_leaf, t / w->per_leaf);
    fprintf(out, "<link_ctn id=\"%s%u\" direction=\"DOWN\"/></route>\n", kind, t);
}

/* Every route has the same latency, so that no flow counts for less than another. */
static void write_platform(FILE *out)
{
    const struct world *w = &world;
    const char *link = "<link id=\"%s%u\" bandwidth=\"%.0fBps\" latency=\"%s\" sharing_policy=\"SPLITDUPLEX\"/>\n";
    fputs("<?xml version='1.0'?>\n<!DOCTYPE platform SYSTEM \"https://simgrid.org/simgrid.dtd\">\n"
          "<platform version=\"4.1\"><zone id=\"z\" routing=\"Full\">\n",
          out);
    for (uint32_t d = 0; d < w->devices; d++)
        fprintf(out, "<host id=\"h%u\" speed=\"1Gf\"/>\n", d);
    for (uint32_t d = 0; d < w->devices; d++) {
        fprintf(out, link, "nvlink", d, NVLINK, "1us");
        fprintf(out, link, "nic", d, NIC, "1us");
    }
    for (uint32_t l = 0; l < w->n_leaves; l++)
        fprintf(out, link, "leaf", l, w->uplink, "0us");
    for (uint32_t s = 0; s < w->devices; s++)
        for (uint32_t t = 0; t < w->devices; t++)
            if (s != t)
                write_route(out, s, t);
    fputs("</zone></platform>\n", out);
}

static void send_flow(int argc, char **argv)
{
    char name[16];
    const size_t i = strtoul(argv[argc - 1], NULL, 10);
    snprintf(name, sizeof name, "h%u", world.target[i]);
    sg_host_sendto(sg_host_self(), sg_host_by_name(name), world.flow[i].bytes);
    world.theirs[i] = simgrid_get_clock();
}

static void simulate(void)
{
    char path[] = "/tmp/moesim-platform-XXXXXX.xml", name[16], number[16];
    char *arguments[] = {"simgrid",
                         "--cfg=network/model:CM02",
                         "--cfg=network/crosstraffic:0",
                         "--cfg=network/TCP-gamma:0",
                         "--cfg=network/optim:Full", /* lazy updates let flows of 3.32 outrun a shared link */
                         "--cfg=contexts/stack-size:16",
                         "--log=root.threshold:error",
                         NULL};
    char **argv = arguments;
    int argc = 7;
    const int file = mkstemps(path, 4);
    FILE *out = file >= 0 ? fdopen(file, "w") : NULL;
    cr_assert(out);
    write_platform(out);
    fclose(out);
    simgrid_init(&argc, argv);
    simgrid_load_platform(path);
    for (size_t i = 0; i < world.n; i++) {
        snprintf(name, sizeof name, "h%u", world.source[i]);
        snprintf(number, sizeof number, "%zu", i);
        const char *args[] = {number};
        sg_actor_create_("flow", sg_host_by_name(name), send_flow, 1, args);
    }
    simgrid_run();
    unlink(path);
}

static void compare(uint32_t seed)
{
    struct world *w = &world;
    double rate[4 * 64 + 2 * 64], mine = 0, theirs = 0;
    struct moesim_error err = {""};
    make_world(seed);
    for (uint32_t i = 0; i < 4 * w->devices; i++)
        rate[i] = i % 4 < 2 ? NVLINK : NIC;
    for (uint32_t i = 0; i < 2 * w->n_leaves; i++)
        rate[4 * w->devices + i] = w->uplink;
    cr_assert_eq(moesim_flows_run(w->flow, w->n, rate, 4 * w->devices + 2 * w->n_leaves, 0, w->end, &err), MOESIM_OK);
    simulate();
    for (size_t i = 0; i < w->n; i++) {
        mine = fmax(mine, w->end[i]);
        theirs = fmax(theirs, w->theirs[i]);
    }
    cr_assert(mine > 0 && fabs(mine - theirs) <= 1e-3 * theirs, "case %u: %.9g s, SimGrid %.9g s", seed, mine, theirs);
    for (size_t i = 0; i < w->n; i++)
        cr_assert(fabs(w->end[i] - w->theirs[i]) <= 1e-3 * theirs, "case %u, flow %u to %u: %.9g s, SimGrid %.9g s",
                  seed, w->source[i], w->target[i], w->end[i], w->theirs[i]);
}

#else

static void compare(uint32_t seed)
{
    (void)seed;
    cr_skip_test("libsimgrid-dev is not installed: max-min is checked against the slow filling only");
}

#endif

/* SimGrid lives once in a process, so every case gets one. */
ParameterizedTestParameters(simgrid, random_matrices)
{
    static uint32_t seed[N_CASES];
    for (uint32_t i = 0; i < N_CASES; i++)
        seed[i] = i;
    return cr_make_param_array(uint32_t, seed, N_CASES);
}

ParameterizedTest(uint32_t *seed, simgrid, random_matrices, .timeout = 60)
{
    compare(*seed);
}
