/*
 * What a slow reference says of one batch, and the tools the references share: parameters by name, scores in float64,
 * the steps of token choice as plain loops. Nothing here comes from the kernels.
 */
#ifndef TESTS_ROUTERS_EXPECTED_H
#define TESTS_ROUTERS_EXPECTED_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/experiment/conformance_suite.h"

struct expected_pair {
    uint32_t expert;
    uint32_t fate;
    int32_t slot;
    double score, weight;
};

struct expected {
    const struct trial *trial;
    const struct moesim_batch *batch;
    const float *memory; /* [n_memory] as it was before route() */
    double *own;         /* [64] what the reference remembers from step to step; zero at the first */

    uint32_t n_tokens, n_experts; /* n_experts of the shape, zero-computation experts included */
    uint32_t width;               /* room for pairs per token */
    uint32_t *n;                  /* [n_tokens] pairs of the token */
    struct expected_pair *pair;   /* [n_tokens][width] */
    uint32_t *capacity;           /* [n_groups][n_experts] */
    uint64_t n_wanted;
    double aux;          /* sum of the auxiliary losses */
    double *dispatch;    /* [n_tokens][n_slots] */
    double *combine;     /* [n_tokens][n_slots] */
    double unit;         /* what compared numbers are made of: the doubt is relative to no less */
    double doubt;        /* relative difference below which two compared numbers are in doubt */
    bool compare_memory; /* set by update(): what it wrote is what the router's memory must be */
    bool ambiguous;      /* two compared numbers differ by less than float32 can tell: the case is skipped */
    bool by_weight;      /* pairs of a token are ranked by weight, then expert, whatever the order here */
};

/* ---- parameters ---- */

bool has_parameter(const struct expected *x, const char *key);
double number(const struct expected *x, const char *key);
uint32_t count(const struct expected *x, const char *key);
bool flag(const struct expected *x, const char *key);
/* Is the parameter the word? False where the router has no such parameter. */
bool is(const struct expected *x, const char *key, const char *word);

/* ---- numbers ---- */

double softplus(double x);
double sigmoid(double x);
double cv2(const double *v, uint32_t n);
/* Column e of token t. */
double column(const struct expected *x, uint32_t t, uint32_t e);
bool is_padding(const struct expected *x, uint32_t t);
/* Rounds up or down; marks the case ambiguous where a number is whole but for rounding. */
double round_up(struct expected *x, double v);
double round_down(struct expected *x, double v);
/* Tokens of [first, last) that are no padding. */
uint32_t n_tokens_of(const struct expected *x, uint32_t first, uint32_t last);
/* Has the row no number among its first n columns? */
bool is_bad_row(const struct expected *x, uint32_t t, uint32_t n);
/* Is a before b, where larger goes first? Marks the case ambiguous when float32 might see it otherwise. */
bool larger(struct expected *x, double a, double b);
/* value[n] -> scores[n] by the name of the score function; NaN throughout in a row without a finite number. */
void score_row(const char *function, const double *logit, uint32_t n, double *score);
/* The name of the router's score function; softmax where it has no such parameter. */
const char *score_name(const struct expected *x);

/* ---- pairs ---- */

struct expected_pair *pair_of(struct expected *x, uint32_t t, uint32_t c);
/* Has the token a first choice? */
bool is_good(struct expected *x, uint32_t t);
/* Adds a pair that wants `expert`; MOESIM_NO_EXPERT = nothing there to choose. */
struct expected_pair *want(struct expected *x, uint32_t t, uint32_t expert, double score);
bool uses(struct expected *x, uint32_t t, uint32_t expert);

/* Keeps every pair and gives slots in token order, group by group. */
void seat(struct expected *x);

/* ---- token choice ---- */

/* What a router of the family selects and weighs by: all [n_tokens][n]. */
struct choice {
    uint32_t n, k;
    const double *logit; /* what scores and softmax weights come from */
    double *score;
    double *select;  /* what experts are compared by */
    bool exact;      /* select holds float32 inputs, so that closeness is no doubt */
    uint32_t within; /* rerouting stays in the refused expert's run of that many; 0 = anywhere */
};

/* Scores from columns (or `logit` where given) by the router's parameters; selection by logits. Heap memory. */
struct choice choice_start(struct expected *x, const double *logit, uint32_t n, uint32_t k);
/* Adds bias[n] to the scores for selection. */
void choice_bias(struct choice *c, const struct expected *x, const float *bias);
/* Selection by logit + bias[n], a float32 sum. */
void choice_bias_on_logits(struct choice *c, const struct expected *x, const float *bias);
void choice_end(struct choice *c);

/* The k best of every token by `select`. */
void choose(struct expected *x, const struct choice *c);
/* Slots, fates, rerouting by the router's parameters; group by group. `c` may be NULL: no rerouting. */
void fit(struct expected *x, const struct choice *c, uint32_t k);
/* Weights by the router's parameters. */
void weigh(struct expected *x, const struct choice *c);
/* choose, fit, weigh. */
void route_choice(struct expected *x, const struct choice *c);

/* Slots per expert for n_tokens by the router's capacity parameters. */
uint32_t slots_per_expert(struct expected *x, uint32_t n_tokens, uint32_t k);

/* Pairs per expert over tokens [first, last) whatever their fate; added ones that serve a refused pair not counted. */
void count_wanted(struct expected *x, uint32_t first, uint32_t last, uint32_t k, double *n);
/* coef * E * sum f P over each group, averaged by the group's choices; f of the first `ranks` choices. */
double switch_loss(struct expected *x, const double *score, uint32_t ranks, double coef);

/* ---- the table ---- */

struct reference_entry {
    const char *router;
    void (*route)(struct expected *x);
    void (*update)(struct expected *x, double *memory); /* memory[n_memory] before -> after; NULL = it has none */
};

extern const struct reference_entry reference_table[];

#endif
