/* Every table of the program behind one face. */
#include "cli/kinds.h"

#include <string.h>

#include <moesim/metric.h>

#include "cli/message.h"
#include "routers/table.h"
#include "sim/placement/placement.h"
#include "sim/models/model.h"
#include "sim/study/study.h"
#include "workloads/table.h"

static bool router_item(uint32_t i, struct kind_item *item)
{
    const struct moesim_router *router = routers_table[i]; /* asked in order, so never past the NULL */
    if (router)
        *item = (struct kind_item){.name = router->name,
                                   .summary = router->summary,
                                   .reference = router->reference,
                                   .schema = moesim_router_schema(router),
                                   .hooks = router};
    return router;
}

static bool workload_item(uint32_t i, struct kind_item *item)
{
    const struct moesim_workload *workload = workloads_table[i];
    if (workload)
        *item = (struct kind_item){.name = workload->name,
                                   .summary = workload->summary,
                                   .reference = workload->reference,
                                   .schema = moesim_workload_schema(workload)};
    return workload;
}

static bool placement_item(uint32_t i, struct kind_item *item)
{
    const struct moesim_placement_rule *rule = moesim_placement_rules[i];
    if (rule)
        *item = (struct kind_item){.name = rule->name,
                                   .summary = rule->summary,
                                   .reference = rule->reference,
                                   .schema = {rule->params, sizeof(struct moesim_param)}};
    return rule;
}

static bool cluster_item(uint32_t i, struct kind_item *item)
{
    const struct moesim_cluster_preset *preset = &moesim_cluster_presets[i];
    if (preset->cluster.name)
        *item = (struct kind_item){.name = preset->cluster.name,
                                   .summary = preset->summary,
                                   .reference = preset->reference,
                                   .schema = {moesim_cluster_params, sizeof(struct moesim_param)},
                                   .values = &preset->cluster,
                                   .peak = &preset->peak};
    return preset->cluster.name;
}

static bool model_item(uint32_t i, struct kind_item *item)
{
    const struct moesim_model_preset *preset = &moesim_model_presets[i];
    if (preset->model.name)
        *item = (struct kind_item){.name = preset->model.name,
                                   .summary = preset->summary,
                                   .reference = preset->reference,
                                   .schema = {moesim_model_params, sizeof(struct moesim_param)},
                                   .values = &preset->model,
                                   .router = preset->router};
    return preset->model.name;
}

static bool metric_item(uint32_t i, struct kind_item *item)
{
    if (i >= MOESIM_N_METRICS)
        return false;
    *item = (struct kind_item){
        .name = moesim_metrics[i].name, .summary = moesim_metrics[i].meaning, .metric = &moesim_metrics[i]};
    return true;
}

static bool study_item(uint32_t i, struct kind_item *item)
{
    const struct moesim_builtin_study *study = &moesim_builtin_studies[i];
    if (study->name)
        *item = (struct kind_item){.name = study->name, .summary = study->summary, .text = study->text};
    return study->name;
}

const struct kind cli_kinds[] = {
    {"router", "routers", "Routers", router_item},
    {"workload", "workloads", "Workloads", workload_item},
    {"placement", "placements", "Placements", placement_item},
    {"cluster", "clusters", "Clusters", cluster_item},
    {"model", "models", "Models", model_item},
    {"metric", "metrics", "Metrics", metric_item},
    {"study", "studies", "Studies", study_item},
    {NULL, NULL, NULL, NULL},
};

const struct kind *kind_find(const char *word, const char *verb)
{
    const char *words[32];
    uint32_t n = 0;
    for (const struct kind *k = cli_kinds; k->singular; k++) {
        if (strcmp(word, k->singular) == 0 || strcmp(word, k->plural) == 0)
            return k;
        words[n++] = k->plural;
    }
    words[n] = NULL;
    const char *near = cli_nearest(word, words);
    cli_fail(CLI_USAGE, "%s: '%s' is none of routers, workloads, placements, clusters, models, metrics, studies%s%s%s",
             verb, word, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return NULL;
}
