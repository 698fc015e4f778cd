/*
 * The steps from a study's tree to its points: variants of the components, axes, cells, labels.
 *
 * A component (router, workload, ...) has variants: one name with one value for each key the study sets. A cell is one
 * variant of each component and one value of each plain key: a point without its seed.
 */
#ifndef MOESIM_SIM_RESOLVE_H
#define MOESIM_SIM_RESOLVE_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/study/point.h"
#include "sim/study/study.h"
#include "sim/study/yaml_tree.h"

#define MOESIM_MAX_POINTS 100000

/* Where mistakes go and memory comes from, for all steps. */
struct moesim_resolver {
    struct moesim_arena *arena;
    struct moesim_mistakes *mistakes;
    const struct moesim_registry *registry;
    const struct moesim_node *root;
    struct moesim_hashed *hashed; /* what was hashed already */
};

/* ---- variants ---- */

enum moesim_component {
    MOESIM_ROUTER,
    MOESIM_WORKLOAD,
    MOESIM_MODEL,
    MOESIM_CLUSTER,
    MOESIM_PLACEMENT,
    MOESIM_TRAINING,
    MOESIM_N_COMPONENTS
};
extern const char *const moesim_component_names[MOESIM_N_COMPONENTS];

struct moesim_setting {
    const char *key, *text;
    uint32_t key_line, key_column, line, column;
};

struct moesim_variant {
    const char *name; /* "" when not given */
    uint32_t line, column;
    uint32_t n_settings;
    const struct moesim_setting *settings;
};

struct moesim_variants {
    uint32_t n;
    struct moesim_variant *item;
};

/* The variants a node stands for: a SPEC, a mapping whose list values multiply, or a list of these. What cannot be
 * understood is noted and left out. */
struct moesim_variants moesim_variants_expand(struct moesim_resolver *r, enum moesim_component component,
                                              const struct moesim_node *node);

/* The setting of that key, or NULL; `variant` may be NULL. */
const struct moesim_setting *moesim_setting_find(const struct moesim_variant *variant, const char *key);
/* The setting whose key or value a sentence speaks of, or NULL. */
const struct moesim_setting *moesim_setting_blamed(const struct moesim_variant *variant, const char *sentence);

/* ---- components ---- */

/* One variant of a component with everything that does not depend on other components. */
struct moesim_choice {
    const struct moesim_variant *variant; /* NULL = the study does not name this component */
    bool known;                           /* the name exists; false = noted, skip what depends on it */
    bool whole;                           /* all its settings were right */
    bool is_text;                         /* a cluster text: its name is `params`' */
    struct moesim_schema schema;
    size_t params_size;
    void *params;        /* NULL for routers, whose defaults depend on the model */
    const char *spec;    /* canonical */
    uint64_t files_hash; /* of what the files that its settings name hold; 0 = they name none */

    const struct moesim_router_entry *router;
    const struct moesim_file_array *files; /* of the router's parameters */
    uint32_t n_files;
    const struct moesim_workload *workload;
    struct moesim_workload_shape shape;
    const struct moesim_trained *trained; /* of the shape's checkpoint */
    uint32_t n_tokens;                    /* 0 = the workload or the default decides */
    const struct moesim_placement_rule *placement;
    struct moesim_file_array loads; /* of a placement's file */
};

struct moesim_choices {
    uint32_t n;
    struct moesim_choice *item;
};

/* What takes the router's place in a model without experts. */
extern const struct moesim_choice moesim_dense_choice;

/* Looks every variant up, parses its settings and notes what is wrong. */
struct moesim_choices moesim_choices_resolve(struct moesim_resolver *r, enum moesim_component component);

/* The same for a router's choice, of which `variant` is set. */
void moesim_router_resolve(struct moesim_resolver *r, struct moesim_choice *choice);
/* The parameters of a router that is known, for a model of that top_k; NULL = noted. */
void *moesim_router_params(struct moesim_resolver *r, const struct moesim_choice *choice, uint32_t top_k);

/* Reads the checkpoint that a workload's shape names: what its model fixes goes into the shape. False = noted. */
bool moesim_trained_resolve(struct moesim_resolver *r, struct moesim_choice *workload);

/* Sets `params` (holding the defaults) from the settings that the schema has; with `note`, what is wrong is noted. True
 * when all were right. */
bool moesim_settings_apply(struct moesim_resolver *r, enum moesim_component component,
                           const struct moesim_variant *variant, struct moesim_schema schema, void *params, bool note);

