/* SPDX-License-Identifier: MIT
 *
 * The shared steps of routing, so that a new router is short: scores, top-k with the tie rule, capacity,
 * priority, overflow, weights, auxiliary losses. They work on whole batches and use the host's threads inside; the
 * result has the same bits on any number of threads.
 *
 * Tie rule: higher score, then lower expert id; between tokens the lower token id; between groups the lower group id.
 * NaN never beats a number; a row without one finite value is a bad row.
 */
#ifndef MOESIM_KERNELS_H
#define MOESIM_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/batch.h>
#include <moesim/param.h>
#include <moesim/plan.h>
#include <moesim/status.h>

/* ---- elementary functions: the same bits from every compiler, vectorised or not ---- */

/* e^x within 2 ulp on [-87, 88]; 0 below -87.3, +inf above 88.7, NaN for NaN. */
MOESIM_API float moesim_expf(float x);

/* The sum of n floats as eight interleaved partial sums and a fixed tree, without FMA. */
MOESIM_API float moesim_sum(const float *x, size_t n);

/* out[i] = ln(1 + e^x[i]), without overflow for large x; x and out may be the same. */
MOESIM_API void moesim_softplus(const float *x, size_t n, float *out);

/* Which build of the kernels runs on this processor: "baseline" or "avx2"; both give the same bits. */
MOESIM_API const char *moesim_kernel_path(void);

/* ---- scores ---- */

#define MOESIM_SCORE_CHOICES "softmax|sigmoid|sqrt-softplus|relu"
enum moesim_score {
    MOESIM_SOFTMAX,
    MOESIM_SIGMOID,
    MOESIM_SQRT_SOFTPLUS,
    MOESIM_RELU,
    MOESIM_IDENTITY, /* values as they are; only where a function says so, and no choice for users */
};

/* scores[t][e] = f(logits[t][e]) over n_experts columns; rows of `stride` floats in, rows of n_experts floats out.
 * Softmax subtracts the row's largest finite value; NaN scores as NaN and takes no part, -inf scores 0, and where there
 * are +inf logits they share everything; the other functions score +inf as the largest finite number. A row without one
 * finite value scores as NaN throughout. */
MOESIM_API void moesim_scores(enum moesim_score score, const float *logits, size_t stride, uint32_t n_tokens,
                              uint32_t n_experts, float *scores);

/* d_logits[t][e] += the gradient of moesim_scores for `d_scores`; `scores` are its results. */
MOESIM_API void moesim_scores_backward(enum moesim_score score, const float *logits, size_t stride, const float *scores,
                                       const float *d_scores, uint32_t n_tokens, uint32_t n_experts, float *d_logits);

/* The same for one row each, by the calling thread alone: for bodies of moesim_for_tokens and moesim_choose. */
MOESIM_API void moesim_score_row(enum moesim_score score, const float *logits, uint32_t n_experts, float *scores);
MOESIM_API void moesim_score_row_backward(enum moesim_score score, const float *logits, const float *scores,
                                          const float *d_scores, uint32_t n_experts, float *d_logits);

/* The entropy of one row's softmax scores, -sum s ln s; NaN for a bad row. For one thread. */
MOESIM_API double moesim_entropy_row(const float *logits, const float *scores, uint32_t n_experts);

/* ---- sums of scores over tokens, which balance losses are made of ---- */

/* Scores are added up within runs of run_tokens tokens (0 = those of the token-choice family, else those of a chooser),
 * groups and, with by_sequence, sequences; those of sigmoid and sqrt-softplus are divided by their sum over experts
 * first. NaN adds nothing. */
struct moesim_env;
struct moesim_score_sums;
MOESIM_API MOESIM_MUST_CHECK enum moesim_status
moesim_score_sums_init(enum moesim_score score, uint32_t n_experts, uint32_t run_tokens, bool by_sequence,
                       const struct moesim_env *env, struct moesim_score_sums **sums, struct moesim_error *err);

/* Starts anew with a batch's logits. With `is_added` the caller will add the scores of every token but padding itself,
 * which spares them from being worked out twice. */
MOESIM_API void moesim_score_sums_begin(struct moesim_score_sums *sums, const struct moesim_batch *batch,
                                        const float *logits, size_t stride, bool is_added);

/* Adds one token's scores: from the body of moesim_choose(), where a run's tokens come in order. */
MOESIM_API void moesim_score_sums_add(struct moesim_score_sums *sums, uint32_t token, const float *scores);

/* sum[n_experts] over tokens [first, last): a group, a sequence or the batch. Cheapest asked for in rising order. */
MOESIM_API void moesim_score_sums_of(struct moesim_score_sums *sums, uint32_t first, uint32_t last, double *sum);

/* ---- selection ---- */

/* For every token the k best of n values by the tie rule, best first: expert[t * k + c]. A bad row gives
 * MOESIM_NO_EXPERT k times; NaN values are taken only when nothing else is left, and then as MOESIM_NO_EXPERT. k <= n.
 */
