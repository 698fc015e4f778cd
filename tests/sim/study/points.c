/*
 * From text to points: axes, order, defaults, labels, hashes, and changes from the command line.
 */
#include <criterion/criterion.h>
#include <jansson.h>
#include <string.h>

#include "tests/sim/study/fakes.h"

TestSuite(points, .timeout = 60);

static struct resolved *must(struct resolved *r)
{
    cr_assert(r->ok, "%s", mistakes_text(&r->mistakes));
    return r;
}

/* "router workload seed; ..." of all points. */
static const char *listing(const struct resolved *r)
{
    static char text[20000];
    text[0] = '\0';
    for (uint32_t i = 0; i < r->n; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s %s %llu; ", r->points[i]->router_spec,
                 r->points[i]->workload_spec, (unsigned long long)r->points[i]->seed);
    return text;
}

Test(points, defaults)
{
    struct resolved *r = must(resolve_text("workload: gaussian\nrouter: softmax-topk\n"));
    cr_assert_eq(r->n, 5);
    cr_assert_str_eq(moesim_study_name(r->study), "file");
    const struct moesim_point *p = r->points[0];
    cr_assert(p->mode == MOESIM_MODE_ROUTE && p->phase == MOESIM_TRAIN && p->steps == 50 && p->micro_batches == 1);
    cr_assert(p->n_tokens == 4096 && p->model.layers == 1 && p->model.experts == 64 && p->model.top_k == 2);
    cr_assert(p->model.d_model == 256 && p->model.d_ff == 1024 && !p->has_cluster && p->options.padding == 0);
    cr_assert_eq(((const struct fake_params *)p->router_params)->k, 2);
    cr_assert(p->measure[0] && p->measure[MOESIM_CPU_FLOP_RATE] && !p->record[0] && !p->record_expert_load);
    cr_assert(!p->measure[MOESIM_TRAIN_LOSS] && !p->measure[MOESIM_BENCH_CPU], "neither trained nor a benchmark");
    for (uint32_t i = 0; i < 5; i++)
        cr_assert_eq(r->points[i]->seed, i + 1); /* a count n: the seeds 1 to n */
    release(r);
}

Test(points, product_in_file_order_with_seeds_innermost)
{
    struct resolved *r =
        must(resolve_text("seeds: [7, 3]\nworkload: [gaussian, zipf]\n"
                          "router:\n  - null\n  - {name: switch, capacity_factor: [1.0, 2e0], k: 1}\n"));
    cr_assert_str_eq(listing(r), "null gaussian 7; null gaussian 3; "
                                 "switch:k=1,capacity_factor=1 gaussian 7; switch:k=1,capacity_factor=1 gaussian 3; "
                                 "switch:k=1,capacity_factor=2 gaussian 7; switch:k=1,capacity_factor=2 gaussian 3; "
                                 "null zipf 7; null zipf 3; "
                                 "switch:k=1,capacity_factor=1 zipf 7; switch:k=1,capacity_factor=1 zipf 3; "
                                 "switch:k=1,capacity_factor=2 zipf 7; switch:k=1,capacity_factor=2 zipf 3; ");
    release(r);
    /* The other order of keys turns the other axis first; the last key of a mapping turns fastest. */
    r = must(
        resolve_text("router: {name: [switch, softmax-topk], k: [1, 2]}\nworkload: [gaussian, zipf]\nseeds: [1]\n"));
    cr_assert_str_eq(listing(r), "switch:k=1 gaussian 1; switch:k=1 zipf 1; switch:k=2 gaussian 1; switch:k=2 zipf 1; "
                                 "softmax-topk:k=1 gaussian 1; softmax-topk:k=1 zipf 1; "
                                 "softmax-topk:k=2 gaussian 1; softmax-topk:k=2 zipf 1; ");
    release(r);
}

