/*
 * moge: experts stand in equal groups, one per device, and a token takes its k / n_groups best experts from each, so
 * that all devices get the same load whatever the tokens are. The weight is the softmax probability over all experts.
 *
 * Tang et al., "Pangu Pro MoE: Mixture of Grouped Experts", 2025, section 2: 64 experts in 8 groups, 8 per token. With
 * one expert per group it is the expert prototyping of M6-T (Yang et al., 2021).
 */
#include <moesim/kernels.h>
#include <moesim/router.h>

static const struct moesim_param moge_schema[] = {
    MOESIM_TOKEN_CHOICE_PARAMS(struct moesim_choice_params, choice, "8", "none", "0", "megatron", "token"),
    MOESIM_GROUPS_PARAMS(struct moesim_choice_params, choice, "8", "0", "max"),
    MOESIM_BIAS_PARAMS(struct moesim_choice_params, choice, "none", "0.001"),
    MOESIM_NOISE_PARAMS(struct moesim_choice_params, choice, "0"),
    MOESIM_AUX_PARAMS(struct moesim_choice_params, choice, "none", "0.01", "all", "before-drop"),
    MOESIM_PARAM_END,
};

const struct moesim_router moesim_router_moge = {
    MOESIM_ROUTER_HEAD,
    MOESIM_CHOICE_HOOKS,
    .name = "moge",
    .summary = "the same number of experts from each group: k / n_groups best by softmax",
    .reference = "Tang et al., Pangu Pro MoE, 2025: 8 of 64 experts, one from each of 8 groups",
    .params = moge_schema,
};