/* ---- axes ---- */

/* The rows of moesim_plain_params; from MOESIM_PLAIN_OF_COST on, only the cost looks at them. */
enum { MOESIM_PLAIN_OF_COST = 5, MOESIM_N_PLAIN = 12 };

struct moesim_plain {
    uint32_t mode, phase, steps, warm_up, micro_batches;
    struct moesim_cost_options options;
    uint32_t oversize;
};
extern const struct moesim_param moesim_plain_params[];

enum { MOESIM_N_AXES = MOESIM_N_COMPONENTS + MOESIM_N_PLAIN };

struct moesim_axes {
    struct moesim_choices components[MOESIM_N_COMPONENTS];
    uint32_t fit_steps; /* the most that a placement fits on: the default of warm_up */
    uint32_t n_plain[MOESIM_N_PLAIN];
    uint32_t *plain[MOESIM_N_PLAIN]; /* [n_plain] values in row order of moesim_plain_params */
    uint32_t order[MOESIM_N_AXES];   /* in file order, slowest first: component, or MOESIM_N_COMPONENTS + row */
    uint32_t n_seeds;
    uint64_t *seeds;
    uint64_t n_cells;
};

/* Reads all axes; false when no cell can be formed. */
bool moesim_axes_read(struct moesim_resolver *r, struct moesim_axes *axes);

/* What `record` and `metrics` ask for, alike for all points. */
struct moesim_selection {
    bool expert_load, traffic;
    bool record[MOESIM_N_METRICS], measure[MOESIM_N_METRICS];
};
void moesim_selection_read(struct moesim_resolver *r, struct moesim_selection *selection);

/* Notes keys that no study has. */
void moesim_keys_check(struct moesim_resolver *r);
/* Whether `key` may stand at the top of a study; otherwise its guess is in `guess`. */
bool moesim_key_known(const char *key, struct moesim_guess *guess);

/* ---- labels ---- */

struct moesim_labels;

struct moesim_labels *moesim_labels_create(struct moesim_arena *arena);
void moesim_labels_clear(struct moesim_labels *labels);
void moesim_labels_text(struct moesim_labels *labels, const char *head, const char *key, const char *value);
void moesim_labels_count(struct moesim_labels *labels, const char *head, const char *key, uint64_t value);
/* All fields of a params struct under `head`, but those named "name". */
void moesim_labels_params(struct moesim_labels *labels, const char *head, struct moesim_schema schema,
                          const void *params);
/* The value of a path, or NULL; valid until the next change. */
const char *moesim_labels_find(const struct moesim_labels *labels, const char *path);
/* Copies the labels, sorted by path, into the arena; NULL without memory. */
struct moesim_label *moesim_labels_finish(struct moesim_labels *labels, struct moesim_arena *arena, uint32_t *n);
/* The labels but SPECs and seed as one JSON object, keys sorted; NULL without memory. */
char *moesim_labels_json(struct moesim_labels *labels, struct moesim_arena *arena);
/* Of the same labels but those of cluster, placement and cost. */
uint64_t moesim_labels_routing_hash(struct moesim_labels *labels);

/* ---- exclude ---- */

/* Notes rules that are no mappings of known paths to values. */
void moesim_exclude_check(struct moesim_resolver *r);
/* excluded[s] = some rule matches this cell with seeds[s]; returns how many seeds are left. */
uint32_t moesim_exclude(const struct moesim_node *root, const struct moesim_labels *labels, const uint64_t *seeds,
                        uint32_t n_seeds, bool *excluded);

/* ---- cells ---- */

struct moesim_cell {
    struct moesim_point point; /* all but hashes, JSON, labels and seed */
    const struct moesim_choice *chosen[MOESIM_N_COMPONENTS];
};

/* The cell's parts put together and labelled, as far as they are known. False with a mistake. */
bool moesim_cell_build(struct moesim_resolver *r, const struct moesim_axes *axes, uint64_t index,
                       struct moesim_cell *cell, struct moesim_labels *labels);
/* Whether the fullest device of the placement, made for one layer, has room for the whole model under even load. */
MOESIM_MUST_CHECK enum moesim_status moesim_point_fits(const struct moesim_point *point,
                                                       const struct moesim_placement *placement,
                                                       struct moesim_arena *arena, struct moesim_error *err);
/* Notes what does not go together. */
void moesim_cell_check(struct moesim_resolver *r, const struct moesim_cell *cell);

#endif