Test(points, what_a_file_brings)
{
    struct resolved *r = must(resolve_text("workload: {name: logits, file: eight.npy}\nrouter: softmax-topk\n"));
    const struct moesim_point *p = r->points[0];
    cr_assert(p->n_tokens == 100 && p->model.experts == 8 && p->model.layers == 2);
    release(r);
    r = must(resolve_text("workload: {name: logits, file: eight.npy, tokens: 10}\nrouter: softmax-topk\n"
                          "model: {name: mixtral-8x7b}\n"));
    p = r->points[0];
    cr_assert(p->n_tokens == 10 && p->model.layers == 2 && p->model.d_model == 4096 && p->model.d_ff == 14336);
    cr_assert_str_eq(p->workload_spec, "logits:file=eight.npy,tokens=10");
    release(r);
    r = must(resolve_text("workload: gaussian\nrouter: [softmax-topk, {name: switch, k: 1}]\n"
                          "model: {name: olmoe-1b-7b, experts: [1, 128], layers: 3}\nseeds: 1\n"
                          "exclude: [{model.experts: 1}]\n"));
    p = r->points[0];
    cr_assert(r->n == 2 && p->model.experts == 128 && p->model.top_k == 8 && p->model.layers == 3);
    cr_assert_eq(((const struct fake_params *)r->points[0]->router_params)->k, 8);
    cr_assert_eq(((const struct fake_params *)r->points[1]->router_params)->k, 1);
    release(r);
    r = must(resolve_text("workload: gaussian\nrouter: softmax-topk\nmodel: {experts: 1}\n"));
    cr_assert_eq(r->points[0]->model.top_k, 1); /* min(2, E) */
    release(r);
}

Test(points, labels_and_json)
{
    struct resolved *r = must(resolve_text("study: labels\nworkload: {name: gaussian, tokens: 512}\n"
                                           "router: {name: switch, capacity_factor: 1.25}\n"
                                           "model: {name: olmoe-1b-7b, layers: 2}\n"
                                           "cluster: {name: h100-dgx, nodes: 2}\nphase: eval\nseeds: [42]\n"));
    const struct moesim_point *p = r->points[0];
    static const struct {
        const char *path, *value;
    } labels[] = {
        {"router", "switch:capacity_factor=1.25"},
        {"router.name", "switch"},
        {"router.capacity_factor", "1.25"},
        {"router.k", "8"},
        {"router.renorm", "false"},
        {"workload", "gaussian:tokens=512"},
        {"workload.name", "gaussian"},
        {"workload.tokens", "512"},
        {"model.experts", "64"},
        {"model", "olmoe-1b-7b:layers=2"},
        {"model.layers", "2"},
        {"cluster", "h100-dgx:nodes=2"},
        {"cluster.nodes", "2"},
        {"phase", "eval"},
        {"placement", "contiguous"},
        {"placement.name", "contiguous"},
        {"seed", "42"},
        {"mode", "route"},
        {"steps", "50"},
        {"padding", "none"},
        {"backward", "false"},
        {"dispatch", "flat"},
        {"chunks", "1"},
        {"micro_batches", "1"},
        {"model.name", "olmoe-1b-7b"},
    };
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++)
        cr_expect_str_eq(label_of(p, labels[i].path), labels[i].value, "%s = %s", labels[i].path,
                         label_of(p, labels[i].path));
    for (uint32_t i = 0; i < p->n_labels; i++) {
        cr_expect(i == 0 || strcmp(p->labels[i - 1].path, p->labels[i].path) < 0, "%s", p->labels[i].path);
        const bool number = !strcmp(p->labels[i].path, "router.capacity_factor");
        cr_expect(!number || (p->labels[i].is_number && p->labels[i].number == 1.25));
    }
    cr_assert(p->has_cluster && p->cluster.nodes == 2 && !strcmp(p->placement->name, "contiguous"));

    json_error_t error;
    json_t *json = json_loads(p->json, JSON_REJECT_DUPLICATES, &error);
    cr_assert_not_null(json, "%s: %s", error.text, p->json);
    cr_assert_eq(json_integer_value(json_object_get(json, "seed")), 42);
    const json_t *router = json_object_get(json, "router");
    cr_assert_str_eq(json_string_value(json_object_get(router, "name")), "switch");
    cr_assert_eq(json_real_value(json_object_get(router, "capacity_factor")), 1.25);
    cr_assert(json_is_false(json_object_get(router, "renorm")));
    cr_assert_eq(json_integer_value(json_object_get(json_object_get(json, "model"), "d_model")), 2048);
    cr_assert_str_eq(json_string_value(json_object_get(json_object_get(json, "placement"), "name")), "contiguous");
    json_decref(json);
    json = json_loads(moesim_study_json(r->study), JSON_REJECT_DUPLICATES, &error);
    cr_assert_not_null(json, "%s", error.text);
    cr_assert_str_eq(json_string_value(json_object_get(json, "study")), "labels");
    cr_assert_eq(json_array_size(json_object_get(json, "points")), 1);
    json_decref(json);
    release(r);
}

