/* The price of a layer, for people and for programs. */
#include "cli/cost_print.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/message.h"
#include "cli/options.h"
#include "cli/print_table.h"
#include "sim/cost/exchange.h"

static const char *const port_name[] = {"NVLink out", "NVLink in", "NIC out", "NIC in", "leaf up", "leaf down", "-"};
static const char *const port_key[] = {"nvlink_out", "nvlink_in", "nic_out", "nic_in", "leaf_up", "leaf_down", "none"};

#define DISPATCH_ROW MOESIM_CHOICE(struct moesim_cost_options, dispatch, "", MOESIM_DISPATCH_CHOICES, "")
#define PADDING_ROW MOESIM_CHOICE(struct moesim_cost_options, padding, "", MOESIM_PADDING_CHOICES, "")

static void format_choice(const struct moesim_param *row, const struct moesim_cost_options *options, char text[32])
{
    moesim_param_format(row, options, text, 32);
}

/* ---- ports ---- */

/* Bytes that one kind of port carries in dispatch and combine together. */
struct port_load {
    uint32_t n; /* ports of the kind; 0 = the cluster has none */
    double mean, most;
    uint32_t busiest; /* device, or leaf switch */
};

/* One copy to the experts, and its answer. */
struct copy_bytes {
    double there, back;
};

static struct copy_bytes copy_bytes(const struct moesim_point *p)
{
    const uint32_t exchanges = moesim_exchanges(&p->options);
    return (struct copy_bytes){
        exchanges * moesim_dispatch_bytes(&p->model, (enum moesim_dispatch)p->options.dispatch),
        exchanges * moesim_combine_bytes(&p->model),
    };
}

/* Copies that go out by a port and that come in; combine is the other way round. */
static void port_copies(const struct moesim_cost_work *work, enum moesim_port port, uint32_t i, double *with,
                        double *against)
{
    const struct moesim_ports *p = port < MOESIM_LEAF_UP ? &work->port[i] : NULL;
    const struct moesim_leaf *l = port < MOESIM_LEAF_UP ? NULL : &work->leaf[i];
    const double pair[3][2] = {{p ? (double)p->nvlink_out : 0, p ? (double)p->nvlink_in : 0},
                               {p ? (double)p->nic_out : 0, p ? (double)p->nic_in : 0},
                               {l ? (double)l->up : 0, l ? (double)l->down : 0}};
    *with = pair[port / 2][port % 2];
    *against = pair[port / 2][1 - port % 2];
}

static struct port_load port_load(const struct cost_result *r, enum moesim_port port)
{
    const struct moesim_cluster *c = &r->point->cluster;
    const bool there[] = {c->devices_per_node > 1, c->nodes > 1, r->work->n_leaves > 1};
    struct port_load load = {.n = port < MOESIM_LEAF_UP ? r->work->n_devices : r->work->n_leaves};
    if (!there[port / 2])
        return (struct port_load){0};
    const struct copy_bytes copy = copy_bytes(r->point);
    for (uint32_t i = 0; i < load.n; i++) {
        double with, against;
        port_copies(r->work, port, i, &with, &against);
        const double bytes = with * copy.there + against * copy.back;
        load.mean += bytes / load.n;
        if (bytes > load.most) {
            load.most = bytes;
            load.busiest = i;
        }
    }
    return load;
}

/* ---- exchanges ---- */

/* What one exchange waits for, and its bandwidths: logical counts what a token's own device and node get too, as DeepEP
 * prints it, of the mean device; physical, what really passes the busiest port. */
struct exchange_figures {
    struct moesim_bound bound;
    double logical, physical; /* bytes per second; NaN when nothing moves */
};

