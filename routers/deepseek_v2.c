/*
 * deepseek-v2: a token compares the groups of experts (one per device) by their best softmax probability, keeps
 * topk_groups of them, and takes its k best experts there; the weight is the probability times scale, not divided by
 * the sum. Three losses: experts, devices, and the tokens sent to each device.
 *
 * DeepSeek-AI, "DeepSeek-V2", 2024, sections 2.2.2 and 2.2.3: 160 experts on 8 devices, 6 per token, 3 devices, scale
 * 16, coefficients 0.003, 0.05 and 0.02. The paper drops by device in training; here capacity_factor drops by expert.
 */
#include <moesim/kernels.h>
#include <moesim/router.h>

static const struct moesim_param deepseek_v2_schema[] = {
    MOESIM_FIT_PARAMS(struct moesim_choice_params, choice, "6", "0", "megatron", "token"),
    MOESIM_WEIGHT_PARAMS(struct moesim_choice_params, choice, "softmax", "none", "16"),
    MOESIM_GROUPS_PARAMS(struct moesim_choice_params, choice, "8", "3", "max"),
    MOESIM_BIAS_PARAMS(struct moesim_choice_params, choice, "none", "0.001"),
    MOESIM_NOISE_PARAMS(struct moesim_choice_params, choice, "0"),
    MOESIM_AUX_PARAMS(struct moesim_choice_params, choice, "0.003*switch+0.05*device+0.02*communication", "1", "all",
                      "before-drop"),
    MOESIM_PARAM_END,
};

const struct moesim_router moesim_router_deepseek_v2 = {
    MOESIM_ROUTER_HEAD,
    MOESIM_CHOICE_HOOKS,
    .name = "deepseek-v2",
    .summary = "k best experts by softmax within the token's best groups; expert, device and communication losses",
    .reference = "DeepSeek-AI, DeepSeek-V2, 2024: 6 of 160 experts in 3 of 8 groups, scale 16",
    .params = deepseek_v2_schema,
};