Test(points, text_reaches_json_escaped)
{
    struct resolved *r = must(resolve_text("workload: {name: gaussian, file: 'a \"b\" \\ \xc3\xa9'}\nrouter: null\n"));
    json_error_t error;
    json_t *json = json_loads(r->points[0]->json, 0, &error);
    cr_assert_not_null(json, "%s", error.text);
    cr_assert_str_eq(json_string_value(json_object_get(json_object_get(json, "workload"), "file")),
                     "a \"b\" \\ \xc3\xa9");
    json_decref(json);
    release(r);
}

/* No router takes part in a model without experts: one point a seed, whatever routers there are. */
Test(points, a_dense_model_is_no_routers)
{
    struct resolved *r =
        must(resolve_text("mode: train\nworkload: {name: book, tokens: 64}\ntrain: {moe_every: [1, 0]}\n"
                          "router: [softmax-topk, {name: switch, k: 1}, ./mine.so]\nseeds: 2\n"));
    cr_assert_str_eq(listing(r), "softmax-topk book:tokens=64 1; softmax-topk book:tokens=64 2; "
                                 "switch:k=1 book:tokens=64 1; switch:k=1 book:tokens=64 2; "
                                 "./mine.so book:tokens=64 1; ./mine.so book:tokens=64 2; "
                                 "dense book:tokens=64 1; dense book:tokens=64 2; ");
    const struct moesim_point *p = r->points[6];
    cr_assert(!p->router->plugin && p->train.moe_every == 0);
    cr_assert_str_eq(label_of(p, "router"), "dense");
    cr_assert_str_eq(label_of(p, "router.name"), "dense");
    cr_assert_str_eq(label_of(p, "router.k"), "(none)");
    const uint64_t hash = p->hash;
    release(r);
    /* The same in a study of another router, even one that would not go with the model. */
    r = must(resolve_text("mode: train\nworkload: {name: book, tokens: 64}\ntrain: {moe_every: 0}\n"
                          "router: {name: switch, k: 65}\nseeds: 1\n"));
    cr_assert(r->n == 1 && r->points[0]->hash == hash);
    release(r);
    r = resolve_text("mode: train\nworkload: {name: book, tokens: 64}\ntrain: {moe_every: 0}\nrouter: {name: switch, "
                     "q: 1}\n");
    cr_assert(!r->ok, "a key that the router does not have");
    release(r);
    /* Other modes have a layer to route in. */
    r = must(resolve_text("mode: [route, train]\nworkload: book\ntrain: {moe_every: 0}\nrouter: switch\nseeds: 1\n"));
    cr_assert_str_eq(listing(r), "switch book 1; dense book 1; ");
    release(r);
}