MOESIM_API void moesim_topk(const float *values, size_t stride, uint32_t n_tokens, uint32_t n, uint32_t k,
                            uint32_t *expert);

/* The same of n_rows rows at any address: expert[i][k] of row[i]. For one thread. */
MOESIM_API void moesim_topk_rows(const float *const *row, uint32_t n_rows, uint32_t n, uint32_t k,
                                 uint32_t *const *expert);

/* All experts of one row of n values above `cut`, best first by the tie rule; returns how many. For one thread. */
MOESIM_API uint32_t moesim_rank_above(const float *values, uint32_t n, float cut, uint32_t *expert);

/* A value of one row above which the others' masses sum to more than `enough`, but not to much more: a bound for
 * moesim_rank_above(); -inf where there is none. For one thread. */
MOESIM_API float moesim_cut_by_mass(const float *values, const float *mass, uint32_t n, float enough);

/* The (k + 1)-th best of one row of n finite values, where the k-th is known; k < n. For one thread. */
MOESIM_API float moesim_next_best(const float *values, uint32_t n, uint32_t k, float kth);

/* For one column, the `count` best rows of [first, last) by the tie rule (lower row first), in decreasing order of
 * value: row[0 .. result). NaN rows and rows with `skip[row]` set are never taken, so the result may be below count.
 * `skip` may be NULL. */
MOESIM_API uint32_t moesim_topk_column(const float *values, size_t stride, uint32_t first, uint32_t last,
                                       uint32_t column, uint32_t count, const uint8_t *skip, uint32_t *row);

/* ---- capacity ---- */

/* The formulas that carry the name "capacity factor", by the library that uses them
 * (docs/where-implementations-disagree.md gives each formula). The order is that of MOESIM_CAPACITY_CHOICES. */
#define MOESIM_CAPACITY_CHOICES                                                                                        \
    "megatron|tutel|deepspeed|megablocks|mesh|flaxformer|gshard|vmoe|fastmoe|torchscale|torchscale-eval|maxtext|"      \
    "axlearn"
enum moesim_capacity_rule {
    MOESIM_CAPACITY_MEGATRON,
    MOESIM_CAPACITY_TUTEL,
    MOESIM_CAPACITY_DEEPSPEED,
    MOESIM_CAPACITY_MEGABLOCKS,
    MOESIM_CAPACITY_MESH,
    MOESIM_CAPACITY_FLAXFORMER,
    MOESIM_CAPACITY_GSHARD,
    MOESIM_CAPACITY_VMOE,
    MOESIM_CAPACITY_FASTMOE,
    MOESIM_CAPACITY_TORCHSCALE,
    MOESIM_CAPACITY_TORCHSCALE_EVAL, /* the factor is a share of the tokens */
    MOESIM_CAPACITY_MAXTEXT,
    MOESIM_CAPACITY_AXLEARN,
};

/* Slots per expert for a group of n_tokens; MOESIM_UNLIMITED when factor is 0 (dropless). `min_capacity` 0 means the
 * rule's own minimum (deepspeed, mesh, flaxformer 4; axlearn 1; else 0). */
MOESIM_API uint32_t moesim_capacity(enum moesim_capacity_rule rule, uint32_t n_tokens, uint32_t n_experts, uint32_t k,
                                    double factor, uint32_t min_capacity);

/* Who takes a slot first. */
#define MOESIM_PRIORITY_CHOICES "token|choice|bpr|prob|random"
enum moesim_priority {
    MOESIM_PRIORITY_TOKEN,  /* token 0's choices, then token 1's */
    MOESIM_PRIORITY_CHOICE, /* all first choices in token order, then all second ones */
    MOESIM_PRIORITY_BPR,    /* tokens by decreasing best score, then as choice */
    MOESIM_PRIORITY_PROB,   /* each expert keeps its highest-scored pairs */
    MOESIM_PRIORITY_RANDOM, /* each expert keeps random pairs (training; token order in evaluation) */
};

#define MOESIM_OVERFLOW_CHOICES "drop|reroute"
enum moesim_overflow {
    MOESIM_DROP,    /* the refused pair is lost; the residual carries the token */
    MOESIM_REROUTE, /* the token goes to a free slot of an expert that it does not use yet: the best-scored such
                       expert, token after token; or round by round, see moesim_token_choice.rounds */
};

/* ---- weights ---- */

#define MOESIM_WEIGHT_CHOICES "none|sum|softmax"
enum moesim_weight {
    MOESIM_WEIGHT_NONE,    /* the raw score */
    MOESIM_WEIGHT_SUM,     /* the score over the sum of the selected */
    MOESIM_WEIGHT_SOFTMAX, /* softmax over the selected logits */
};

#define MOESIM_RENORM_CHOICES "before-drop|after-drop"
enum moesim_renorm { MOESIM_BEFORE_DROP, MOESIM_AFTER_DROP };

/* ---- groups of experts, bias, losses ---- */