/* Copies of the mean device, its own among them: a node's, a device's or an expert's, as the form sends them. */
static double logical_copies(const struct cost_result *r, enum moesim_port port)
{
    const double served = (double)r->work->fanout.tokens / r->work->n_devices;
    const uint32_t form = r->point->options.dispatch;
    if (form == MOESIM_DISPATCH_LOW_LATENCY)
        return served * r->metric[MOESIM_EXPERTS_PER_TOKEN];
    const bool by_node = form == MOESIM_DISPATCH_NORMAL && port >= MOESIM_NIC_OUT;
    return served * r->metric[by_node ? MOESIM_NODE_FANOUT : MOESIM_DEVICE_FANOUT];
}

static double most_copies(const struct cost_result *r, enum moesim_port port)
{
    double most = 0;
    const uint32_t n = port < MOESIM_LEAF_UP ? r->work->n_devices : r->work->n_leaves;
    for (uint32_t i = 0; i < n; i++) {
        double with, against;
        port_copies(r->work, port, i, &with, &against);
        most = fmax(most, with);
    }
    return most;
}

static struct exchange_figures exchange_figures(const struct cost_result *r, bool dispatch)
{
    const struct copy_bytes copy = copy_bytes(r->point);
    const double bytes = dispatch ? copy.there : copy.back,
                 time_s = r->metric[dispatch ? MOESIM_TIME_DISPATCH : MOESIM_TIME_COMBINE];
    struct exchange_figures figures = {
        .bound = moesim_exchange_bound(&r->work->exchange, bytes / moesim_exchanges(&r->point->options)),
        .logical = (double)NAN,
        .physical = (double)NAN,
    };
    const enum moesim_port port = figures.bound.port;
    if (port == MOESIM_NO_PORT || !(time_s > 0))
        return figures;
    figures.physical = most_copies(r, port) * bytes / time_s;
    if (r->point->options.dispatch <= MOESIM_DISPATCH_LOW_LATENCY && port < MOESIM_LEAF_UP)
        figures.logical = logical_copies(r, port) * bytes / time_s;
    if (!dispatch) /* the transpose: what went out of the port comes in by it */
        figures.bound.port = port ^ 1;
    return figures;
}

/* ---- for people ---- */

static const char *format_scaled(double x, const char *const unit[], uint32_t n_units, double step, char text[24])
{
    uint32_t i = 0;
    if (x == 0)
        return "0";
    while (i + 1 < n_units && x < 1) {
        x *= step;
        i++;
    }
    snprintf(text, 24, "%.*f %s", x < 10 ? 2 : x < 100 ? 1 : 0, x, unit[i]);
    return text;
}

static const char *format_time(double seconds, char text[24])
{
    static const char *const unit[] = {"s", "ms", "us"};
    return isnan(seconds) ? "-" : format_scaled(seconds, unit, 3, 1e3, text);
}

static const char *format_bytes(double bytes, char text[24])
{
    static const char *const unit[] = {"TB", "GB", "MB", "kB", "B"};
    return isnan(bytes) ? "-" : format_scaled(bytes / 1e12, unit, 5, 1e3, text);
}

static const char *format_rate(double rate, char text[24])
{
    if (isnan(rate))
        return "-";
    snprintf(text, 24, "%.1f GB/s", rate / 1e9);
    return text;
}

static void format_bound(const struct moesim_bound *bound, char text[48])
{
    if (bound->port == MOESIM_NO_PORT)
        snprintf(text, 48, "-");
    else
        snprintf(text, 48, "%s, %s %u", port_name[bound->port], bound->port < MOESIM_LEAF_UP ? "device" : "leaf",
                 bound->index);
}

static void add_exchange(struct print_table *table, const struct cost_result *r, bool dispatch)
{
    char number[24], bound[48];
    const struct exchange_figures figures = exchange_figures(r, dispatch);
    format_bound(&figures.bound, bound);
    print_text(table, format_bytes(r->metric[dispatch ? MOESIM_BYTES_DISPATCH : MOESIM_BYTES_COMBINE], number));
    print_text(table, bound);
    print_text(table, format_rate(figures.logical, number));
    print_text(table, format_rate(figures.physical, number));
}