/* Points of one routing are neighbours; otherwise the file's order holds. */
Test(points, routed_once_and_priced_together)
{
    struct resolved *r =
        must(resolve_text("cluster: {name: h100-dgx, nodes: [1, 2]}\nplacement: [contiguous, random]\n"
                          "padding: [none, tile]\nbackward: [false, true]\ndispatch: [normal, low-latency]\nchunks: "
                          "4\nworkload: text\nrouter: [switch, ./mine.so]\nseeds: 2\n"));
    cr_assert_eq(r->n, 2 * 2 * 2 * 2 * 2 * 2 * 2);
    for (uint32_t i = 0; i < r->n; i++) {
        const struct moesim_point *p = r->points[i];
        uint32_t n_equal = 0;
        for (uint32_t j = 0; j < r->n; j++) {
            const struct moesim_point *q = r->points[j];
            cr_assert((p->hash == q->hash) == (i == j));
            if (p->route_hash != q->route_hash)
                continue;
            n_equal++;
            cr_assert(p->seed == q->seed && p->router == q->router && p->cluster.nodes == q->cluster.nodes);
        }
        cr_assert_eq(p->options.chunks, 4);
        /* Two placements, paddings, passes and forms of dispatch; a plugin may look at anything, so it shares with
         * nobody. */
        cr_assert_eq(n_equal, p->router->plugin ? 1 : 16);
        cr_assert(n_equal == 1 || i % 16 == 0 || p->route_hash == r->points[i - 1]->route_hash ||
                  r->points[i - 1]->router->plugin || p->route_hash == r->points[i + 1]->route_hash);
    }
    for (uint32_t i = 0; i + 15 < r->n; i++) /* a routing that begins goes on to its end */
        if (!r->points[i]->router->plugin && (i == 0 || r->points[i - 1]->route_hash != r->points[i]->route_hash))
            cr_assert_eq(r->points[i]->route_hash, r->points[i + 15]->route_hash);
    cr_assert(r->points[0]->seed == 1 && r->points[16]->seed == 2);
    release(r);
}

Test(points, hashes_follow_the_meaning)
{
    const char *base = "study: s\nworkload: [gaussian, zipf]\nrouter: [switch, 'softmax-topk:k=1']\nseeds: 2\n";
    struct resolved *a = must(resolve_text(base));
    static const char *const same[] = {
        "# a comment\nseeds: [1, 2]\nstudy: s\nrouter:\n  - {name: switch}\n  - {name: softmax-topk, k: 1}\n"
        "workload: [zipf, gaussian]\nsteps: 50\nmode: route\n",
        "study: s\nworkload: [gaussian, zipf]\nrouter: [{name: switch, k: 2}, switch, 'softmax-topk:k=1']\nseeds: 2\n",
        "study: s\nworkload: [gaussian, zipf]\nrouter: [switch, 'softmax-topk:k=1']\nseeds: 9\nexclude: [{seed: [3, "
        "4]}]\n",
    };
    for (size_t i = 0; i < 3; i++) {
        struct resolved *b = must(resolve_text(same[i]));
        cr_expect_eq(moesim_study_hash(a->study), moesim_study_hash(b->study), "%zu:\n%s\n%s", i,
                     moesim_study_json(a->study), moesim_study_json(b->study));
        for (uint32_t j = 0; j < a->n; j++) {
            uint32_t n = 0;
            for (uint32_t k = 0; k < b->n; k++)
                n += b->points[k]->hash == a->points[j]->hash;
            cr_expect_eq(n, 1, "%s", a->points[j]->json);
        }
        cr_expect_eq(b->n, i == 2 ? 4 * 7 : a->n);
        release(b);
    }
    static const char *const other[] = {
        "study: t\nworkload: [gaussian, zipf]\nrouter: [switch, 'softmax-topk:k=1']\nseeds: 2\n",
        "study: s\nworkload: [gaussian, zipf]\nrouter: [switch, 'softmax-topk:k=2']\nseeds: 2\n",
        "study: s\nworkload: [gaussian, zipf]\nrouter: [switch, 'softmax-topk:k=1']\nseeds: 2\nrecord: load_cv\n",
        "study: s\nworkload: [gaussian, zipf]\nrouter: [switch, 'softmax-topk:k=1']\nseeds: 2\nmetrics: load_cv\n",
    };
    for (size_t i = 0; i < 4; i++) {
        struct resolved *b = must(resolve_text(other[i]));
        cr_expect_neq(moesim_study_hash(a->study), moesim_study_hash(b->study), "%zu", i);
        release(b);
    }
    release(a);
}

