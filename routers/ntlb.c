/*
 * ntlb, no token left behind: every token goes to its best expert; those that found it full try their second choice
 * when all first choices are seated, and so on for `rounds` rounds in which an expert fills up; the weight is the raw
 * probability of the expert that took the token. The auxiliary loss is that of switch, over all `rounds` choices of
 * every token, tried or not.
 *
 * Mesh TensorFlow, mesh_tensorflow/transformer/moe.py: a list of 4, capacity as for switch. With k above 1 a token goes
 * on as long as it is short of an expert; rounds = 0 reroutes at once instead.
 */
#include <moesim/kernels.h>
#include <moesim/router.h>

static const struct moesim_param ntlb_schema[] = {
    MOESIM_FIT_PARAMS(struct moesim_choice_params, choice, "1", "1.25", "mesh", "choice"),
    MOESIM_SCORE_PARAMS(struct moesim_choice_params, choice, "softmax", "none", "1"),
    MOESIM_OVERFLOW_PARAMS(struct moesim_choice_params, choice, "reroute"),
    MOESIM_ROUNDS_PARAMS(struct moesim_choice_params, choice, "4"),
    MOESIM_JITTER_PARAMS(struct moesim_choice_params, choice),
    MOESIM_GROUPS_PARAMS(struct moesim_choice_params, choice, "1", "1", "max"),
    MOESIM_BIAS_PARAMS(struct moesim_choice_params, choice, "none", "0.001"),
    MOESIM_NOISE_PARAMS(struct moesim_choice_params, choice, "0"),
    MOESIM_AUX_PARAMS(struct moesim_choice_params, choice, "switch", "0.01", "listed", "before-drop"),
    MOESIM_PARAM_END,
};

const struct moesim_router moesim_router_ntlb = {
    MOESIM_ROUTER_HEAD,
    MOESIM_CHOICE_HOOKS,
    .name = "ntlb",
    .summary = "no token left behind: who finds an expert full tries its next choice in the next round",
    .reference = "Mesh TensorFlow, mesh_tensorflow/transformer/moe.py, ntlb gating",
    .params = ntlb_schema,
};