/* By what a token compares the groups of experts: the best of their members' scores (bias included), the sum of the
 * best two, or of the best k / topk_groups. */
#define MOESIM_GROUP_SCORE_CHOICES "max|top2|topk"
enum moesim_group_score { MOESIM_GROUP_MAX, MOESIM_GROUP_TOP2, MOESIM_GROUP_TOPK };

/* What the bias is added to before experts are compared, and so its unit. With logits a score function plays no part in
 * the choice, only in the weights. */
#define MOESIM_BIAS_ON_CHOICES "scores|logits"
enum moesim_bias_on { MOESIM_BIAS_ON_SCORES, MOESIM_BIAS_ON_LOGITS };

/* How the bias follows the counts c of a global batch; mean is their mean over experts. */
#define MOESIM_BIAS_UPDATE_CHOICES "none|sign|sign-centred|proportional|quantile"
enum moesim_bias_update {
    MOESIM_BIAS_FIXED,
    MOESIM_BIAS_SIGN,         /* b += gamma * sign(mean - c) */
    MOESIM_BIAS_SIGN_CENTRED, /* the same, less the mean of the change */
    MOESIM_BIAS_PROPORTIONAL, /* b += gamma * (mean - c) / mean */
    MOESIM_BIAS_QUANTILE,     /* see moesim_quantile_bias; gamma has no part in it */
};

/* Whether a token's second choice is kept always, or in training with probability min(1, weight / threshold). */
#define MOESIM_SECOND_CHOICES "all|random"
enum moesim_second { MOESIM_SECOND_ALL, MOESIM_SECOND_RANDOM };

/* What an auxiliary loss counts as f_e: shares that sum to 1 or to k; every choice, the first, or all that a token may
 * try in its rounds (k without rounds); as chosen, as kept, or as the best scores without noise, bias, groups of
 * experts and capacity would have it. */
#define MOESIM_AUX_DIVIDE_CHOICES "k|none"
#define MOESIM_AUX_CHOICES_CHOICES "all|first|listed"
#define MOESIM_AUX_COUNT_CHOICES "before-drop|after-drop|unbiased"
enum moesim_aux_divide { MOESIM_AUX_BY_K, MOESIM_AUX_UNDIVIDED };
enum moesim_aux_choices { MOESIM_AUX_ALL, MOESIM_AUX_FIRST, MOESIM_AUX_LISTED };
enum moesim_aux_count { MOESIM_AUX_BEFORE_DROP, MOESIM_AUX_AFTER_DROP, MOESIM_AUX_UNBIASED };

/* ---- the token-choice family: a point on the axes above ---- */

/* The shared parameters; embed it in a router's params struct and list the rows of the axes it offers with the macros
 * below. An axis without rows stays 0, which turns it off. */
struct moesim_token_choice {
    uint32_t k;
    uint32_t score, weight, renorm, capacity_rule, priority, overflow; /* enums of the same names */
    const char *group;                                                 /* see moesim_group_parse */
    double scale, capacity_factor;
    uint32_t min_capacity;
    /* Of rerouting: a token's list is its `rounds` best experts, and in round i every token that is still short of an
     * expert tries the i-th of its list; 0 = no list, each refused pair looks through all experts at once. */
    uint32_t rounds;
    double jitter;

    uint32_t n_groups, topk_groups, group_score; /* of experts: equal runs of consecutive ones; 0 or 1 = no groups */
    const char *bias;                            /* a file's name; "" or NULL = none */
    uint32_t bias_on, bias_update;
    double gamma;
    double noise;
    uint32_t second;
    double threshold;

    const char *aux_form; /* see moesim_choice_shape; "" or NULL = none */
    double aux_coef;
    uint32_t aux_divide, aux_choices, aux_count;
    double z_coef;
};

/* Reads "device", "batch", "sequence" or a number of tokens into shape->group and shape->group_tokens. */
struct moesim_shape;
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_group_parse(const char *text, struct moesim_shape *shape,
                                                                   struct moesim_error *err);

/* Schema rows for the member `m` of params struct `T`: how many experts a token gets and what fits into them. They are
 * all that a router of fixed choices needs (moesim_token_choice_fit). */
#define MOESIM_FIT_PARAMS(T, m, k_, factor_, rule_, priority_)                                                         \
    MOESIM_PARAM_IN(T, m, k, k_, 1, 65536, "experts per token"),                                                       \
        MOESIM_PARAM_IN(T, m, capacity_factor, factor_, 0, 65536,                                                      \
                        "expert slots over an even share, by capacity_rule; 0 = dropless"),                            \
        MOESIM_CHOICE_IN(T, m, capacity_rule, rule_, MOESIM_CAPACITY_CHOICES,                                          \
                         "the library whose capacity formula is used"),                                                \
        MOESIM_PARAM_IN(T, m, min_capacity, "0", 0, 1 << 30, "least slots per expert; 0 = the rule's own"),            \
        MOESIM_CHOICE_IN(T, m, priority, priority_, MOESIM_PRIORITY_CHOICES, "who takes a full expert's slots"),       \
        MOESIM_PARAM_IN(T, m, group, "device", 0, 0,                                                                   \
                        "tokens that share capacity and priority: device, batch, sequence or a number of tokens")