/* A plugin whose file changed is another router. */
Test(points, plugin_file_counts)
{
    struct moesim_router_entry entries[] = {{"./mine.so", &fake_plugin, true, 1}};
    struct moesim_registry registry = {entries, 1, fake_workloads, fake_registry.n_workloads, NULL, NULL, NULL};
    uint64_t hash[2];
    for (int i = 0; i < 2; i++) {
        entries[0].file_hash = (uint64_t)i + 1;
        struct resolved *r = begin_study("workload: text\nrouter: ./mine.so\n");
        cr_assert(moesim_study_resolve(r->study, &registry, &r->points, &r->n, &r->mistakes));
        hash[i] = r->points[0]->hash;
        release(r);
    }
    cr_assert_neq(hash[0], hash[1]);
}

static uint64_t content; /* of every file whose name ends in .npy or .json */

static bool hash_fake_path(const char *path, uint64_t *hash)
{
    *hash = content;
    return strstr(path, ".npy") || strstr(path, ".json");
}

static enum moesim_status read_fake_loads(const char *path, struct moesim_arena *arena, struct moesim_file_array *array,
                                          struct moesim_error *err)
{
    static const float loads[] = {1, 1, 1, 1};
    (void)path, (void)arena, (void)err;
    *array = (struct moesim_file_array){.values = loads, .n = 4, .n_dimensions = 1, .shape = {4}};
    return MOESIM_OK;
}

/* A file that changed under the same name makes another point. One that only the cost looks at leaves the routing as it
 * is; what names no file is as if files were not looked at. */
Test(points, files_count)
{
    static const struct {
        const char *study;
        bool of_point, of_routing;
    } cases[] = {
        {"workload: {name: logits, file: eight.npy}\nrouter: null\n", true, true},
        {"workload: gaussian\nrouter: null\nmodel: {experts: 4}\ncluster: {name: h100-dgx, devices_per_node: 2}\n"
         "placement: {name: lpt, from: four.json}\n",
         true, false},
        {"workload: gaussian\nrouter: switch\n", false, false},
    };
    struct moesim_registry registry = fake_registry;
    registry.read_loads = read_fake_loads;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint64_t hash[3], route_hash[3];
        registry.hash_path = hash_fake_path;
        for (uint32_t i = 0; i < 3; i++) {
            content = i == 1;
            registry.hash_path = i == 2 ? NULL : hash_fake_path;
            struct resolved *r = begin_study(cases[c].study);
            moesim_study_resolve(r->study, &registry, &r->points, &r->n, &r->mistakes);
            cr_assert_eq(r->mistakes.n, 0, "%s", mistakes_text(&r->mistakes));
            hash[i] = r->points[0]->hash;
            route_hash[i] = r->points[0]->route_hash;
            release(r);
        }
        cr_expect_eq(hash[0] != hash[1], cases[c].of_point, "%s", cases[c].study);
        cr_expect_eq(route_hash[0] != route_hash[1], cases[c].of_routing, "%s", cases[c].study);
        cr_expect_eq(hash[0] != hash[2], cases[c].of_point);
    }
}

