/* SPDX-License-Identifier: MIT
 *
 * Inside the hooks of the token-choice family: what an instance keeps beside the scratch of routing.
 */
#ifndef MOESIM_KERNELS_CHOICE_H
#define MOESIM_KERNELS_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/router.h>

#include "sim/contract/kernels/token_choice.h"

/* ---- auxiliary losses ---- */

enum loss_form {
    LOSS_SQUARE,
    LOSS_IMPORTANCE,
    LOSS_LOAD,
    LOSS_GSHARD,
    LOSS_SWITCH,
    LOSS_Z,
    LOSS_SEQUENCE,
    LOSS_GLOBAL_BATCH,
    LOSS_DEVICE,
    LOSS_COMMUNICATION,
    N_LOSS_FORMS
};

struct loss {
    enum loss_form form;
    const char *name;
    double coef;
};

#define MAX_LOSSES (MOESIM_MAX_AUX - 1) /* z_coef adds one */

/* The losses of an instance; n = 0: none. */
struct losses {
    uint32_t n;
    struct loss item[MOESIM_MAX_AUX];
};

/* Reads aux_form, aux_coef and z_coef. EINVAL with what a form would be. */
MOESIM_MUST_CHECK enum moesim_status losses_parse(const struct moesim_token_choice *p, struct losses *losses,
                                                  struct moesim_error *err);
bool losses_have(const struct losses *losses, enum loss_form form);

/* What the losses of an instance keep. A scope is what a loss is worked out over: a group of tokens, a sequence or the
 * batch. */
struct choice_losses {
    struct losses list;
    uint32_t n_experts;
    bool wants_load;
    struct moesim_score_sums *sums;
    float *width;      /* [E] standard deviation of the noise, alike for all, or NULL */
    double *chances;   /* [max_tokens / CHUNK_TOKENS + 1][E] of a scope's chunks, or NULL */
    double *sum;       /* [2][E] over the scope: scores, and chances to be among the k best */
    double *d_sum;     /* [2][E] the losses by one token's score and by its chance, alike for all tokens */
    uint64_t *count;   /* [E] what is counted as f in the scope */
    uint64_t *first;   /* [E] first choices */
    uint64_t *sent;    /* [E] tokens by group of experts */
    uint64_t *earlier; /* [E] counts of the global batch's micro-batches before the last, and of the last */
    uint64_t *last;
    uint32_t last_micro_batch;
    uint32_t n_choices; /* that a token can have in the counts: k, or its whole list */
    uint32_t *unbiased; /* [max_tokens * n_choices] the best by clean score alone, or NULL where that was chosen */
    uint32_t *sequence; /* [max_tokens or max_groups + 1] where sequences start, or NULL */
};

/* ---- the whole ---- */

struct moesim_choice_work {
    uint32_t n_experts;
    bool has_bias;
    float *chosen; /* [max_tokens][k] noisy logits of what was chosen, or NULL without noise */
    void *quantile;
    float *asked;      /* [E] the bias this micro-batch asks for */
    double *asked_sum; /* [E] over the micro-batches before it in the global batch */
    uint32_t n_asked, last_micro_batch;
    struct choice_losses losses;
};

/* choice_losses.c */
MOESIM_MUST_CHECK enum moesim_status choice_losses_init(const struct moesim_token_choice *p,
                                                        const struct moesim_env *env, struct choice_losses *l,
                                                        struct moesim_error *err);
/* Works out every loss of a batch that was just routed by c->logits, and adds them to the plan. */
void choice_losses_add(const struct token_choice *c, struct choice_losses *l, struct moesim_plan *plan);
/* Adds their gradients. */
void choice_losses_backward(const struct token_choice *c, struct choice_losses *l, const struct moesim_plan *plan,
                            struct moesim_grad *grad);

#endif