/* Rows of the scores and the weights made of them. */
#define MOESIM_SCORE_PARAMS(T, m, score_, weight_, scale_)                                                             \
    MOESIM_CHOICE_IN(T, m, score, score_, MOESIM_SCORE_CHOICES, "score function over the gate's logits"),              \
        MOESIM_CHOICE_IN(T, m, weight, weight_, MOESIM_WEIGHT_CHOICES,                                                 \
                         "gate weight: raw score, divided by the selected sum, or softmax of the selected logits"),    \
        MOESIM_CHOICE_IN(T, m, renorm, "before-drop", MOESIM_RENORM_CHOICES,                                           \
                         "whether sum and softmax run over all selected experts or only the kept ones"),               \
        MOESIM_PARAM_IN(T, m, scale, scale_, 0, 1e6, "factor on every gate weight")

/* The row of what becomes of a refused pair, and that of rerouting in rounds. */
#define MOESIM_OVERFLOW_PARAMS(T, m, overflow_)                                                                        \
    MOESIM_CHOICE_IN(T, m, overflow, overflow_, MOESIM_OVERFLOW_CHOICES, "what happens to a refused pair")
#define MOESIM_ROUNDS_PARAMS(T, m, rounds_)                                                                            \
    MOESIM_PARAM_IN(T, m, rounds, rounds_, 0, 65536,                                                                   \
                    "of rerouting: round i takes tokens still short of an expert to their i-th choice; 0 = a "         \
                    "refused pair looks through all experts at once")
#define MOESIM_JITTER_PARAMS(T, m)                                                                                     \
    MOESIM_PARAM_IN(T, m, jitter, "0", 0, 0.999, "gate input times U(1-jitter, 1+jitter) in training")

/* Rows of scores, weights, overflow and jitter. */
#define MOESIM_WEIGHT_PARAMS(T, m, score_, weight_, scale_)                                                            \
    MOESIM_SCORE_PARAMS(T, m, score_, weight_, scale_), MOESIM_OVERFLOW_PARAMS(T, m, "drop"), MOESIM_JITTER_PARAMS(T, m)

/* The rows that moesim_token_choice_route() needs; the five defaults in which most routers differ are given. */
#define MOESIM_TOKEN_CHOICE_PARAMS(T, m, k_, weight_, factor_, rule_, priority_)                                       \
    MOESIM_FIT_PARAMS(T, m, k_, factor_, rule_, priority_), MOESIM_WEIGHT_PARAMS(T, m, "softmax", weight_, "1")

/* Rows of the groups of experts, which moesim_token_choice_route() follows. */
#define MOESIM_GROUPS_PARAMS(T, m, n_groups_, topk_groups_, group_score_)                                              \
    MOESIM_PARAM_IN(T, m, n_groups, n_groups_, 1, 65536, "equal runs of consecutive experts; 1 = no groups"),          \
        MOESIM_PARAM_IN(T, m, topk_groups, topk_groups_, 0, 65536,                                                     \
                        "groups a token may choose from; 0 = all, k / n_groups experts from each"),                    \
        MOESIM_CHOICE_IN(T, m, group_score, group_score_, MOESIM_GROUP_SCORE_CHOICES,                                  \
                         "what groups are compared by: best score, sum of the best 2, or of the best k / topk_groups")

/* Rows of the bias, for the hooks below. */
#define MOESIM_BIAS_PARAMS(T, m, bias_update_, gamma_) MOESIM_BIAS_ON_PARAMS(T, m, "scores", bias_update_, gamma_)
#define MOESIM_BIAS_ON_PARAMS(T, m, bias_on_, bias_update_, gamma_)                                                    \
    MOESIM_FILE_IN(T, m, bias, "added for selection only, see bias_on: .npy of [experts] or [layers, experts]"),       \
        MOESIM_CHOICE_IN(T, m, bias_on, bias_on_, MOESIM_BIAS_ON_CHOICES,                                              \
                         "what the bias is added to: experts are compared by score + bias or by logit + bias"),        \
        MOESIM_CHOICE_IN(T, m, bias_update, bias_update_, MOESIM_BIAS_UPDATE_CHOICES,                                  \
                         "how the bias follows the counts after each global batch of training"),                       \
        MOESIM_PARAM_IN(T, m, gamma, gamma_, 0, 1e3, "step of bias_update; quantile has none")

/* The row of the noise, for the hooks below. */
#define MOESIM_NOISE_PARAMS(T, m, noise_)                                                                              \
    MOESIM_PARAM_IN(T, m, noise, noise_, 0, 1e3,                                                                       \
                    "normal noise on the logits in training, of standard deviation noise / experts")