/* Every text as a whole, then what is between its commas. */
Test(points, paths_of_parameters)
{
    struct {
        const char *a;
        uint32_t n;
        const char *b, *c;
    } p = {"x, y,,z", 7, "", "one"};
    const struct moesim_param rows[] = {
        {.key = "a", .type = MOESIM_TYPE_TEXT, .offset = 0},
        {.key = "n", .type = MOESIM_TYPE_UINT, .offset = (uint32_t)((char *)&p.n - (char *)&p)},
        {.key = "b", .type = MOESIM_TYPE_FILE, .offset = (uint32_t)((char *)&p.b - (char *)&p)},
        {.key = "c", .type = MOESIM_TYPE_FILE, .offset = (uint32_t)((char *)&p.c - (char *)&p)},
        {.key = NULL},
    };
    static const char *const expected[] = {"x, y,,z", "x", "y", "z", "one"};
    struct moesim_path_walk walk = {.schema = {rows, sizeof *rows}, .params = &p};
    size_t n = 0;
    for (; moesim_path_next(&walk); n++)
        cr_assert(n < 5 && !strcmp(walk.path, expected[n]), "%zu: '%s'", n, walk.path);
    cr_assert_eq(n, 5);
}

Test(points, exclude)
{
    const char *axes =
        "workload: [gaussian, zipf]\nseeds: 3\nrouter: [null, {name: switch, capacity_factor: [1, 2]}]\n";
    static const struct {
        const char *rules;
        uint32_t n; /* of 18 */
    } cases[] = {
        {"[{router: switch}]", 6},
        {"[{router.name: switch}]", 6},
        {"[{router: 'switch:capacity_factor=2'}]", 12},
        {"[{router.capacity_factor: 2.0}]", 12},
        {"[{router.capacity_factor: [1, 2]}]", 6},
        {"[{router: switch, workload: zipf}]", 12},
        {"[{router: switch, workload: zipf, seed: 2}]", 16},
        {"[{seed: [1, 3]}, {router: null}]", 4},
        {"[{steps: 51}]", 18},
        {"[{router: absent}]", 18},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[400];
        snprintf(text, sizeof text, "%sexclude: %s\n", axes, cases[i].rules);
        struct resolved *r = must(resolve_text(text));
        cr_expect_eq(r->n, cases[i].n, "%s leaves %u", cases[i].rules, r->n);
        release(r);
    }
    /* What is excluded need not make sense. */
    struct resolved *r =
        must(resolve_text("workload: gaussian\nrouter: {name: switch, k: [1, 9]}\nmodel: {experts: [8, 16]}\n"
                          "seeds: 1\nexclude: [{router.k: 9, model.experts: 8}]\n"));
    cr_assert_eq(r->n, 3);
    release(r);
}

Test(points, record_and_metrics)
{
    struct resolved *r = must(resolve_text("workload: gaussian\nrouter: null\ncluster: laptop\n"
                                           "record: [expert_load, traffic, load_cv]\nmetrics: [load_cv, max_vio]\n"));
    const struct moesim_point *p = r->points[0];
    cr_assert(p->record_expert_load && p->record_traffic);
    for (int i = 0; i < MOESIM_N_METRICS; i++) {
        cr_expect_eq(p->record[i], i == MOESIM_LOAD_CV);
        cr_expect_eq(p->measure[i], i == MOESIM_LOAD_CV || i == MOESIM_MAX_VIO);
    }
    release(r);
    r = must(resolve_text("record: load_cv\nworkload: gaussian\nrouter: null\n")); /* one word, then other keys */
    cr_assert(r->points[0]->record[MOESIM_LOAD_CV] && !r->points[0]->record_expert_load);
    release(r);
}