static bool print_phases(const struct cost_result *r)
{
    static const struct {
        const char *name;
        uint32_t metric;
    } phases[] = {{"gate", MOESIM_TIME_GATE},       {"dispatch", MOESIM_TIME_DISPATCH},
                  {"experts", MOESIM_TIME_COMPUTE}, {"combine", MOESIM_TIME_COMBINE},
                  {"layer", MOESIM_TIME_LAYER},     {"sync", MOESIM_TIME_SYNC}};
    const struct print_column columns[] = {
        {.title = "phase"},    {.title = "time", .right = true},    {.title = "bytes", .right = true},
        {.title = "bound by"}, {.title = "logical", .right = true}, {.title = "physical", .right = true}};
    struct print_table *table = print_table_create(columns, 6);
    for (size_t i = 0; table && i < sizeof phases / sizeof *phases; i++) {
        char number[24];
        const uint32_t metric = phases[i].metric;
        if (isnan(r->metric[metric]))
            continue;
        print_text(table, phases[i].name);
        print_text(table, format_time(r->metric[metric], number));
        if (metric == MOESIM_TIME_DISPATCH || metric == MOESIM_TIME_COMBINE) {
            add_exchange(table, r, metric == MOESIM_TIME_DISPATCH);
            continue;
        }
        for (int empty = 0; empty < 4; empty++)
            print_text(table, "");
    }
    const bool good = table && print_table(table, PRINT_TABLE);
    print_table_destroy(table);
    return good;
}

static bool print_ports(const struct cost_result *r)
{
    const struct print_column columns[] = {
        {.title = "port"}, {.title = "mean", .right = true}, {.title = "busiest", .right = true}, {.title = "which"}};
    struct print_table *table = print_table_create(columns, 4);
    uint32_t n = 0;
    for (uint32_t port = MOESIM_NVLINK_OUT; table && port < MOESIM_NO_PORT; port++) {
        const struct port_load load = port_load(r, (enum moesim_port)port);
        char number[24], which[48];
        if (!load.n)
            continue;
        n++;
        snprintf(which, sizeof which, "%s %u", port < MOESIM_LEAF_UP ? "device" : "leaf", load.busiest);
        print_text(table, port_name[port]);
        print_text(table, format_bytes(load.mean, number));
        print_text(table, format_bytes(load.most, number));
        print_text(table, load.most > 0 ? which : "-");
    }
    bool good = table != NULL;
    if (n) {
        puts("");
        good = good && print_table(table, PRINT_TABLE);
    }
    print_table_destroy(table);
    return good;
}

static void print_head(const struct cost_result *r)
{
    const struct moesim_point *p = r->point;
    const struct moesim_cluster *c = &p->cluster;
    char line[1024], safe[1024], form[32];
    format_choice(&(const struct moesim_param)DISPATCH_ROW, &p->options, form);
    snprintf(line, sizeof line, "%s on %s: %u device%s (%u node%s of %u), EP %u, %u tokens a device", p->model.name,
             c->name, r->work->n_devices, r->work->n_devices > 1 ? "s" : "", c->nodes, c->nodes > 1 ? "s" : "",
             c->devices_per_node, moesim_cluster_ep(c), p->n_tokens / r->work->n_devices);
    cli_print_wrapped(stdout, cli_printable(line, safe, sizeof safe), 0, 2);
    snprintf(line, sizeof line, "%s (%s), placement %s, dispatch %s; modelled", p->router_spec, p->workload_spec,
             p->placement_spec, form);
    cli_print_wrapped(stdout, cli_printable(line, safe, sizeof safe), 0, 2);
    puts("");
}