/* Rows of the random second choice; moesim_token_choice_route() draws it. */
#define MOESIM_SECOND_PARAMS(T, m, second_, threshold_)                                                                \
    MOESIM_CHOICE_IN(T, m, second, second_, MOESIM_SECOND_CHOICES,                                                     \
                     "second choices kept in training: all, or at random by their weight (k = 2)"),                    \
        MOESIM_PARAM_IN(T, m, threshold, threshold_, 1e-9, 1e9,                                                        \
                        "second = random keeps it with probability min(1, weight / threshold)")

/* Rows of the auxiliary losses, for the hooks below. */
#define MOESIM_AUX_PARAMS(T, m, form_, coef_, choices_, count_)                                                        \
    MOESIM_PARAM_IN(                                                                                                   \
        T, m, aux_form, form_, 0, 0,                                                                                   \
        "auxiliary losses joined by +, each with a factor if need be (0.5*switch+z): none, " MOESIM_AUX_FORMS),        \
        MOESIM_PARAM_IN(T, m, aux_coef, coef_, 0, 1e6, "factor on the losses of aux_form"),                            \
        MOESIM_CHOICE_IN(T, m, aux_divide, "k", MOESIM_AUX_DIVIDE_CHOICES,                                             \
                         "whether the counted shares are divided by k (their sum is 1) or not (k)"),                   \
        MOESIM_CHOICE_IN(T, m, aux_choices, choices_, MOESIM_AUX_CHOICES_CHOICES,                                      \
                         "which choices are counted: all k, the first, or the whole list of rounds"),                  \
        MOESIM_CHOICE_IN(T, m, aux_count, count_, MOESIM_AUX_COUNT_CHOICES,                                            \
                         "what is counted: choices, kept pairs, or the best k scores without bias, groups and noise"), \
        MOESIM_PARAM_IN(T, m, z_coef, "0", 0, 1e6, "coefficient of the router z-loss")

struct moesim_env;

/* shape() of the family: checks the parameters against each other and E (k <= E, weight softmax with k = 1, ...), and
 * sets max_pairs, group and jitter. */
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_token_choice_shape(const struct moesim_token_choice *p,
                                                                          const struct moesim_env *env,
                                                                          struct moesim_shape *shape,
                                                                          struct moesim_error *err);

/* Scratch of the family for one instance. */
struct moesim_token_choice_scratch;
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_token_choice_init(const struct moesim_token_choice *p,
                                                                         const struct moesim_env *env,
                                                                         struct moesim_token_choice_scratch **scratch,
                                                                         struct moesim_error *err);

/* route() of the family: selects by `logits` ([n_tokens][stride], the batch's columns or a noisy copy; scores and
 * weights come from it too) plus `bias` ([n_experts] or NULL, for selection only, on what p->bias_on says), fits the
 * choices into capacity, sets weights and fills the plan. */
MOESIM_API MOESIM_MUST_CHECK enum moesim_status
moesim_token_choice_route(const struct moesim_token_choice *p, const struct moesim_batch *batch, const float *logits,
                          size_t stride, const float *bias, struct moesim_token_choice_scratch *scratch,
                          struct moesim_plan *plan, struct moesim_error *err);

/* Logits that are made row by row while tokens choose by them, so that no matrix of them is kept. Rows are asked for by
 * many threads at once; `slot`, below MOESIM_SLOTS * moesim_threads(), is no other row's until the next is made in it:
 * for what make() has to keep for chosen(). */
#define MOESIM_SLOTS 8
struct moesim_logit_rows {
    /* Writes the token's n_experts logits. Asked again for the same batch, it writes the same. */
    void (*make)(const void *context, uint32_t token, uint32_t slot, float *row);
    /* Told what a token has chosen: k experts, best first (MOESIM_NO_EXPERT where there was no more), and their raw
     * scores unless weight is softmax. The tokens of a run of MOESIM_RUN_TOKENS come in order and from one thread, so
     * that what is added up by run has the same bits on any number of threads. May be NULL. */
    void (*chosen)(const void *context, uint32_t token, uint32_t slot, const float *row, const uint32_t *expert,
                   const float *score);
    const void *context;
    float *logit; /* [max_tokens][k]: the logits of what was chosen, which route() writes for backward and losses */
};
#define MOESIM_RUN_TOKENS 1024

/* route() of the family by rows that are made on the way. */
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_token_choice_route_rows(
    const struct moesim_token_choice *p, const struct moesim_batch *batch, const struct moesim_logit_rows *rows,
    const float *bias, struct moesim_token_choice_scratch *scratch, struct moesim_plan *plan, struct moesim_error *err);

/* From now on route() adds the scores of its logits to `sums`, which it begins anew; NULL = no more. */
MOESIM_API void moesim_token_choice_sums(struct moesim_token_choice_scratch *scratch, struct moesim_score_sums *sums);

/* The first half of route() alone: calls moesim_plan_choices() and writes each pair's expert, the k best of logit +
 * shift
 * ([n_groups][n_experts]; NULL = none), and its raw score by p->score as weight. Shift is in units of logits and serves
 * the selection only. */
