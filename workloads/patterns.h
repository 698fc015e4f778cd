/*
 * Loads that are uneven on purpose: what each expert of a layer must get in a step, and who sends it.
 */
#ifndef MOESIM_WORKLOADS_PATTERNS_H
#define MOESIM_WORKLOADS_PATTERNS_H

#include <stdint.h>

#include <moesim/status.h>

#define PATTERN_CHOICES "W0|W1|W2|W3|W4|W5|W6|W7"
enum pattern {
    PATTERN_BALANCED,    /* W0 */
    PATTERN_HOT_EXPERTS, /* W1: drawn ones */
    PATTERN_HOT_DEVICE,  /* W2: all experts of a drawn device */
    PATTERN_SPREAD_HEAT, /* W3: as many hot experts, dealt out to the devices in turn */
    PATTERN_RAGGED,      /* W4: balanced loads from devices with unlike numbers of tokens */
    PATTERN_IDLE_DEVICE, /* W5: nothing for the experts of a drawn device */
    PATTERN_ROTATING,    /* W6: W1's hot experts, others every `every` steps */
    PATTERN_BURST,       /* W7: balanced; `factor` times the tokens at every `every`-th step */
};

struct pattern_setting {
    uint32_t pattern; /* enum pattern */
    uint64_t seed;
    uint32_t n_tokens, n_experts, top_k, n_devices; /* expert e lives on device floor(e * n_devices / n_experts) */
    uint32_t n_hot;                                 /* hot experts of W1, W3 and W6 */
    double heat;                                    /* share of the choices that the hot ones get */
    double ragged;                                  /* W4: most tokens of a device over the mean, 1 to 2 */
    uint32_t every;                                 /* W6, W7 */
    double factor;                                  /* W7 */
};

/* MOESIM_EINVAL for a setting that cannot be, such as an idle device where there is one only. */
MOESIM_MUST_CHECK enum moesim_status pattern_check(const struct pattern_setting *setting, struct moesim_error *err);

/* Tokens of a step; n_tokens but in the quiet steps of W7. */
uint32_t pattern_tokens(const struct pattern_setting *setting, uint32_t step);

/* load[n_experts]: choices that each expert must get, no more than there are tokens, top_k times the tokens in all.
 * order[n_experts] is filled with the experts in the drawn order in which the loads were dealt out. */
void pattern_loads(const struct pattern_setting *setting, uint32_t step, uint32_t layer, uint32_t *load,
                   uint32_t *order);

/* W4: sent[n_devices], the tokens of each device: in a drawn order they fall evenly from `ragged` times the mean to
 * 2 - ragged times. order[n_devices] is filled with that order. */
void pattern_sources(const struct pattern_setting *setting, uint32_t *sent, uint32_t *order);

#endif
