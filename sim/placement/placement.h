/*
 * Placement: which devices hold which expert, and how a token picks among replicas.
 */
#ifndef MOESIM_SIM_PLACEMENT_H
#define MOESIM_SIM_PLACEMENT_H

#include <stdint.h>
#include <string.h>

#include <moesim/arena.h>
#include <moesim/param.h>
#include <moesim/random.h>
#include <moesim/status.h>

#include "sim/cluster/cluster.h"

/* How a token picks among the replicas of its expert; see sim/placement/replica.h. */
enum moesim_replica { MOESIM_ROUND_ROBIN, MOESIM_STATIC, MOESIM_LOCAL, MOESIM_RANDOM, MOESIM_LP };
#define MOESIM_REPLICA_CHOICES "round-robin|static|local|random|lp"

/* The physical experts of one EP group, slot by slot, and the same by expert. The devices are those of one EP group,
 * 0 .. n_devices - 1: a token on EP group x uses device x * n_devices + replica[r], its own group's copy. */
struct moesim_placement {
    uint32_t n_experts, n_devices;
    uint32_t max_replicas; /* room for physical experts of one EP group */
    uint32_t *device_slot; /* [n_devices + 1] slots of device d: device_slot[d] .. device_slot[d + 1] - 1 */
    uint32_t *expert;      /* [max_replicas] the expert in each slot */
    uint32_t *first;       /* [n_experts + 1] replicas of expert e: first[e] .. first[e + 1] - 1; at least one */
    uint32_t *replica;     /* [max_replicas] device of each replica, by expert, then slot */
    uint32_t *primary;     /* [n_experts] device of the first replica, as routers see it */

    uint32_t choice;             /* enum moesim_replica */
    uint32_t *nearest;           /* [n_devices][n_experts] static, local: the replica of a device's tokens; else NULL */
    uint32_t *shuffled;          /* [n_devices] static: scratch */
    struct moesim_random random; /* static, random */
    struct moesim_balance *balance; /* lp: room and result, shared by the layers; else NULL */
};

/* What a rule may look at. */
enum moesim_placement_wants {
    MOESIM_WANTS_LOAD = 1,
    MOESIM_WANTS_TOGETHER = 2,
    MOESIM_WANTS_NEXT = 4,
};

/* What is known of the routing, per layer; a rule finds at least what it wants, the rest may be NULL. */
struct moesim_placement_stats {
    uint32_t n_layers, n_experts;
    uint32_t n_groups; /* of experts in the model's router; 0 = none or not known */
    double *load;      /* [n_layers][n_experts] pairs */
    double *together; /* [n_layers][n_experts][n_experts] tokens that chose both, symmetric; the diagonal is not read */
    double *next;     /* [n_layers - 1][n_experts][n_experts] tokens from first choice in l to first choice in l + 1 */
};

/* A rule that makes placements; the presets of `list placements`. */
struct moesim_placement_rule {
    const char *name, *summary, *reference;
    const struct moesim_param *params;
    size_t params_size;
    uint32_t wants; /* bits of enum moesim_placement_wants; 0 = the same whatever the load */
    /* Physical experts of an EP group; NULL = n_experts and, of a load-aware rule, fit.redundant. */
    uint32_t (*room)(const void *params, uint32_t n_experts);
    /* Fills the placements of stats->n_layers layers, each with room for moesim_placement_room and the devices of one
     * EP group. EINVAL says which numbers do not fit. */
    enum moesim_status (*place)(const void *params, const struct moesim_placement_stats *stats, uint64_t seed,
                                const struct moesim_cluster *cluster, struct moesim_placement *placement,
                                struct moesim_error *err);
};
extern const struct moesim_placement_rule *const moesim_placement_rules[]; /* NULL-terminated */

/* The rule of that name, or NULL. A name with a '/' or that ends in ".json" is a plan's: the rule `file`, whose path
 * moesim_placement_named sets. */
const struct moesim_placement_rule *moesim_placement_find(const char *name);
MOESIM_MUST_CHECK enum moesim_status moesim_placement_named(const struct moesim_placement_rule *rule, const char *name,
                                                            void *params, struct moesim_arena *arena,
                                                            struct moesim_error *err);

/* What load-aware rules share: the first field, `fit`, of their parameters. */
struct moesim_placement_fit {
    const char *from;   /* where a run gets the loads: warm-up, oracle or a file, .npy [E] or [L,E] */
    uint32_t fit_steps; /* steps of the warm-up */
    uint32_t every;     /* steps between re-placements, 0 = never */
    uint32_t window;    /* past steps a re-placement looks at, 0 = `every` */
    uint32_t redundant; /* physical experts of an EP group beyond one copy of each; 0 where a rule has no such key */
    uint32_t replica;   /* enum moesim_replica; without a meaning where there are no replicas */
};
#define MOESIM_PLACEMENT_FIT_PARAMS(struct_type)                                                                       \
    MOESIM_PARAM_IN(struct_type, fit, from, "warm-up", 0, 0,                                                           \
                    "where loads come from: warm-up, oracle (the steps themselves) or a FILE of [E] or [L,E]"),        \
        MOESIM_PARAM_IN(struct_type, fit, fit_steps, "10", 1, 1e6, "steps of the warm-up, left out of the metrics"),   \
        MOESIM_PARAM_IN(struct_type, fit, every, "0", 0, 1e6, "steps between re-placements; 0 = never"),               \
        MOESIM_PARAM_IN(struct_type, fit, window, "0", 0, 1e6,                                                         \
                        "past steps whose loads a re-placement uses; 0 = as many as `every`")

