/* SPDX-License-Identifier: MIT
 *
 * The inner loops over rows of gate columns. One source, rows.c, is compiled three times (baseline, AVX2, AVX-512, all
 * without FMA), so that all give the same bits; moesim_rows() picks one when the program runs.
 */
#ifndef MOESIM_KERNELS_ROWS_H
#define MOESIM_KERNELS_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/kernels.h>
#include <moesim/metric.h>

#define ROWS_LANES 8          /* rows that one select() call takes */
#define BLOCK_K 16            /* most choices that a row of eight keeps in registers and stack */
#define ROWS_RANKED 256       /* most values that rank_above() puts in order */
#define ROWS_RUN_COLUMNS 2048 /* most columns of select_run(), which takes up to BLOCK_K choices */
#define ROWS_FEW_EXPERTS 8    /* most experts whose counts are one register */
#define ROWS_SCAN_SPARE 4     /* places behind those of a scan that it uses */
#define ROWS_WORD_EXPERTS 64  /* most experts that are the bits of a word */
#define ROWS_PROJECTED 4      /* rows that one project() call takes */
#define ROWS_PARALLEL 1024    /* fewer rows are not worth waking a second thread */

/* How sure eight rows of logits are: -sum p ln p over their softmax p, and ln sum exp l. NaN for a row without a finite
 * value. In a row with NaN or +inf: NaN carries no probability, the +inf share it, and the size is that of the finite
 * logits. */
struct rows_confidence {
    float entropy[ROWS_LANES], size[ROWS_LANES];
};

/* What to choose from each row. */
struct rows_select {
    enum moesim_score score;
    bool want_score;    /* fill the selected scores, else only the experts */
    uint32_t n, k;      /* columns, and how many of them are chosen */
    const float *bias;  /* [n] added to the scores for selection only; NULL = none */
    bool by_score;      /* compare float32 scores (plus bias); else logits */
    const float *shift; /* [n] added to the logits for selection only, not with by_score; NULL = none */

    /* what the rows add to, unless NULL; a lane that repeats the one before adds nothing */
    double *sum;     /* [n] += the scores, divided by their sum over experts if they do not add up to 1 by themselves */
    double *squares; /* += (ln sum exp logit)^2, for softmax */

    struct rows_confidence *confidence; /* of the rows, unless NULL; only where rows_tells_confidence() */

    /* groups of experts, by score only; n_groups 0 or 1 = none */
    uint32_t n_groups, topk_groups; /* topk_groups 0 = k / n_groups experts from each group */
    enum moesim_group_score group_score;
    uint32_t group_best; /* how many of a group's best scores topk adds up */
};

/* Softmax scores of the k best logits, and nothing else: what most routers ask for. */
static inline bool rows_is_plain(const struct rows_select *s)
{
    return s->score == MOESIM_SOFTMAX && s->want_score && !s->shift && !s->by_score && !s->sum && !s->squares &&
           s->n_groups <= 1 && s->k <= BLOCK_K;
}

/* Whether select() makes a row's softmax whole, so that how sure the row is comes out on the way; `adds` = it will be
 * asked for sums too. */
static inline bool rows_tells_confidence(const struct rows_select *s, bool adds)
{
    return adds ? s->score == MOESIM_SOFTMAX && !s->by_score : rows_is_plain(s);
}

/* Whether select_run() takes such a choice: by finite logits as they are, with softmax scores or none. */
static inline bool rows_can_run(const struct rows_select *s)
{
    return (s->score == MOESIM_SOFTMAX || !s->want_score) && !s->shift && !s->by_score && !s->sum && !s->squares &&
           s->n_groups <= 1 && s->k <= BLOCK_K && s->n <= ROWS_RUN_COLUMNS;
}

/* A run of rows that choose, and their choices one after the other. */
struct rows_run {
    const float *logits; /* of the first row */
    size_t stride;
    uint32_t n_rows;
    uint32_t *expert; /* [n_rows][k] */
    float *score;     /* [n_rows][k]; NULL = not wanted */
    uint32_t *count;  /* [n] += the choices by expert */
    int32_t *slot;    /* [n_rows][k] how many of the expert had been counted before */

