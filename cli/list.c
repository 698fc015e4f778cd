/* moesim list: one line for each name of a kind. */
#include <stdio.h>

#include <moesim/metric.h>

#include "cli/kinds.h"
#include "cli/message.h"
#include "cli/print_table.h"
#include "cli/verbs.h"
#include "sim/cluster/cluster.h"

struct list_options {
    bool json;
};

static const struct cli_option options[] = {
    CLI_OPTION(struct list_options, json, "json", NULL, "as a JSON array"),
    CLI_OPTION_END,
};

/* Rates of a cluster as people name them. */
static const struct {
    const char *title;
    size_t offset;
    double unit;
} rates[] = {
    {"TFLOP/s", offsetof(struct moesim_cluster, flop_per_s), 1e12},
    {"HBM TB/s", offsetof(struct moesim_cluster, memory_bytes_per_s), 1e12},
    {"NVLink GB/s", offsetof(struct moesim_cluster, nvlink_bytes_per_s), 1e9},
    {"NIC GB/s", offsetof(struct moesim_cluster, nic_bytes_per_s), 1e9},
};
enum { N_RATES = sizeof rates / sizeof *rates };

static double rate_of(const struct moesim_cluster *cluster, uint32_t i)
{
    return *(const double *)((const char *)cluster + rates[i].offset);
}

/* "725/989": what is reached, of the vendor's peak. */
static void print_rate(struct print_table *table, double real, double peak)
{
    char text[48] = "-";
    if (real > 0)
        snprintf(text, sizeof text, real < 100 ? "%.3g/%.4g" : "%.0f/%.4g", real, peak);
    print_text(table, text);
}

/* Rates in units of people; for programs every rate and peak apart, in SI. */
static bool print_clusters(enum print_format format)
{
    const struct print_column shown[] = {{.title = "name"},
                                         {.title = rates[0].title, .right = true},
                                         {.title = rates[1].title, .right = true},
                                         {.title = rates[2].title, .right = true},
                                         {.title = rates[3].title, .right = true},
                                         {.title = "summary", .wrap = true}};
    const struct print_column all[] = {{.title = "name"},
                                       {.title = "flop_per_s"},
                                       {.title = "peak_flop_per_s"},
                                       {.title = "memory_bytes_per_s"},
                                       {.title = "peak_memory_bytes_per_s"},
                                       {.title = "nvlink_bytes_per_s"},
                                       {.title = "peak_nvlink_bytes_per_s"},
                                       {.title = "nic_bytes_per_s"},
                                       {.title = "peak_nic_bytes_per_s"},
                                       {.title = "summary"}};
    const bool people = format == PRINT_TABLE;
    struct print_table *table = people ? print_table_create(shown, 6) : print_table_create(all, 10);
    for (const struct moesim_cluster_preset *p = moesim_cluster_presets; table && p->cluster.name; p++) {
        print_text(table, p->cluster.name);
        for (uint32_t i = 0; i < N_RATES; i++) {
            const double real = rate_of(&p->cluster, i), peak = rate_of(&p->peak, i);
            if (people) {
                print_rate(table, real / rates[i].unit, peak / rates[i].unit);
            } else {
                print_number(table, real, NULL);
                print_number(table, peak, NULL);
            }
        }
        print_text(table, p->summary);
    }
    if (table && people)
        print_table_narrow(table);
    bool good = table && print_table(table, format);
    print_table_destroy(table);
    if (good && people)
        puts("Rates of one device, one way: what software reaches, of the vendor's peak.");
    return good;
}

static bool print_kind(const struct kind *kind, enum print_format format)
{
    const bool metrics = kind->item == cli_kinds[5].item;
    const struct print_column plain[] = {{.title = "name"}, {.title = "summary", .wrap = true}};
    const struct print_column metric[] = {{.title = "name"},
                                          {.title = "unit"},
                                          {.title = "kind"},
                                          {.title = "better"},
                                          {.title = "summary", .wrap = true}};
    static const char *const kinds[] = {"counted", "modelled", "measured"}, *const betters[] = {"lower", "higher", "-"};
    struct print_table *table = metrics ? print_table_create(metric, 5) : print_table_create(plain, 2);
    struct kind_item item;
    for (uint32_t i = 0; table && kind->item(i, &item); i++) {
        print_text(table, item.name);
        if (metrics) {
            const struct moesim_metric *m = item.metric;
            print_text(table, m->unit);
            print_text(table, kinds[m->kind]);
            print_text(table, betters[m->better]);
        }
        print_text(table, item.summary ? item.summary : "");
    }
    bool good = table && print_table(table, format);
    print_table_destroy(table);
    return good;
}

static int list(const struct cli_call *call)
{
    const struct list_options *o = call->options;
    const struct kind *kind = kind_find(call->args[0], "list");
    if (!kind)
        return CLI_USAGE;
    if (kind->item == cli_kinds[3].item)
        return print_clusters(o->json ? PRINT_JSON : PRINT_TABLE) ? CLI_DONE
                                                                  : cli_fail(CLI_SOME_FAILED, "memory is exhausted");
    return print_kind(kind, o->json ? PRINT_JSON : PRINT_TABLE) ? CLI_DONE
                                                                : cli_fail(CLI_SOME_FAILED, "memory is exhausted");
}

static const struct cli_example examples[] = {
    {"moesim list routers", "every routing strategy with a line on what it does"},
    {"moesim list metrics --json", "names, units and kinds for a script"},
    {NULL, NULL},
};

const struct cli_verb cli_list = {
    .name = "list",
    .arguments = "routers|workloads|placements|clusters|models|metrics|studies",
    .summary = "list what a study may name",
    .examples = examples,
    .options = options,
    .options_size = sizeof(struct list_options),
    .min_args = 1,
    .max_args = 1,
    .run = list,
};