MOESIM_API void moesim_token_choice_choose(const struct moesim_token_choice *p, const struct moesim_batch *batch,
                                           const float *logits, size_t stride, const float *shift,
                                           struct moesim_token_choice_scratch *scratch, struct moesim_plan *plan);

/* The second half of route() alone, for a router with choices of its own: it calls moesim_plan_choices(), writes expert
 * and weight of every pair (weight also orders the priorities bpr and prob; MOESIM_NO_EXPERT where a token cannot be
 * served), and this function fits them into capacity and fills the rest of the plan. Refused pairs lose their weight.
 */
MOESIM_API void moesim_plan_choices(struct moesim_plan *plan, const struct moesim_batch *batch, uint32_t k);
MOESIM_API void moesim_token_choice_fit(const struct moesim_token_choice *p, const struct moesim_batch *batch,
                                        struct moesim_token_choice_scratch *scratch, struct moesim_plan *plan);

/* gate[k]: what one token's k choices weigh before the drop and without scale, of their logits and raw scores (NULL for
 * weight = softmax); 0 where there is no choice. */
MOESIM_API void moesim_token_choice_gates(const struct moesim_token_choice *p, const float *logit, const float *score,
                                          const uint32_t *expert, float *gate);

/* backward() of the family's weights: d_logits ([n_tokens][stride] of the logits given to route) += from d_weight
 * ([n_pairs]). Selection carries no gradient. */
MOESIM_API void moesim_token_choice_backward(const struct moesim_token_choice *p, const struct moesim_batch *batch,
                                             const float *logits, size_t stride, const struct moesim_plan *plan,
                                             const float *d_weight, struct moesim_token_choice_scratch *scratch,
                                             float *d_logits);

/* The same for one token, with its row of logits and of their gradient: for bodies of moesim_for_tokens. */
MOESIM_API void moesim_token_choice_backward_row(const struct moesim_token_choice *p, const struct moesim_plan *plan,
                                                 uint32_t token, const float *logits, const float *d_weight,
                                                 struct moesim_token_choice_scratch *scratch, float *d_logits);

/* ---- choices of a router's own: any number of experts a token ---- */

/* The host's threads: a thread's number is below it. */
MOESIM_API uint32_t moesim_threads(void);

/* Calls `body` for runs [first, last) of the n tokens; runs are the same on any number of threads. At most n_threads
 * bodies run at once, each with its own `thread` below that: for scratch that init() made. */
typedef void moesim_tokens_body(void *context, uint32_t first, uint32_t last, uint32_t thread);
MOESIM_API void moesim_for_tokens(uint32_t n_tokens, uint32_t n_threads, moesim_tokens_body *body, void *context);

/* Where a token's choices go, best first. `fate` is MOESIM_KEPT; a router may refuse by MOESIM_OVER_CAPACITY, or end
 * with MOESIM_NO_EXPERT and MOESIM_BAD_ROW where there is nothing left to choose. */
struct moesim_choices {
    uint32_t *expert;
    float *weight;
    uint8_t *fate;
};

/* Writes token t's choices and returns how many; MOESIM_NO_CHOICE for a bad row. Padding is never asked. */
#define MOESIM_NO_CHOICE UINT32_MAX
typedef uint32_t moesim_choose_body(const void *context, uint32_t t, uint32_t thread, struct moesim_choices *choices);

/* Scratch for plans over n_experts with at most `most` choices a token. */
struct moesim_chooser;
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_chooser_init(const struct moesim_env *env, uint32_t n_experts,
                                                                    uint32_t most, struct moesim_chooser **chooser,
                                                                    struct moesim_error *err);

/* The tokens of a run, which one thread asks in order; runs start at multiples of it. */
MOESIM_API uint32_t moesim_chooser_run(const struct moesim_chooser *chooser);

/* Asks every token and fills the plan but for its capacity, which is given, and its losses: slots in token order, as by
 * moesim_seat. */
MOESIM_API void moesim_choose(struct moesim_chooser *chooser, const struct moesim_batch *batch,
                              moesim_choose_body *choose, const void *context, struct moesim_plan *plan);

/* plan->capacity = MOESIM_UNLIMITED. */
MOESIM_API void moesim_plan_unlimited(struct moesim_plan *plan);

/* Gives the kept pairs slots in token order up to plan->capacity; refuses the others, and counts n_wanted. `taken` is
 * scratch for plan->n_experts. */
MOESIM_API void moesim_seat(const struct moesim_batch *batch, uint32_t *taken, struct moesim_plan *plan);

/* The order of experts by the tie rule as whole numbers: a larger key is a better choice. NaN has no key. */
static inline uint64_t moesim_key(float value, uint32_t expert)
{
    union {
        float value;
        uint32_t bits;
    } x = {.value = value + 0.0f}; /* -0 is 0 */
    const uint32_t rising = x.bits >> 31 ? ~x.bits : x.bits | UINT32_C(1) << 31;
    return (uint64_t)rising << 32 | (uint32_t)~expert;
}
static inline uint32_t moesim_key_expert(uint64_t key)
{
    return ~(uint32_t)key;
}