Test(points, set)
{
    static const char *const assignments[] = {"model.experts=32",
                                              "router=switch:capacity_factor=2",
                                              "steps=5",
                                              "seeds=3",
                                              "workload=[gaussian, zipf]",
                                              "router.k=[1, 2]",
                                              "cluster=h100-dgx",
                                              "cluster.nodes=2"};
    struct resolved *r = begin_study("workload: text\nrouter: null\n");
    for (size_t i = 0; i < sizeof assignments / sizeof *assignments; i++)
        moesim_study_set(r->study, assignments[i], &r->mistakes);
    must(finish_study(r));
    cr_assert_eq(r->n, 2 * 2 * 3);
    const struct moesim_point *p = r->points[0];
    cr_assert(p->model.experts == 32 && p->steps == 5 && p->cluster.nodes == 2);
    cr_assert_str_eq(p->router_spec, "switch:k=1,capacity_factor=2");
    release(r);

    /* In every variant of a list. */
    r = begin_study("workload: gaussian\nrouter: [switch, {name: softmax-topk, k: 3}]\nseeds: 1\n");
    moesim_study_set(r->study, "router.k=4", &r->mistakes);
    must(finish_study(r));
    cr_assert_str_eq(listing(r), "switch:k=4 gaussian 1; softmax-topk:k=4 gaussian 1; ");
    release(r);
}

