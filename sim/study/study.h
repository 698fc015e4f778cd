/*
 * A study: a YAML file (or the built-in one) resolved into points. Unknown keys, wrong types and contradictions are
 * collected, all of them, with line and column, before anything runs.
 */
#ifndef MOESIM_SIM_STUDY_H
#define MOESIM_SIM_STUDY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

#include "sim/study/mistakes.h"
#include "sim/study/point.h"
#include "sim/study/registry.h"

struct moesim_study;

/* Parses YAML text; `file_name` gives a study without the key `study` its name. NULL with mistakes when there is no
 * mapping to go on with: bad syntax, a limit passed (1 MiB, depth 32, 100,000 nodes), anchors. All else that is wrong
 * with the text is noted by moesim_study_resolve, so that it comes in one list. Everything lives in `arena`. */
struct moesim_study *moesim_study_parse(const char *file_name, const char *text, size_t size,
                                        struct moesim_arena *arena, struct moesim_mistakes *mistakes);

/* A built-in study's YAML text by name ("quickstart"), or NULL; and the names for `list studies`. */
const char *moesim_study_builtin(const char *name);
struct moesim_builtin_study {
    const char *name, *summary, *text;
};
extern const struct moesim_builtin_study moesim_builtin_studies[]; /* ended by name NULL */

/* `--set PATH=VALUE`: PATH is dotted ("model.experts", "steps"); VALUE is a YAML scalar or flow list. */
void moesim_study_set(struct moesim_study *study, const char *assignment, struct moesim_mistakes *mistakes);

/* `--router` and `--workload`: replaces the axis by SPECs ("name:key=value,key=value"). */
void moesim_study_replace(struct moesim_study *study, const char *axis, const char *const *specs, uint32_t n,
                          struct moesim_mistakes *mistakes);

/* Forgets a key of a component ("model", "experts"), so that the default or the workload decides; nothing if it is not
 * set. */
void moesim_study_drop(struct moesim_study *study, const char *component, const char *key);

/* The router specs that are paths of plugins, which the caller loads into the registry before resolving; [*n]. */
const char *const *moesim_study_plugin_paths(struct moesim_study *study, uint32_t *n);

/* Resolves every point, in file order with the seeds innermost, and validates it against the registry: shapes, needs,
 * bounds, contradictions. Nothing is run and no plugin is called. Points of one routing are adjacent; points that say
 * the same in other words are one. `points` [*n] belong to the study's arena. False with all mistakes, by line, when
 * there is any. */
bool moesim_study_resolve(struct moesim_study *study, const struct moesim_registry *registry,
                          const struct moesim_point *const **points, uint32_t *n, struct moesim_mistakes *mistakes);

const char *moesim_study_name(const struct moesim_study *study);
/* The resolved study's configuration as canonical JSON without seeds, and its hash: two files with one meaning are one
 * study. */
const char *moesim_study_json(const struct moesim_study *study);
uint64_t moesim_study_hash(const struct moesim_study *study);

/* A SPEC checked against one schema, for verbs that take one router or cluster: sets `params` (already holding the
 * defaults) from "name:key=value,...". `name` gets the part before the colon ([64]). */
enum moesim_status moesim_spec_name(const char *spec, char name[64], struct moesim_error *err);
enum moesim_status moesim_spec_params(const char *spec, struct moesim_schema schema, void *params,
                                      struct moesim_arena *arena, struct moesim_error *err);
/* The cluster of a SPEC: a preset with its keys set, or a text. Whether it makes a machine is moesim_cluster_check's.
 */
enum moesim_status moesim_spec_cluster(const char *spec, struct moesim_arena *arena, struct moesim_cluster *cluster,
                                       struct moesim_error *err);
/* The placement rule of a SPEC (or of a plan's path) with its parameters, which live in `arena`. */
enum moesim_status moesim_spec_placement(const char *spec, struct moesim_arena *arena,
                                         const struct moesim_placement_rule **rule, void **params,
                                         struct moesim_error *err);
/* Whether a SPEC's name is a path: it has a '/' or ends in ".so". */
bool moesim_spec_is_path(const char *spec);

#endif