static void print_routing(const struct cost_result *r)
{
    const double *m = r->metric;
    char line[512];
    size_t n = (size_t)snprintf(line, sizeof line, "busiest device %.2fx the mean", m[MOESIM_DEVICE_IMBALANCE]);
    if (r->point->cluster.nodes > 1)
        n += (size_t)snprintf(line + n, sizeof line - n, ", node %.2fx", m[MOESIM_NODE_IMBALANCE]);
    n += (size_t)snprintf(line + n, sizeof line - n, "; a token reaches %.2f devices", m[MOESIM_DEVICE_FANOUT]);
    if (r->point->cluster.nodes > 1)
        n += (size_t)snprintf(line + n, sizeof line - n, ", %.2f nodes", m[MOESIM_NODE_FANOUT]);
    if (m[MOESIM_DROPPED_FRACTION] > 0)
        n += (size_t)snprintf(line + n, sizeof line - n, "; %.1f %% dropped", 100 * m[MOESIM_DROPPED_FRACTION]);
    puts("");
    cli_print_wrapped(stdout, line, 0, 0);
}

bool cost_print(const struct cost_result *r)
{
    print_head(r);
    if (!print_phases(r) || !print_ports(r))
        return false;
    if (r->work->fanout.tokens)
        print_routing(r);
    return true;
}

/* ---- for programs ---- */

static json_t *number_or_null(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *ports_json(const struct cost_result *r)
{
    json_t *ports = json_object();
    for (uint32_t port = MOESIM_NVLINK_OUT; port < MOESIM_NO_PORT; port++) {
        const struct port_load load = port_load(r, (enum moesim_port)port);
        if (load.n)
            json_object_set_new(ports, port_key[port],
                                json_pack("{s:i, s:f, s:f, s:i}", "n", (int)load.n, "mean_bytes", load.mean,
                                          "max_bytes", load.most, port < MOESIM_LEAF_UP ? "device" : "leaf",
                                          (int)load.busiest));
    }
    return ports;
}

static json_t *bound_json(const struct cost_result *r, bool dispatch)
{
    const struct exchange_figures figures = exchange_figures(r, dispatch);
    const enum moesim_port port = figures.bound.port;
    json_t *bound =
        json_pack("{s:s, s:o, s:o}", "port", port_key[port], "logical_bytes_per_s", number_or_null(figures.logical),
                  "physical_bytes_per_s", number_or_null(figures.physical));
    if (port != MOESIM_NO_PORT)
        json_object_set_new(bound, port < MOESIM_LEAF_UP ? "device" : "leaf", json_integer(figures.bound.index));
    return bound;
}

static json_t *settings_json(const struct cost_result *r)
{
    const struct moesim_point *p = r->point;
    char form[32], padding[32];
    format_choice(&(const struct moesim_param)DISPATCH_ROW, &p->options, form);
    format_choice(&(const struct moesim_param)PADDING_ROW, &p->options, padding);
    json_t *settings =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b}", "cluster", p->cluster_spec, "model", p->model.name,
                  "router", p->router_spec, "workload", p->workload_spec, "placement", p->placement_spec, "dispatch",
                  form, "padding", padding, "backward", (int)p->options.backward);
    const struct {
        const char *key;
        uint64_t value;
    } counts[] = {
        {"chunks", p->options.chunks},
        {"devices", r->work->n_devices},
        {"nodes", p->cluster.nodes},
        {"ep", moesim_cluster_ep(&p->cluster)},
        {"tokens_per_device", p->n_tokens / r->work->n_devices},
        {"layer", r->layer},
        {"seed", p->seed},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        json_object_set_new(settings, counts[i].key, json_integer((json_int_t)counts[i].value));
    return settings;
}

bool cost_print_json(const struct cost_result *r)
{
    json_t *root = json_object();
    for (uint32_t m = 0; m < MOESIM_N_METRICS; m++) /* memory is that of a whole model */
        if (isfinite(r->metric[m]) && moesim_metrics[m].kind != MOESIM_MEASURED && m != MOESIM_DEVICE_MEMORY)
            json_object_set_new(root, moesim_metrics[m].name, json_real(r->metric[m]));
    json_object_set_new(root, "settings", settings_json(r));
    json_object_set_new(root, "ports", ports_json(r));
    json_object_set_new(root, "bound",
                        json_pack("{s:o, s:o}", "dispatch", bound_json(r, true), "combine", bound_json(r, false)));
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    if (text)
        puts(text);
    free(text);
    return text != NULL;
}