Test(points, set_refusals)
{
    static const struct {
        const char *assignment, *mistake;
    } cases[] = {
        {"steps", "0:0: --set steps: write PATH=VALUE, such as steps=20 or model.experts=[8, 64]\n"},
        {"steps=", "0:0: --set steps=: write PATH=VALUE, such as steps=20 or model.experts=[8, 64]\n"},
        {"=3", "0:0: --set =3: write PATH=VALUE, such as steps=20 or model.experts=[8, 64]\n"},
        {"stepz=3", "0:0: --set stepz=3: unknown key 'stepz'; did you mean 'steps'?\n"},
        {"steps.a=3", "0:0: --set steps.a=3: 'steps' has no such part\n"},
        {"router.=3", "0:0: --set router.=3: 'router' has no such part\n"},
        {"steps=[1", "0:0: --set steps=[1: not valid YAML: did not find expected ',' or ']'\n"},
        {"steps=\xff", "0:0: --set steps=\xff: not valid YAML: invalid leading UTF-8 octet\n"},
        {"router.kk=3", "0:0: unknown key 'kk' of router switch; did you mean 'k'?\n"},
        {"steps=x", "0:0: steps = 'x' is not a whole number\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct resolved *r = begin_study("workload: gaussian\nrouter: switch\n");
        moesim_study_set(r->study, cases[i].assignment, &r->mistakes);
        finish_study(r);
        cr_expect_str_eq(mistakes_text(&r->mistakes), cases[i].mistake, "%s", mistakes_text(&r->mistakes));
        release(r);
    }
}

Test(points, replace)
{
    static const char *const routers[] = {"null", "switch:k=1,capacity_factor=2"}, *const workloads[] = {"zipf"};
    struct resolved *r = begin_study("workload: [gaussian, text]\nrouter: absent\nseeds: [5]\n");
    moesim_study_replace(r->study, "router", routers, 2, &r->mistakes);
    moesim_study_replace(r->study, "workload", workloads, 1, &r->mistakes);
    must(finish_study(r));
    cr_assert_str_eq(listing(r), "null zipf 5; switch:k=1,capacity_factor=2 zipf 5; ");
    release(r);

    static const char *const bad[] = {"swich", "switch:k=\xff"};
    r = finish_study(begin_study("workload: gaussian\nrouter: switch\n"));
    release(r);
    r = begin_study("workload: gaussian\nrouter: switch\n");
    moesim_study_replace(r->study, "router", bad, 2, &r->mistakes);
    finish_study(r);
    cr_assert(!r->ok && strstr(mistakes_text(&r->mistakes), "unknown router 'swich'; did you mean 'switch'?") &&
              strstr(mistakes_text(&r->mistakes), "a control character or bad UTF-8"));
    release(r);
}

Test(points, plugin_paths)
{
    struct resolved *r =
        begin_study("workload: text\n"
                    "router: [switch, ./mine.so, {name: [./b.so, null, mine.so], k: 1}, './mine.so:k=2']\n");
    uint32_t n = 0;
    const char *const *paths = moesim_study_plugin_paths(r->study, &n);
    cr_assert_eq(n, 3);
    cr_assert(!strcmp(paths[0], "./mine.so") && !strcmp(paths[1], "./b.so") && !strcmp(paths[2], "mine.so"));
    release(r);
    r = begin_study("workload: text\n");
    moesim_study_plugin_paths(r->study, &n);
    cr_assert_eq(n, 0);
    release(r);
    r = must(resolve_text("workload: text\nrouter: './mine.so:k=2'\n"));
    cr_assert_str_eq(r->points[0]->router_spec, "./mine.so:k=2");
    cr_assert_str_eq(label_of(r->points[0], "router.name"), "mine");
    release(r);
}

Test(points, builtin_studies_name_themselves)
{
    uint32_t n = 0;
    for (const struct moesim_builtin_study *b = moesim_builtin_studies; b->name; b++, n++) {
        struct resolved *r = begin_study(b->text);
        cr_assert_not_null(r->study, "%s: %s", b->name, mistakes_text(&r->mistakes));
        cr_assert_str_eq(moesim_study_name(r->study), b->name);
        cr_assert_eq(moesim_study_builtin(b->name), b->text);
        release(r);
    }
    cr_assert_gt(n, 0);
    cr_assert_null(moesim_study_builtin("absent"));
}

/* With any allowance of memory a study is either whole or refused; it is never a smaller study. */
Test(points, memory_that_ends)
{
    const char *text =
        "workload: [gaussian, zipf]\nrouter: [{name: switch, k: [1, 2]}, 'softmax-topk:group=batch', ./mine.so]\n"
        "model: olmoe-1b-7b\ncluster: {name: h100-dgx, nodes: 2}\nexclude: [{router: ./mine.so}]\n";
    static const char *const routers[] = {"null", "switch:group=batch"};
    struct resolved *whole = begin_study(text);
    moesim_study_set(whole->study, "workload=[gaussian, lognormal]", &whole->mistakes);
    moesim_study_replace(whole->study, "router", routers, 2, &whole->mistakes);
    moesim_study_set(whole->study, "router.group=device", &whole->mistakes);
    moesim_study_set(whole->study, "router=switch", &whole->mistakes);
    must(finish_study(whole));
    uint32_t n_refused = 0, n_whole = 0;
    for (size_t limit = 64; n_whole < 3; limit += 448) {
        struct resolved r = {.arena = moesim_arena_create(limit)};
        uint32_t n_paths;
        if (!r.arena)
            continue;
        r.study = moesim_study_parse("file.yaml", text, strlen(text), r.arena, &r.mistakes);
        if (r.study) {
            moesim_study_set(r.study, "workload=[gaussian, lognormal]", &r.mistakes);
            moesim_study_replace(r.study, "router", routers, 2, &r.mistakes);
            moesim_study_set(r.study, "router.group=device", &r.mistakes);
            moesim_study_set(r.study, "router=switch", &r.mistakes);
            moesim_study_plugin_paths(r.study, &n_paths);
        }
        finish_study(&r);
        if (r.ok) {
            cr_assert_eq(r.n, whole->n, "limit %zu", limit);
            cr_assert_eq(r.points[r.n - 1]->hash, whole->points[whole->n - 1]->hash);
            cr_assert_eq(moesim_study_hash(r.study), moesim_study_hash(whole->study));
        } else {
            cr_assert(strstr(mistakes_text(&r.mistakes), "memory"), "limit %zu: %s", limit, mistakes_text(&r.mistakes));
        }
        n_whole += r.ok;
        n_refused += !r.ok;
        moesim_arena_destroy(r.arena);
    }
    cr_assert_gt(n_refused, 100);
    release(whole);
}