    uint32_t token;                           /* of the first row */
    struct moesim_confidence_run *confidence; /* what the rows' confidence is added to, with scores only; NULL = none */
};

/* Floats of scratch that select() uses for its eight rows when it compares by score or adds up. */
static inline size_t rows_scratch(uint32_t n, uint32_t n_groups)
{
    return ROWS_LANES * ((size_t)n + 2 * (size_t)n_groups) + n;
}

/* Floats of scratch that keep_groups() uses. */
static inline size_t rows_groups_scratch(uint32_t n, uint32_t n_groups)
{
    return ROWS_LANES * (size_t)n_groups + n;
}

/* What a row's scores are made of. Softmax: exp(x - max) / sum, where with `infinite` sum counts the +inf logits, which
 * share everything, and is NaN in a row without a finite value. Other scores: their sum. In an `odd` row there is NaN
 * or +inf, or the sum is no number to divide by. */
struct rows_norm {
    float max, sum;
    bool odd, infinite;
};

/* Looks through rows [first, last) for logits that are not at most shift + cut; rows with NaN for shift are passed
 * over. */
struct rows_scan {
    const float *logits;
    size_t stride;
    uint32_t first, last, n_columns;
    const float *shift; /* [last] */
    const float *cut;   /* [n_columns] */

    /* what was found is added, by row, then column; n_found goes on beyond room, where nothing is counted any more */
    uint32_t room, n_found;
    uint32_t *token, *column; /* [room + ROWS_SCAN_SPARE] */
    float *value;             /* the same: the logits */
    uint32_t *count;          /* [n_columns] */
};

/* Up to eight columns of scores, less `base`, of the rows whose base is a number. */
struct rows_orders {
    enum moesim_score score;
    const float *logits; /* of the first column */
    size_t stride;
    uint32_t n_rows, n_columns;
    const struct rows_norm *norm; /* [n_rows] for softmax */
    const float *base;            /* [n_rows] */
    uint32_t *order;              /* [n_columns][n_rows] whole numbers of their order, as in orders.h */
};

