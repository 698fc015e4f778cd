/*
 * Seven presets of six models, and none.
 *
 * The targets are means over layers of what was measured on the models: gpt-oss-20b's 63,015 decoded tokens (174
 * sequences; loads of 57 MMLU subjects), OLMoE's and Mixtral's counts by domain (layers 0, 7, 15), expert statistics of
 * GLM-5.2 (10 domains) and DeepSeek-V3 (12 serving workloads). The effects were fitted to them by calibrated/fit.c;
 * what no figure tells was held fixed, as each preset says. `moesim trace presets` prints target against got.
 */
#include "workloads/calibrated/presets.h"

#define AT(name, value_)                                                                                               \
    {                                                                                                                  \
        .figure = CALIBRATED_##name, .value = (value_)                                                                 \
    }
#define TARGETS(...)                                                                                                   \
    .n_targets = sizeof((struct calibrated_target[]){__VA_ARGS__}) / sizeof(struct calibrated_target),                 \
    .target = {__VA_ARGS__}

#define DEEPSEEK_V3_PROFILE                                                                                            \
    "0.89 0.98 0.70 0.76 1.03 0.66 0.67 0.57 0.60 0.44 0.52 0.55 0.53 0.54 0.47 0.49 0.54 0.56 0.56 0.53 0.67 0.58 "   \
    "0.61 0.63 0.60 0.64 0.98 1.45 0.76 0.71 0.70 0.89 0.79 0.76 0.88 0.98 0.95 0.75 0.99 1.18 1.00 0.97 0.94 1.12 "   \
    "1.18 1.27 1.02 0.99 0.94 1.03 1.00 0.92 0.72 0.77 0.66 0.67 0.63 0.63"

