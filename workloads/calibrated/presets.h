/*
 * Models whose routing was measured, and the numbers of effects.h that make logits behave so.
 */
#ifndef MOESIM_WORKLOADS_CALIBRATED_PRESETS_H
#define MOESIM_WORKLOADS_CALIBRATED_PRESETS_H

#include "workloads/calibrated/effects.h"
#include "workloads/calibrated/figures.h"

enum { PROFILE_MOST = 4096, PRESET_MOST_TARGETS = 16 };

struct calibrated_target {
    enum calibrated_figure figure;
    double value;
};

struct calibrated_preset {
    const char *name, *origin; /* of the targets */
    uint32_t n_experts, top_k, n_layers, n_domains;
    struct effects effects;
    const char *profile; /* loads' coefficient of variation by layer, or "flat" */
    uint32_t n_targets;
    struct calibrated_target target[PRESET_MOST_TARGETS];
};

/* In the order of the names below; "none" has no effects and no targets. */
#define CALIBRATED_PRESET_CHOICES                                                                                      \
    "olmoe-1b-7b|gpt-oss-20b|mixtral-8x7b|glm-5.2|deepseek-v3|deepseek-v3-prefill|qwen1.5-moe|none"
#define CALIBRATED_N_PRESETS 8
extern const struct calibrated_preset calibrated_presets[CALIBRATED_N_PRESETS];

#endif
