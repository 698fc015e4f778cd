/* SPDX-License-Identifier: MIT
 *
 * What parameters of the token-choice family make of a router's shape, and which of them contradict each other.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/router.h>

#include "sim/contract/kernels/token_choice.h"

enum moesim_status moesim_group_parse(const char *text, struct moesim_shape *shape, struct moesim_error *err)
{
    static const char *const names[] = {
        [MOESIM_GROUP_DEVICE] = "device", [MOESIM_GROUP_BATCH] = "batch", [MOESIM_GROUP_SEQUENCE] = "sequence"};
    for (uint32_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0) {
            shape->group = i;
            if (i == MOESIM_GROUP_SEQUENCE)
                shape->needs |= MOESIM_NEEDS_SEQUENCES;
            return MOESIM_OK;
        }
    char *end = NULL;
    errno = 0;
    const unsigned long n = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;
    if (n == 0 || *end != '\0' || errno != 0 || n > UINT32_MAX)
        return moesim_fail(err, MOESIM_EINVAL,
                           "group = \"%s\" should be device, batch, sequence or a number of tokens above 0", text);
    shape->group = MOESIM_GROUP_TOKENS;
    shape->group_tokens = (uint32_t)n;
    return MOESIM_OK;
}

/* Whether the groups of experts can give a token its k. */
static enum moesim_status check_groups(const struct moesim_token_choice *p, uint32_t n_experts,
                                       struct moesim_error *err)
{
    const uint32_t n = p->n_groups, kept = p->topk_groups;
    if (n <= 1 && kept <= 1)
        return MOESIM_OK;
    if (n == 0 || n_experts % n != 0)
        return moesim_fail(err, MOESIM_EINVAL, "n_groups = %u does not divide the %u experts into equal groups", n,
                           n_experts);
    if (kept > n)
        return moesim_fail(err, MOESIM_EINVAL, "topk_groups = %u exceeds n_groups = %u", kept, n);
    if (kept == 0 && p->k % n != 0)
        return moesim_fail(err, MOESIM_EINVAL,
                           "k = %u is no multiple of n_groups = %u: topk_groups = 0 takes k / n_groups experts from "
                           "every group",
                           p->k, n);
    if (kept > 0 && (uint64_t)kept * (n_experts / n) < p->k)
        return moesim_fail(err, MOESIM_EINVAL, "topk_groups = %u groups of %u experts cannot hold k = %u", kept,
                           n_experts / n, p->k);
    if (kept > 0 && p->group_score == MOESIM_GROUP_TOPK && p->k < kept)
        return moesim_fail(err, MOESIM_EINVAL,
                           "group_score = topk adds up a group's k / topk_groups best scores, which is none with "
                           "k = %u and topk_groups = %u",
                           p->k, kept);
    return MOESIM_OK;
}

enum moesim_status moesim_token_choice_shape(const struct moesim_token_choice *p, const struct moesim_env *env,
                                             struct moesim_shape *shape, struct moesim_error *err)
{
    if (p->k > env->n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "k = %u exceeds the %u experts", p->k, env->n_experts);
    if (p->weight == MOESIM_WEIGHT_SOFTMAX && p->k == 1 && env->n_experts > 1)
        return moesim_fail(
            err, MOESIM_EINVAL,
            "weight = softmax with k = 1 gives every token the constant weight 1: use weight = none or a "
            "larger k");
    if (p->second == MOESIM_SECOND_RANDOM && p->k != 2)
        return moesim_fail(err, MOESIM_EINVAL,
                           "second = random withdraws the second of two choices: it needs k = 2, not %u", p->k);
    if (p->overflow == MOESIM_REROUTE && p->rounds > 0 && p->n_groups > 1 && p->topk_groups == 0)
        return moesim_fail(err, MOESIM_EINVAL,
                           "rounds = %u goes by one list of a token's best experts, but topk_groups = 0 has one for "
                           "each of n_groups = %u: rounds should be 0",
                           p->rounds, p->n_groups);
    enum moesim_status status = check_groups(p, env->n_experts, err);
    if (!status)
        status = moesim_group_parse(p->group, shape, err);
    if (status)
        return status;
    shape->max_pairs = (uint64_t)env->max_tokens * p->k * (p->overflow == MOESIM_REROUTE ? 2 : 1);
    shape->input_jitter = (float)p->jitter;
    return MOESIM_OK;
}