const struct calibrated_preset calibrated_presets[CALIBRATED_N_PRESETS] = {
    {.name = "olmoe-1b-7b",
     .origin = "counts of 208,896 tokens in each of five domains, layers 0, 7 and 15",
     .n_experts = 64,
     .top_k = 8,
     .n_layers = 16,
     .n_domains = 5,
     .effects = {.popularity = 0.4157,
                 .popularity_skew = -0.1612,
                 .domain_effect = 1.569,
                 .domain_tail = 1.255,
                 .sequence_effect = 0.588,
                 .slow_effect = 0.22,
                 .slow_rho = 0.98,
                 .fast_effect = 0.2,
                 .fast_rho = 0.5,
                 .token_effect = 2.858},
     .profile =
         "0.33 0.35 0.38 0.41 0.44 0.47 0.50 0.53 0.53 0.53 0.54 0.54 0.55 0.55 0.55 0.56", /* 0, 7, 15 measured */
     TARGETS(AT(LOAD_CV, 0.45), AT(MAX_MEAN, 2.53), AT(DOMAIN_CV, 0.85), AT(DOMAIN_MAX, 4.75), AT(DIVERGENCE, 0.177),
             AT(TOKEN_BITS, 1.2))},
    {.name = "gpt-oss-20b",
     .origin = "63,015 decoded tokens in 174 sequences, 24 layers; loads of 57 MMLU subjects",
     .n_experts = 32,
     .top_k = 4,
     .n_layers = 24,
     .n_domains = 57,
     .effects = {.popularity = 9.536,
                 .popularity_skew = -1.55,
                 .domain_effect = 5.12,
                 .domain_tail = 1.946,
                 .sequence_effect = 5.329,
                 .slow_effect = 4.974,
                 .slow_rho = 0.9823,
                 .fast_effect = 0.9,
                 .fast_rho = 0.5,
                 .token_effect = 11.22,
                 .token_echo = 0.1885},
     .profile = "0.44 0.53 0.66 0.71 0.66 0.60 0.58 0.61 0.64 0.68 0.84 0.88 0.88 0.90 0.82 0.68 0.82 0.79 0.69 0.69 "
                "0.62 0.79 0.83 1.00",
     TARGETS(AT(LOAD_CV, 0.7235), AT(MAX_MEAN, 2.605), AT(GINI, 0.4057), AT(DIVERGENCE, 0.113), AT(RANKS, 0.72),
             AT(LAG1, 0.437), AT(LAG2, 0.379), AT(LAG8, 0.347), AT(LAG64, 0.321), AT(LAG256, 0.305),
             AT(FIRST_AGAIN, 0.241), AT(WINDOW_MAX, 4.988), AT(TOKEN_BITS, 1.075))},
    {.name = "mixtral-8x7b",
     .origin = "counts by domain, layers 0, 7 and 15; repetition from arXiv:2401.04088, table 5; profile of another "
               "recording with 32 layers",
     .n_experts = 8,
     .top_k = 2,
     .n_layers = 32,
     .n_domains = 57,
     .effects = {.popularity = 0.2058,
                 .popularity_skew = -0.2354,
                 .domain_effect = 0.1232,
                 .domain_tail = 0.6632,
                 .sequence_effect = 1.12,
                 .slow_effect = 1.119,
                 .slow_rho = 0.96,
                 .fast_effect = 0.3671,
                 .fast_rho = 0.6263,
                 .token_effect = 2.029},
     .profile = "0.24 0.31 0.39 0.26 0.32 0.31 0.31 0.43 0.32 0.42 0.37 0.48 0.38 0.50 0.40 0.30 0.33 0.30 0.35 0.34 "
                "0.30 0.22 0.40 0.34 0.30 0.29 0.19 0.37 0.31 0.27 0.25 0.29",
     TARGETS(AT(LOAD_CV, 0.17), AT(MAX_MEAN, 1.30), AT(DIVERGENCE, 0.012), AT(ANY_AGAIN, 0.61), AT(FIRST_AGAIN, 0.25))},
    {.name = "glm-5.2",
     .origin = "expert statistics of 10 domains, 75 layers; no data on time: slow and fast are assumed, token_bits is "
               "OLMoE's",
     .n_experts = 256,
     .top_k = 8,
     .n_layers = 75,
     .n_domains = 10,
     .effects = {.popularity = 0.1977,
                 .popularity_skew = -0.3616,
                 .domain_effect = 0.7252,
                 .domain_tail = 1.679,
                 .sequence_effect = 0.4328,
                 .slow_effect = 0.5,
                 .slow_rho = 0.98,
                 .fast_effect = 0.8,
                 .fast_rho = 0.5,
                 .token_effect = 1.624},
     .profile = "0.29 0.27 0.28 0.32 0.31 0.33 0.31 0.32 0.33 0.40 0.24 0.26 0.40 0.33 0.41 0.41 0.42 0.59 0.55 0.51 "
                "0.30 0.30 0.27 0.29 0.33 0.37 0.35 0.35 0.46 0.43 0.44 0.42 0.43 0.50 0.42 0.46 0.53 0.47 0.49 0.48 "
                "0.50 0.54 0.44 0.43 0.42 0.43 0.49 0.56 0.49 0.51 0.42 0.46 0.43 0.49 0.49 0.47 0.51 0.51 0.42 0.44 "
                "0.45 0.55 0.46 0.61 0.44 0.47 0.56 0.48 0.49 0.53 0.46 0.48 0.44 0.46 0.49",
     TARGETS(AT(LOAD_CV, 0.43), AT(MAX_MEAN, 3.5), AT(DOMAIN_CV, 0.905), AT(DOMAIN_MAX, 8.8), AT(DIVERGENCE, 0.145),
             AT(RANKS, 0.27), AT(TOKEN_BITS, 1.2))},
    {.name = "deepseek-v3",
     .origin = "expert statistics of decoding in 12 serving workloads, 58 layers; no data on time: slow and fast are "
               "assumed, token_bits is OLMoE's",
     .n_experts = 256,
     .top_k = 8,
     .n_layers = 58,
     .n_domains = 12,
     .effects = {.popularity = 0.7291,
                 .popularity_skew = 0.4146,
                 .domain_effect = 0.1915,
                 .domain_tail = 1.32,
                 .sequence_effect = 0.4632,
                 .slow_effect = 0.5,
                 .slow_rho = 0.98,
                 .fast_effect = 0.8,
                 .fast_rho = 0.5,
                 .token_effect = 1.593},
     .profile = DEEPSEEK_V3_PROFILE,
     TARGETS(AT(LOAD_CV, 0.80), AT(MAX_MEAN, 5.8), AT(GINI, 0.37), AT(DIVERGENCE, 0.02), AT(RANKS, 0.88),
             AT(TOKEN_BITS, 1.2))},
    {.name = "deepseek-v3-prefill",
     .origin = "expert statistics of prompts of 4096 tokens, 58 layers; domains, profile and the rest as for decoding",
     .n_experts = 256,
     .top_k = 8,
     .n_layers = 58,
     .n_domains = 12,
     .effects = {.popularity = 0.9133,
                 .popularity_skew = 0.5786,
                 .domain_effect = 0.2219,
                 .domain_tail = 1.32,
                 .sequence_effect = 0.458,
                 .slow_effect = 0.5,
                 .slow_rho = 0.98,
                 .fast_effect = 0.8,
                 .fast_rho = 0.5,
                 .token_effect = 1.584},
     .profile = DEEPSEEK_V3_PROFILE,
     TARGETS(AT(LOAD_CV, 1.07), AT(MAX_MEAN, 8.1), AT(GINI, 0.45), AT(LOG_SIGMA, 0.82), AT(DIVERGENCE, 0.022),
             AT(RANKS, 0.87))},
    {.name = "qwen1.5-moe",
     .origin = "loads of one layer; no data on domains, time and tokens, which are assumed",
     .n_experts = 60,
     .top_k = 4,
     .n_layers = 24,
     .n_domains = 5,
     .effects = {.popularity = 0.1581,
                 .popularity_skew = -2.2,
                 .domain_effect = 0.2,
                 .domain_tail = 1,
                 .sequence_effect = 0.5,
                 .slow_effect = 0.5,
                 .slow_rho = 0.98,
                 .fast_effect = 0.8,
                 .fast_rho = 0.5,
                 .token_effect = 0.2317},
     .profile = "flat",
     TARGETS(AT(LOAD_CV, 0.17), AT(MAX_MEAN, 1.43), AT(GINI, 0.09), AT(LOG_SIGMA, 0.20))},
    {.name = "none",
     .origin = "every expert alike",
     .n_experts = 64,
     .top_k = 8,
     .n_layers = 1,
     .n_domains = 1,
     .effects = {.domain_tail = 1},
     .profile = "flat"},
};