/* Makes a heap of n keys; then pop gives them best first: n counts down by one each time. */
MOESIM_API void moesim_keys_heap(uint64_t *key, uint32_t n);
MOESIM_API uint64_t moesim_keys_pop(uint64_t *key, uint32_t n);

/* ---- weights of a router's own ---- */

/* out[t][j] = sum_i x[t][i] w[i][j] for x [n_tokens][d], w [d][n]; sums in double, in the order of i. */
MOESIM_API void moesim_project(const float *x, uint32_t n_tokens, uint32_t d, const float *w, uint32_t n, float *out);

/* d_x += d_out w^T and d_w += x^T d_out, where an x that is no finite number counts as 0; either may be NULL. */
MOESIM_API void moesim_project_backward(const float *x, const float *w, const float *d_out, uint32_t n_tokens,
                                        uint32_t d, uint32_t n, float *d_x, float *d_w);

/* ---- the family's hooks: a router that is a point on the axes is a table of rows and a struct ----
 *
 *     static const struct moesim_param rows[] = {
 *         MOESIM_TOKEN_CHOICE_PARAMS(struct moesim_choice_params, choice, "top_k", "none", "0", "megatron", "token"),
 *         MOESIM_AUX_PARAMS(struct moesim_choice_params, choice, "switch", "0.01", "all", "before-drop"),
 *         MOESIM_PARAM_END,
 *     };
 *     const struct moesim_router mine = {MOESIM_ROUTER_HEAD, MOESIM_CHOICE_HOOKS, .name = "mine", ..., .params = rows};
 */

struct moesim_router;
struct moesim_feedback;
struct moesim_grad;

/* The parameters of such a router; a router with more of its own has this as its first member. */
struct moesim_choice_params {
    struct moesim_token_choice choice;
};

/* Its state, likewise. */
struct moesim_choice_work;
struct moesim_choice_state {
    struct moesim_token_choice choice;
    struct moesim_token_choice_scratch *scratch;
    struct moesim_choice_work *work; /* noise, bias and losses, as far as they are on */
};

#define MOESIM_CHOICE_HOOKS                                                                                            \
    .needs = MOESIM_NEEDS_COLUMNS, .params_size = sizeof(struct moesim_choice_params),                                 \
    .state_size = sizeof(struct moesim_choice_state), .shape = moesim_choice_shape, .init = moesim_choice_init,        \
    .route = moesim_choice_route, .backward = moesim_choice_backward, .update = moesim_choice_update

/* The forms of aux_form. P_e is the mean over tokens of the score s_te (sigmoid and sqrt-softplus divided by their sum
 * over experts), f_e the share of e among what is counted; counts carry no gradient. Losses are worked out in each
 * token group and averaged by choices, but for sequence (the mean over sequences; without sequence ids each token group
 * is one) and global-batch (P of the micro-batch, f of all its global batch's micro-batches so far).
 *
 * - switch, sequence, global-batch: E * sum_e f_e P_e
 * - gshard: the same with f of the first choices before the drop
 * - importance: CV^2 over e of sum_t s_te
 * - load: CV^2 over e of sum_t P(e is among the k best if its noise is drawn again); in training with noise
 * - square: sum_e (L_e - mean L)^2 with L_e = sum_t s_te
 * - device: D * sum_d f_d P_d over the D = n_groups groups of experts
 * - communication: D / (M T) * sum_d (tokens sent to d) P_d with M = topk_groups
 * - z: as z_coef */
#define MOESIM_AUX_FORMS "square, importance, load, gshard, switch, z, sequence, global-batch, device, communication"

/* The hooks. shape() also reads env->files for `bias`; memory is the bias, [E], where there is one. */
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_choice_shape(const void *params, const struct moesim_env *env,
                                                                    struct moesim_shape *shape,
                                                                    struct moesim_error *err);
MOESIM_API MOESIM_MUST_CHECK enum moesim_status
moesim_choice_init(void *state, const void *params, const struct moesim_env *env, struct moesim_error *err);
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_choice_route(void *state, const struct moesim_batch *batch,
                                                                    struct moesim_plan *plan, struct moesim_error *err);
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_choice_backward(void *state, const struct moesim_batch *batch,
                                                                       const struct moesim_plan *plan,
                                                                       struct moesim_grad *grad,
                                                                       struct moesim_error *err);
MOESIM_API MOESIM_MUST_CHECK enum moesim_status
moesim_choice_update(void *state, const struct moesim_feedback *feedback, struct moesim_error *err);

/* ---- bias ---- */

/* bias[e] after a global batch with counts n[e], by a rule that looks at counts. */
MOESIM_API void moesim_bias_step(enum moesim_bias_update rule, double gamma, const uint64_t *n, uint32_t n_experts,
                                 float *bias);

