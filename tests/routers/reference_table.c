/*
 * The references, by router.
 */
#include "tests/routers/reference_routers.h"

const struct reference_entry reference_table[] = {
    {"softmax-topk", reference_axes, update_axes},
    {"noisy-topk", reference_noisy_topk, NULL},
    {"switch", reference_axes, update_axes},
    {"ntlb", reference_axes, update_axes},
    {"quantile", reference_axes, update_axes},
    {"gshard", reference_axes, update_axes},
    {"vmoe", reference_axes, update_axes},
    {"expert-choice", reference_expert_choice, NULL},
    {"deepseek-v2", reference_axes, update_axes},
    {"deepseek-v3", reference_axes, update_axes},
    {"moge", reference_axes, update_axes},
    {"expert-threshold", reference_expert_threshold, update_expert_threshold},
    {"hash", reference_hash, NULL},
    {"random", reference_random, NULL},
    {"base", reference_base, NULL},
    {"sinkhorn", reference_sinkhorn, NULL},
    {"top-p", reference_top_p, update_top_p},
    {"relu", reference_relu, update_relu},
    {"soft", reference_soft, NULL},
    {"mod", reference_mod, NULL},
    {"zero-expert", reference_zero_expert, update_zero_expert},
    {"cosine", reference_cosine, NULL},
    {"hierarchical", reference_hierarchical, NULL},
    {"dselect-k", reference_dselect_k, NULL},
    {"sparsemixer", reference_sparsemixer, NULL},
    {"bernoulli", reference_bernoulli, NULL},
    {"round-robin", reference_round_robin, NULL},
    {"biased", reference_biased, NULL},
    {"replay", reference_replay, NULL},
    {"null", reference_null, NULL},
    {0},
};