struct rows_kernels {
    const char *name;
    float (*exp)(float x);
    float (*sum)(const float *x, size_t n);
    void (*softplus)(const float *x, size_t n, float *out);
    /* out[n] = the scores of one row. */
    void (*scores)(enum moesim_score score, const float *row, uint32_t n, float *out);
    /* sum[n] += one row of such scores, as rows_select.sum. */
    void (*add_scores)(enum moesim_score score, const float *scores, uint32_t n, double *sum);
    /* The same of up to eight rows of logits; `values` is [ROWS_LANES][n]. */
    void (*sum_scores)(enum moesim_score score, const float *const row[ROWS_LANES], uint32_t n_rows, uint32_t n,
                       float *values, double *sum);
    /* ln sum exp l over the row's finite logits; NaN where there are none. */
    double (*size)(const float *row, uint32_t n);
    void (*confidence)(const float *const row[ROWS_LANES], uint32_t n, struct rows_confidence *confidence);
    /* How many experts each of n tokens shares with the one `lag` before it, all together; every token has k, and none
     * twice. */
    uint64_t (*shared)(const uint32_t *expert, uint32_t n, uint32_t k, uint32_t lag);
    /* word[n] = the k experts of each token, below ROWS_WORD_EXPERTS, as bits; and the same as shared() from those. */
    void (*words)(const uint32_t *expert, uint32_t n, uint32_t k, uint64_t *word);
    uint64_t (*shared_words)(const uint64_t *word, uint32_t n, uint32_t lag);
    /* What the scores of eight rows are made of; for other scores than softmax `sum` only tells a bad row (NaN) from
     * others. `size` (NULL = not wanted) gets ln sum exp l of softmax, NaN or too large where a row is odd. */
    void (*norms)(enum moesim_score score, const float *const row[ROWS_LANES], uint32_t n,
                  struct rows_norm norm[ROWS_LANES], float *size);
    /* values[n]: logits of rows token[n] become their scores. */
    void (*scores_at)(enum moesim_score score, const struct rows_norm *norm, const uint32_t *token, uint32_t n,
                      float *values);
    void (*scan)(struct rows_scan *scan);
    /* Fills the columns from the front; returns how many rows that are. */
    uint32_t (*orders)(const struct rows_orders *o);
    /* For each of eight rows the k best experts, best first, into expert[lane][k] and score[lane][k]. `values`
     * ([rows_scratch]) is used when by_score, with a shift or a sum. */
    void (*select)(const struct rows_select *s, const float *const row[ROWS_LANES], float *values,
                   uint32_t *const expert[ROWS_LANES], float *const score[ROWS_LANES]);
    /* The k best of each row of a run, as select() chooses where rows_can_run(). False where a row has fewer than k
     * choices: count and slot are undefined then. */
    bool (*select_run)(const struct rows_select *s, const struct rows_run *run);
    /* slot[i] += start[expert[i]] of n choices; start is [n_experts]. */
    void (*move_slots)(const uint32_t *expert, uint32_t n, const uint32_t *start, uint32_t n_experts, int32_t *slot);
    /* Whether n pairs are all kept, of experts there are and with finite weights. */
    bool (*plain_pairs)(const uint32_t *expert, const float *weight, const uint8_t *fate, uint32_t n,
                        uint32_t n_experts);
    /* Whether n such pairs of tokens with k each follow: no token has an expert twice, and every slot is next[expert],
     * which goes up by one; next is [n_experts] and undefined where they do not. `word` is of the tokens, as words()
     * makes them, or NULL where rows_can_follow(k). */
    bool (*follow)(const uint32_t *expert, const int32_t *slot, const uint64_t *word, uint32_t n, uint32_t k,
                   uint32_t n_experts, uint32_t *next);
    /* out[r][j] = sum_i x[r][i] w[i][j] for columns [first, last) of w [d][n]: sums in double, in the order of i. */
    void (*project)(const float *const x[ROWS_PROJECTED], uint32_t d, const float *w, uint32_t n, uint32_t first,
                    uint32_t last, float *const out[ROWS_PROJECTED]);
    /* The places of values above `cut`, by falling value, of equal ones the first; returns how many there are. Above
     * ROWS_RANKED they are only counted. */
    uint32_t (*rank_above)(const float *v, uint32_t n, float cut, uint32_t *expert);
    /* The (k + 1)-th best of finite values of which the k-th is known. */
    float (*next_best)(const float *v, uint32_t n, uint32_t k, float kth);
    /* moesim_add_chances() */
    bool (*add_chances)(const float *clean, const float *noisy, float inside, float outside, const float *width,
                        uint32_t n, double *sum);
    /* A value above which others hold more than `enough` mass, but not much more; -inf where there is none. */
    float (*cut_by_mass)(const float *v, const float *mass, uint32_t n, float enough);
    /* -sum s ln s of a row's softmax scores; NaN for a bad row. */
    double (*entropy)(const float *logits, const float *scores, uint32_t n);
    /* The kept groups of one row of values, by rising id; MOESIM_NO_EXPERT where there are fewer. kept is
     * [topk_groups], `scratch` [rows_groups_scratch]. */
    void (*keep_groups)(const struct rows_select *s, const float *values, float *scratch, uint32_t *kept);
};

/* Asks for a row that is needed two blocks later: the rows of a block are read side by side, which hides the stream
 * from the hardware's own prefetcher. */
static inline void rows_prefetch(const float *row, uint32_t n)
{
    const uint32_t n_lines = n > 16 ? (n + 15) / 16 : 0;
    for (uint32_t i = 0; i < n_lines; i++)
        __builtin_prefetch(row + (size_t)i * 16);
}

/* Tokens of so many choices are divided evenly among eight lanes. */
static inline bool rows_can_follow(uint32_t k)
{
    return k == 1 || k == 2 || k == 4 || k == 8;
}

extern const struct rows_kernels moesim_rows_baseline, moesim_rows_avx2, moesim_rows_avx512;

#ifdef MOESIM_HAVE_AVX2
/* Whether this processor has all of AVX-512 that its build is made of. */
static inline bool rows_run_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}
#endif

/* The fastest that this processor runs. */
const struct rows_kernels *moesim_rows(void);

/* Whether the row has a finite value. */
static inline bool rows_any_finite(const float *row, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (row[i] - row[i] == 0)
            return true;
    return false;
}

#endif