/* One dual step of quantile balancing (Su 2026; Megatron-LM): with alpha_t the (k + 1)-th best of v_t + bias,
 * asked[e] = -((n k / E + 1)-th largest over tokens of v_te - alpha_t): the bias at which every expert would be chosen
 * equally often. v are the scores of columns [n_tokens][stride], or the columns themselves for MOESIM_IDENTITY. Not
 * centred. Rows with `skip` set (may be NULL) and rows with a value that is not finite take no part; n counts the rest;
 * asked is 0 when none is left. k < E. `work` has moesim_quantile_bias_work() bytes. */
MOESIM_API size_t moesim_quantile_bias_work(uint32_t max_tokens, uint32_t n_experts);
MOESIM_API void moesim_quantile_bias(enum moesim_score score, const float *columns, size_t stride, uint32_t n_tokens,
                                     uint32_t n_experts, uint32_t k, const float *bias, const uint8_t *skip, void *work,
                                     float *asked);

/* ---- expert choice ---- */

/* Fills the plan with each expert's `capacity[g]` best tokens of group g by score (MOESIM_IDENTITY too) over columns
 * [n_tokens][stride]; pairs by token, ranked by score; weights are the scores, slots the expert's ranks. NaN scores,
 * rows without a finite value and padding are never taken. `scratch` has moesim_expert_choice_scratch() bytes, aligned
 * to 8. */
MOESIM_API size_t moesim_expert_choice_scratch(uint32_t max_tokens, uint32_t n_experts, uint32_t max_groups,
                                               uint64_t max_pairs);
MOESIM_API void moesim_expert_choice(enum moesim_score score, const struct moesim_batch *batch, const float *columns,
                                     size_t stride, const uint32_t *capacity, void *scratch, struct moesim_plan *plan);

/* ---- order statistics ---- */

/* out[c] = the (rank + 1)-th largest over tokens of the score (MOESIM_IDENTITY too) in column c less base[t], for
 * columns [n_tokens][stride] of which there are n_columns. Tokens whose base is NaN take no part, of the rest there are
 * more than `rank`; a score that is NaN is the last. `work` has moesim_column_rank_work() bytes. */
MOESIM_API size_t moesim_column_rank_work(uint32_t max_tokens);
MOESIM_API void moesim_column_rank(enum moesim_score score, const float *columns, size_t stride, uint32_t n_tokens,
                                   uint32_t n_columns, const float *base, uint32_t rank, void *work, float *out);

/* ---- balanced assignment ---- */

/* expert[t] for every token, such that each group's experts have floor or ceil(S / E) of its S tokens and the sum of
 * values [n_tokens][stride] at the chosen experts is the greatest possible, up to float rounding. Of the values, NaN
 * and -inf count as the group's least finite one, +inf as its greatest. MOESIM_NO_EXPERT for padding and bad rows. */
struct moesim_assignment_scratch;
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_assignment_init(const struct moesim_env *env,
                                                                       struct moesim_assignment_scratch **scratch,
                                                                       struct moesim_error *err);
MOESIM_API void moesim_balanced_assignment(const struct moesim_batch *batch, const float *values, size_t stride,
                                           struct moesim_assignment_scratch *scratch, uint32_t *expert);

/* ---- auxiliary losses: coef times the value, and its gradient added to d_* where that is not NULL ---- */

/* Switch/GShard form over one group of rows: coef * E * sum_e f_e P_e with f_e = n_e / sum(n) and P_e the mean score of
 * the rows (Fedus et al. 2021, eq. 4). f carries no gradient. Rows with `skip` set (may be NULL) and bad rows, whose
 * scores are all NaN, are left out; 0 when nothing is left or counted. */
MOESIM_API double moesim_aux_switch(const float *scores, uint32_t n_tokens, uint32_t n_experts, const uint8_t *skip,
                                    const uint64_t *n, double coef, float *d_scores);

/* Squared coefficient of variation with population variance, coef * var / (mean^2 + 1e-10) (Shazeer et al. 2017). */
MOESIM_API double moesim_aux_cv2(const double *x, uint32_t n, double coef, double *d_x);

/* sum[e] += the chance of each of n experts to be among the k best if its own noise is drawn again, the normal
 * distribution function (within 3e-7) of (clean - rival) / width: what the load loss adds up over tokens. The rival is
 * the (k + 1)-th best noisy logit, `inside`, for an expert above it and the k-th, `outside`, for the others (Shazeer et
 * al. 2017, appendix A). False, and nothing is added, where a logit is not finite. For one thread. */
MOESIM_API bool moesim_add_chances(const float *clean, const float *noisy, float inside, float outside,
                                   const float *width, uint32_t n, double *sum);

/* Router z-loss: coef * mean_t (logsumexp_e l_te)^2 (Zoph et al. 2022). Rows with `skip` set and rows without a finite
 * logit are left out. */
MOESIM_API double moesim_aux_z(const float *logits, size_t stride, uint32_t n_tokens, uint32_t n_experts,
                               const uint8_t *skip, double coef, float *d_logits);

#endif
