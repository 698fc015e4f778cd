/*
 * deepseek-v3: scores are sigmoids; a bias is added for selection only. A token compares the groups of experts by the
 * sum of their two best biased scores, keeps topk_groups of them, and takes its k best experts there; the weight is the
 * unbiased score over the sum of the selected ones, times scale. After each global batch the bias of an expert with
 * less than the mean load rises by gamma, that of one with more falls by it. A small loss evens each sequence.
 *
 * DeepSeek-AI, "DeepSeek-V3", 2024, sections 2.1.2 and 4.2; bias rule of Wang et al., "Auxiliary-Loss-Free Load
 * Balancing", 2024.
 */
#include <moesim/kernels.h>
#include <moesim/router.h>

static const struct moesim_param deepseek_v3_schema[] = {
    MOESIM_FIT_PARAMS(struct moesim_choice_params, choice, "8", "0", "megatron", "token"),
    MOESIM_WEIGHT_PARAMS(struct moesim_choice_params, choice, "sigmoid", "sum", "2.5"),
    MOESIM_GROUPS_PARAMS(struct moesim_choice_params, choice, "8", "4", "top2"),
    MOESIM_BIAS_PARAMS(struct moesim_choice_params, choice, "sign", "0.001"),
    MOESIM_NOISE_PARAMS(struct moesim_choice_params, choice, "0"),
    MOESIM_AUX_PARAMS(struct moesim_choice_params, choice, "sequence", "0.0001", "all", "unbiased"),
    MOESIM_PARAM_END,
};

const struct moesim_router moesim_router_deepseek_v3 = {
    MOESIM_ROUTER_HEAD,
    MOESIM_CHOICE_HOOKS,
    .name = "deepseek-v3",
    .summary = "k best experts by biased sigmoid within the token's best groups; loss-free bias update",
    .reference = "DeepSeek-AI, DeepSeek-V3, 2024: 8 of 256 experts in 4 of 8 groups, scale 2.5, gamma 0.001",
    .params = deepseek_v3_schema,
};