#define MOESIM_REPLICA_HELP                                                                                            \
    "which replica serves a token: round-robin (token mod n), static (its own device's, else one drawn for its "       \
    "device), local (its device's, else its node's, else device mod n), random, lp (least load of the fullest device)"
#define MOESIM_PLACEMENT_REPLICA_PARAMS(struct_type)                                                                   \
    MOESIM_PARAM_IN(struct_type, fit, redundant, "0", 0, 65536, "physical experts beyond one copy of each"),           \
        MOESIM_CHOICE_IN(struct_type, fit, replica, "round-robin", MOESIM_REPLICA_CHOICES, MOESIM_REPLICA_HELP)

/* Where a run gets the loads from. */
enum moesim_placement_source { MOESIM_FROM_WARM_UP, MOESIM_FROM_ORACLE, MOESIM_FROM_FILE };
static inline enum moesim_placement_source moesim_placement_source(const struct moesim_placement_fit *fit)
{
    return strcmp(fit->from, "warm-up") == 0  ? MOESIM_FROM_WARM_UP
           : strcmp(fit->from, "oracle") == 0 ? MOESIM_FROM_ORACLE
                                              : MOESIM_FROM_FILE;
}

/* Steps that a re-placement looks at. */
static inline uint32_t moesim_placement_window(const struct moesim_placement_fit *fit)
{
    return fit->window ? fit->window : fit->every;
}

/* Whether `from`, `every` and `window` go together, in a run whose first `warm_up` steps are not counted. The sentence
 * begins with the key that is wrong. */
MOESIM_MUST_CHECK enum moesim_status moesim_placement_fit_check(const struct moesim_placement_rule *rule,
                                                                const void *params, uint32_t warm_up,
                                                                struct moesim_error *err);

/* The shared parameters of a load-aware rule, NULL for the others. */
static inline const struct moesim_placement_fit *moesim_placement_fit(const struct moesim_placement_rule *rule,
                                                                      const void *params)
{
    return rule->wants ? params : NULL;
}

/* Physical experts of one EP group that the rule places. */
uint32_t moesim_placement_room(const struct moesim_placement_rule *rule, const void *params, uint32_t n_experts);

/* How tokens choose among its replicas (enum moesim_replica): its parameter `replica`, where it has one. */
uint32_t moesim_placement_choice(const struct moesim_placement_rule *rule, const void *params);

/* Zeroed statistics of the kinds in `wants`, from the arena. */
MOESIM_MUST_CHECK enum moesim_status moesim_placement_stats_init(struct moesim_placement_stats *stats, uint32_t wants,
                                                                 uint32_t n_layers, uint32_t n_experts,
                                                                 struct moesim_arena *arena, struct moesim_error *err);

/* Room for n_experts with up to max_replicas physical experts in all over the n_devices of one EP group
 * (moesim_cluster_ep), for moesim_replica_init or round-robin replicas. A rule fills it. */
MOESIM_MUST_CHECK enum moesim_status moesim_placement_init(struct moesim_placement *placement, uint32_t n_experts,
                                                           uint32_t n_devices, uint32_t max_replicas,
                                                           struct moesim_arena *arena, struct moesim_error *err);

/* The placements of n_layers layers with room for what the rule may put into them; max_pairs (of a plan) may be 0 where
 * no pairs are served. */
MOESIM_MUST_CHECK enum moesim_status
moesim_placements_create(const struct moesim_placement_rule *rule, const void *params, uint32_t n_layers,
                         uint32_t n_experts, const struct moesim_cluster *cluster, uint64_t max_pairs,
                         struct moesim_arena *arena, struct moesim_placement **placements, struct moesim_error *err);

/* Fills the placements of stats->n_layers layers by the rule, replica choice included; again whenever the statistics
 * changed. */
MOESIM_MUST_CHECK enum moesim_status moesim_place(const struct moesim_placement_rule *rule, const void *params,
                                                  const struct moesim_placement_stats *stats, uint64_t seed,
                                                  const struct moesim_cluster *cluster,
                                                  struct moesim_placement *placements, struct moesim_error *err);

/* For rules: fills the view by expert from the slots (device_slot, expert). Every expert must be in a slot. */
void moesim_placement_index(struct moesim_placement *placement);

/* For rules: one copy of every expert, on the device already in `primary`; a device's slots are in order of expert. */
void moesim_placement_single(struct moesim_placement *placement);

#endif
