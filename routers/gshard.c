/*
 * gshard: every token takes its best expert, and its second best with probability min(1, g2 / threshold) in training,
 * where g1 and g2 are the two softmax probabilities divided by their sum. They are divided before the drop, so a token
 * that loses one of its experts keeps the other's share. All first choices take slots before any second one. The
 * auxiliary loss counts first choices, before the drop.
 *
 * Lepikhin et al., "GShard", ICLR 2021, section 2.2 and algorithm 1: "2 g2 > random" is threshold = 0.5. Mesh
 * TensorFlow has threshold = 0.2, Lingvo second = all.
 */
#include <moesim/kernels.h>
#include <moesim/router.h>

static const struct moesim_param gshard_schema[] = {
    MOESIM_FIT_PARAMS(struct moesim_choice_params, choice, "2", "2", "gshard", "choice"),
    MOESIM_WEIGHT_PARAMS(struct moesim_choice_params, choice, "softmax", "sum", "1"),
    MOESIM_SECOND_PARAMS(struct moesim_choice_params, choice, "random", "0.5"),
    MOESIM_GROUPS_PARAMS(struct moesim_choice_params, choice, "1", "1", "max"),
    MOESIM_BIAS_PARAMS(struct moesim_choice_params, choice, "none", "0.001"),
    MOESIM_NOISE_PARAMS(struct moesim_choice_params, choice, "0"),
    MOESIM_AUX_PARAMS(struct moesim_choice_params, choice, "gshard", "0.01", "all", "before-drop"),
    MOESIM_PARAM_END,
};

const struct moesim_router moesim_router_gshard = {
    MOESIM_ROUTER_HEAD,
    MOESIM_CHOICE_HOOKS,
    .name = "gshard",
    .summary = "best expert, and the second best at random by its weight; first choices are seated first",
    .reference = "Lepikhin et al., GShard, ICLR 2021, algorithm 1",
    .params = gshard_schema,
};
