/*
 * text: bytes, words or word pieces of real text as tokens, with hidden states that a seeded gate routes unevenly and
 * by domain.
 *
 * Sequences of `sequence` tokens are taken in turn from the domains, each from a random place in its text; batching.c
 * says which of their tokens make up a step. Hidden states come from embedding.c; the memory's part in them grows with
 * depth, as routing of trained models depends less on the token and more on the topic in later layers. All routers, and
 * all layers of a step, see the same tokens.
 *
 * With `checkpoint` the host runs a trained model on the tokens, and hidden states are the model's.
 *
 * The last part of every domain is held out: an instance for validation draws from it alone, one for training from what
 * is before it, and one that is neither from all.
 */
#include <string.h>

#include <moesim/random.h>
#include <moesim/workload.h>

#include "workloads/batching.h"
#include "workloads/corpus.h"
#include "workloads/embedding.h"
#include "workloads/table.h"
#include "workloads/vocabulary.h"
#include "workloads/words.h"

enum { CENTRE_WINDOWS = 48, CENTRE_TOKENS = 256, CHUNK_ROWS = 256, N_BYTES = 256 };
enum { WARM_UP_CONTEXTS = 16 }; /* what is further back weighs less than exp(-16), a float's last bit */

struct text_params {
    const char *files;
    uint32_t domains;    /* enum corpus_domains */
    uint32_t vocabulary; /* enum corpus_tokens */
    uint32_t words;
    const char *vectors, *word_list, *only, *checkpoint;
    uint32_t sequence, context;
    double mixing, common, gate_std, held_out;
    struct batching_params batching;
};

static const struct moesim_param params[] = {
    MOESIM_PARAM(struct text_params, files, "", 0, 0,
                 "text files or directories, comma-separated, plain, .gz or .xz, at most 8 MiB of each; empty = "
                 "Debian's own prose, code and German"),
    MOESIM_CHOICE(struct text_params, domains, "path", CORPUS_DOMAIN_CHOICES,
                  "what a domain is: each path of `files`, every single file, or every directory in the paths"),
    MOESIM_PARAM(struct text_params, only, "", 0, 0,
                 "the one domain to take sequences from, by its path or the end of it; the embedding still knows all"),
    MOESIM_CHOICE(struct text_params, vocabulary, "byte", CORPUS_TOKEN_CHOICES,
                  "what a token is: a byte, a word or sign of UTF-8 text in any script, or a piece of one, as BERT's"),
    MOESIM_PARAM(struct text_params, words, "16384", 2, VOCABULARY_MAX_WORDS,
                 "word: ids; the most frequent words have one of their own, all others share id 0"),
    MOESIM_PARAM(
        struct text_params, vectors, "", 0, 0,
        "vectors of the tokens as embeddings, a .npy [tokens, dimensions] of real numbers; d_model is their width"),
    MOESIM_PARAM(struct text_params, word_list, "", 0, 0,
                 "the words that have ids, those of `vectors`, or the pieces (a WordPiece vocabulary with [UNK], as "
                 "BERT's vocab.txt): a file of one a line"),
    MOESIM_PARAM(struct text_params, checkpoint, "", 0, 0,
                 "a model that mode train kept, which the tokens go through: hidden states and gates of the layers are "
                 "the model's"),
    MOESIM_PARAM(struct text_params, sequence, "256", 1, 1 << 20, "tokens of one sequence"),
    MOESIM_PARAM(struct text_params, context, "64", 1, 65536, "tokens that the memory of preceding text goes back"),
    MOESIM_PARAM(struct text_params, mixing, "0.6", 0, 1,
                 "the memory's share of a hidden state's square, mean over layers"),
    MOESIM_PARAM(struct text_params, common, "0.3", 0, 1,
                 "how much of what all texts have in common stays in the hidden states: more makes loads less even"),
    MOESIM_PARAM(struct text_params, gate_std, "2", 1e-6, 1e6, "standard deviation of the seeded gate's logits"),
    MOESIM_PARAM(struct text_params, held_out, "0.1", 0, 0.9,
                 "training: the last part of each domain, kept for validation"),
    BATCHING_PARAMS(struct text_params, batching),
    MOESIM_PARAM_END,
};
static const struct moesim_schema schema = {params, sizeof *params};

struct text {
    struct text_params p;
    uint64_t seed;
    uint32_t n_layers, n_tokens;
    uint32_t first_domain, n_domains; /* that sequences are taken from */
    uint32_t part;                    /* enum moesim_part */
    struct corpus corpus;
    struct embedding embedding;
    struct word_vectors vectors;
    struct batching *batching;
    double *bytes_per_token;                   /* [n_domains] of the part; 0 where it has no token */
    float *own, *memory;                       /* [n_tokens][d_model] of the tokens of step `last` - 1 */
    float *hidden;                             /* [n_tokens][d_model] */
    float *scratch;                            /* [n_tokens / CHUNK_ROWS + 1][d_model] */
    uint32_t *run;                             /* [n_tokens + 1] first tokens of runs of one sequence */
    uint32_t *token_id, *sequence_id, *domain; /* [n_tokens] */
    uint64_t last;
};

/* ---- what the parameters fix ---- */

static struct corpus_choice choice_of(const struct text_params *p)
{
    return (struct corpus_choice){p->files, p->domains, p->vocabulary, p->word_list};
}

static enum moesim_status check_vocabulary(const struct text_params *p, struct moesim_error *err)
{
    static const char *const of_ranking[] = {"words", NULL}, *const of_list[] = {"word_list", NULL};
    const bool word = p->vocabulary == CORPUS_WORDS, has_list = *p->word_list != '\0';
    if (!word || has_list) {
        const char *where = word ? "beside word_list" : "without vocabulary=word";
        const enum moesim_status status = moesim_params_unused(schema, p, of_ranking, where, err);
        if (status)
            return status;
    }
    if (p->vocabulary == CORPUS_BYTES)
        return moesim_params_unused(schema, p, of_list, "without vocabulary=word or vocabulary=piece", err);
    if (!word && !has_list)
        return moesim_fail(err, MOESIM_EINVAL,
                           "vocabulary=piece takes its pieces from word_list=FILE, one a line, as in BERT's vocab.txt");
    if (word && *p->vectors && !has_list)
        return moesim_fail(err, MOESIM_EINVAL, "vectors of words take word_list=FILE, which says whose they are");
    return MOESIM_OK;
}

/* Ids of the vocabulary; opens `vectors` where there are some, and sees to it that they fit it. */
static enum moesim_status count_ids(const struct text_params *p, struct word_vectors *vectors, uint32_t *n_ids,
                                    struct moesim_error *err)
{
    const struct corpus_choice choice = choice_of(p);
    const bool word = p->vocabulary == CORPUS_WORDS, has_list = *p->word_list != '\0';
    uint32_t n_rows = N_BYTES;
    enum moesim_status status = check_vocabulary(p, err);
    if (!status && has_list)
        status = corpus_count_lines(&choice, &n_rows, err);
    if (!status && *p->vectors)
        status = word_vectors_open(p->vectors, vectors, err);
    if (status)
        return status;
    *n_ids = word && !has_list ? p->words : n_rows + word; /* words that are not in the list share id 0 */
    if (!*p->vectors || vectors->npy.shape[0] == n_rows)
        return MOESIM_OK;
    status = moesim_fail(err, MOESIM_EIO, "%s: has %llu rows, %s has %u%s", p->vectors,
                         (unsigned long long)vectors->npy.shape[0], has_list ? p->word_list : "the vocabulary of bytes",
                         n_rows, has_list ? " lines" : "");
    word_vectors_close(vectors);
    return status;
}

/* A trained model brings the hidden states, of whole sequences. */
static enum moesim_status check_checkpoint(const struct text_params *p, struct moesim_error *err)
{
    static const char *const of_embedding[] = {"vectors", "context", "mixing", "common", "gate_std", NULL};
    if (!*p->checkpoint)
        return MOESIM_OK;
    const enum moesim_status status = moesim_params_unused(schema, p, of_embedding, "beside checkpoint", err);
    if (status)
        return status;
    if (p->batching.batching != BATCHING_CONTIGUOUS)
        return moesim_fail(err, MOESIM_EINVAL,
                           "checkpoint is of a model that reads whole sequences one after the other; it goes with "
                           "batching=contiguous only");
    return MOESIM_OK;
}

/* Whether a path ends in these whole parts of one. */
static bool ends_in(const char *path, const char *end)
{
    const size_t n = strlen(path), n_end = strlen(end);
    return n >= n_end && !strcmp(path + n - n_end, end) && (n == n_end || path[n - n_end - 1] == '/');
}

/* The texts, and the domains among them to take sequences from. */
static enum moesim_status read_texts(const struct text_params *p, struct moesim_arena *arena, struct corpus *corpus,
                                     uint32_t *first, uint32_t *n, struct moesim_error *err)
{
    const struct corpus_choice choice = choice_of(p);
    const enum moesim_status status = corpus_read(&choice, arena, corpus, err);
    if (status)
        return status;
    *first = 0;
    *n = corpus->n_domains;
    if (!*p->only)
        return MOESIM_OK;
    *n = 0;
    for (uint32_t d = 0; d < corpus->n_domains; d++)
        if (ends_in(corpus->domains[d].name, p->only)) {
            *first = d;
            ++*n;
        }
    if (*n == 1)
        return MOESIM_OK;
    return moesim_fail(err, MOESIM_EINVAL, "only: %s domain of the texts ends in '%s'; the first is %s",
                       *n ? "more than one" : "no", p->only, corpus->domains[0].name);
}

/* Reads everything once, so that a damaged file is found before any run begins. */
static enum moesim_status text_shape(const void *params_, struct moesim_workload_shape *shape, struct moesim_error *err)
{
    const struct text_params *p = params_;
    struct word_vectors vectors = {.scale = 0};
    struct corpus corpus;
    uint32_t first, n;
    enum moesim_status status = batching_check(&p->batching, err);
    if (!status)
        status = check_checkpoint(p, err);
    if (!status)
        status = count_ids(p, &vectors, &shape->vocabulary, err);
    if (status)
        return status;
    shape->gate_std = p->gate_std;
    shape->held_out = p->held_out;
    shape->checkpoint = *p->checkpoint ? p->checkpoint : NULL;
    shape->sequence = p->batching.batching == BATCHING_CONTIGUOUS ? p->sequence : 0;
    shape->d_model = vectors.scale > 0 ? (uint32_t)vectors.npy.shape[1] : 0;
    word_vectors_close(&vectors);
    struct moesim_arena *arena = moesim_arena_create(0);
    status = arena ? read_texts(p, arena, &corpus, &first, &n, err)
                   : moesim_fail(err, MOESIM_ENOMEM, "no memory to read the texts");
    if (!status)
        shape->n_domains = corpus.n_domains;
    moesim_arena_destroy(arena);
    return status;
}

/* Tokens [first, first + n) of a domain that an instance for this part draws from. */
struct span {
    size_t first, n;
};

static struct span span_of(const struct text_params *p, const struct corpus_domain *domain, uint32_t part)
{
    const size_t n = corpus_n_tokens(domain), held_out = (size_t)(p->held_out * (double)n);
    switch (part) {
    case MOESIM_PART_TRAINING:
        return (struct span){0, n - held_out};
    case MOESIM_PART_VALIDATION:
        return (struct span){n - held_out, held_out};
    default:
        return (struct span){0, n};
    }
}

/* Training and validation need a whole sequence in each span of a domain; elsewhere a short text is repeated. */
static enum moesim_status check_spans(const struct text *x, uint32_t part, struct moesim_error *err)
{
    for (uint32_t d = x->first_domain; part != MOESIM_PART_ALL && d < x->first_domain + x->n_domains; d++) {
        const struct corpus_domain *domain = &x->corpus.domains[d];
        const struct span span = span_of(&x->p, domain, part);
        if (span.n < x->p.sequence)
            return moesim_fail(err, MOESIM_EINVAL,
                               "text %s has %zu tokens, %zu of them for %s, fewer than the %u of one sequence; name a "
                               "longer text, or change held_out or sequence",
                               domain->name, corpus_n_tokens(domain), span.n,
                               part == MOESIM_PART_TRAINING ? "training" : "validation", x->p.sequence);
    }
    return MOESIM_OK;
}

/* ---- setting up ---- */

static enum moesim_status allocate(struct text *x, const struct moesim_workload_env *env, struct moesim_error *err)
{
    const size_t n = env->n_tokens, d = env->d_model;
    if (d) {
        x->own = moesim_alloc(env->arena, n * d, sizeof *x->own);
        x->memory = moesim_alloc(env->arena, n * d, sizeof *x->memory);
        x->hidden = moesim_alloc(env->arena, n * d, sizeof *x->hidden);
        x->scratch = moesim_alloc(env->arena, (n / CHUNK_ROWS + 1) * d, sizeof *x->scratch);
    }
    x->run = moesim_alloc(env->arena, n + 1, sizeof *x->run);
    x->token_id = moesim_alloc(env->arena, n, sizeof *x->token_id);
    x->sequence_id = moesim_alloc(env->arena, n, sizeof *x->sequence_id);
    x->domain = moesim_alloc(env->arena, n, sizeof *x->domain);
    if ((d && (!x->own || !x->memory || !x->hidden || !x->scratch)) || !x->run || !x->token_id || !x->sequence_id ||
        !x->domain)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %u tokens of %u dimensions", env->n_tokens, env->d_model);
    return MOESIM_OK;
}

/* Takes the mean over domains off the embedding, from some windows spread over each text. */
static void fit_centre(struct text *x)
{
    const uint32_t n_domains = x->corpus.n_domains;
    const size_t n_windows = n_domains < CENTRE_WINDOWS ? CENTRE_WINDOWS / n_domains : 1;
    for (uint32_t d = 0; d < n_domains; d++) {
        const struct corpus_domain *domain = &x->corpus.domains[d];
        const size_t n = corpus_n_tokens(domain), apart = (n + n_windows - 1) / n_windows;
        const size_t window = apart < CENTRE_TOKENS ? apart : CENTRE_TOKENS;
        const double weight = (1 - x->p.common) / n_domains * (double)apart / ((double)window * (double)n);
        for (size_t at = 0; at < n; at += apart) {
            struct embedding_past past = embedding_start(&x->embedding);
            for (size_t i = at; i < n && i < at + window; i++)
                embedding_centre(&x->embedding, &past, corpus_token(domain, i), weight, x->scratch);
        }
    }
}

/* Texts are not alike from end to end, so that a part is measured by itself. */
static enum moesim_status measure_tokens(struct text *x, struct moesim_arena *arena, struct moesim_error *err)
{
    x->bytes_per_token = moesim_alloc(arena, x->corpus.n_domains, sizeof *x->bytes_per_token);
    if (!x->bytes_per_token)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the lengths of %u domains", x->corpus.n_domains);
    for (uint32_t d = 0; d < x->corpus.n_domains; d++) {
        const struct corpus_domain *domain = &x->corpus.domains[d];
        const struct span span = span_of(&x->p, domain, x->part);
        const size_t first = corpus_byte_of(&x->corpus, domain, span.first);
        const size_t last = corpus_byte_of(&x->corpus, domain, span.first + span.n);
        x->bytes_per_token[d] = span.n ? (double)(last - first) / (double)span.n : 0;
    }
    return MOESIM_OK;
}

static enum moesim_status set_up(struct text *x, const struct moesim_workload_env *env, uint32_t n_ids,
                                 struct moesim_error *err)
{
    const struct batching_source source = {.length = x->p.sequence};
    const struct corpus_choice choice = choice_of(&x->p);
    const bool has_vectors = x->vectors.scale > 0;
    if (has_vectors && env->d_model && x->vectors.npy.shape[1] != env->d_model)
        return moesim_fail(err, MOESIM_EINVAL, "%s: has %llu dimensions, the study's d_model is %u", x->p.vectors,
                           (unsigned long long)x->vectors.npy.shape[1], env->d_model);
    enum moesim_status status = read_texts(&x->p, env->arena, &x->corpus, &x->first_domain, &x->n_domains, err);
    if (!status && choice.tokens != CORPUS_BYTES)
        status = corpus_encode(&x->corpus, &choice, n_ids, env->arena, err);
    if (!status)
        status = check_spans(x, env->part, err);
    if (!status)
        status = measure_tokens(x, env->arena, err);
    if (!status)
        status = batching_create(&x->p.batching, &source, env->seed, env->n_tokens, env->arena, &x->batching, err);
    if (!status)
        status = allocate(x, env, err);
    if (!status && env->d_model)
        status = embedding_init(&x->embedding, env->seed, env->d_model, n_ids, x->p.context, env->arena, err);
    x->embedding.vectors = has_vectors ? &x->vectors : NULL;
    x->embedding.first_vector = choice.tokens == CORPUS_WORDS;
    return status;
}

static enum moesim_status text_init(void *state, const void *params_, const struct moesim_workload_env *env,
                                    struct moesim_error *err)
{
    struct text *x = state;
    uint32_t n_ids = 0;
    x->p = *(const struct text_params *)params_;
    x->seed = env->seed;
    x->n_layers = env->n_layers;
    x->n_tokens = env->n_tokens;
    x->part = env->part;
    enum moesim_status status = count_ids(&x->p, &x->vectors, &n_ids, err);
    if (!status)
        status = set_up(x, env, n_ids, err);
    if (status)
        word_vectors_close(&x->vectors);
    else if (env->n_tokens && env->d_model)
        fit_centre(x);
    return status;
}

/* ---- a step ---- */

/* A sequence's domain, and where in the text it begins. A text shorter than the sequence is repeated. */
static const struct corpus_domain *find_sequence(const struct text *x, uint64_t sequence, uint32_t *d, size_t *at)
{
    *d = x->first_domain + (uint32_t)(sequence % x->n_domains);
    const struct corpus_domain *domain = &x->corpus.domains[*d];
    const struct span span = span_of(&x->p, domain, x->part);
    const uint32_t n = (uint32_t)span.n; /* at most CORPUS_MAX_BYTES */
    const uint32_t length = x->p.sequence, per_step = x->n_tokens / length + (x->n_tokens % length != 0);
    const struct moesim_random random = {x->seed, MOESIM_STREAM_WORKLOAD + 2, 0, (uint32_t)(sequence / per_step)};
    *at = span.first + moesim_random_below(&random, sequence % per_step, n > length ? n - length + 1 : n);
    return domain;
}

/* Tokens [first, last) of the step, which follow each other in one sequence. */
static void read_run(struct text *x, const struct batching_step *places, uint32_t first, uint32_t last)
{
    const uint64_t base = x->p.batching.batching == BATCHING_CONTIGUOUS ? places->sequence[0] : 0;
    uint32_t d;
    size_t start;
    const struct corpus_domain *domain = find_sequence(x, places->sequence[first], &d, &start);
    const size_t n = corpus_n_tokens(domain);
    for (uint32_t t = first; t < last; t++) {
        x->token_id[t] = corpus_token(domain, (start + places->position[t]) % n);
        x->domain[t] = d;
        x->sequence_id[t] = (uint32_t)(places->sequence[t] - base);
    }
}

/* Embeds them: what came before them in their sequence is gone through first, as far as it matters. */
static void embed_run(struct text *x, const struct batching_step *places, uint32_t first, uint32_t last)
{
    const struct embedding *e = &x->embedding;
    const size_t width = e->d_model;
    const uint64_t position = places->position[first], before = (uint64_t)x->p.context * WARM_UP_CONTEXTS;
    float *own = x->own + first * width, *memory = x->memory + first * width;
    uint32_t d;
    size_t start;
    const struct corpus_domain *domain = find_sequence(x, places->sequence[first], &d, &start);
    const size_t n = corpus_n_tokens(domain);
    struct embedding_past past = embedding_start(e);
    memset(memory, 0, width * sizeof *memory);
    for (uint64_t i = position > before ? position - before : 0; i < position; i++)
        embedding_next(e, &past, corpus_token(domain, (start + i) % n), own, memory, memory);
    for (uint32_t t = first; t < last; t++)
        embedding_next(e, &past, x->token_id[t], x->own + t * width, t > first ? x->memory + (t - 1) * width : memory,
                       x->memory + t * width);
}

/* Where the step's runs of one sequence begin; the end is the last entry. Padding is a run that is not embedded. */
static uint32_t find_runs(struct text *x, const struct batching_step *places)
{
    uint32_t n = 0;
    for (uint32_t t = 0; t < x->n_tokens; t++) {
        const bool follows =
            t && places->sequence[t] == places->sequence[t - 1] && places->position[t] == places->position[t - 1] + 1;
        if (!follows || (places->padding && places->padding[t] != places->padding[t - 1]))
            x->run[n++] = t;
    }
    x->run[n] = x->n_tokens;
    return n;
}

static void take_step(struct text *x, const struct batching_step *places)
{
    const uint32_t n_runs = find_runs(x, places);
    const size_t width = x->embedding.d_model;
#pragma omp parallel for schedule(dynamic, 4)
    for (uint32_t r = 0; r < n_runs; r++) {
        const uint32_t first = x->run[r], last = x->run[r + 1];
        const bool padding = places->padding && places->padding[first];
        const size_t bytes = (last - first) * width * sizeof *x->own;
        if (!padding)
            read_run(x, places, first, last);
        else
            for (uint32_t t = first; t < last; t++)
                x->token_id[t] = x->sequence_id[t] = x->domain[t] = 0;
        if (width && !padding)
            embed_run(x, places, first, last);
        if (width && padding) {
            memset(x->own + first * width, 0, bytes);
            memset(x->memory + first * width, 0, bytes);
        }
    }
}

/* The memory's share in `layer`: half of the mean in the first layers, one and a half in the last, at most 1. */
static double layer_share(const struct text *x, uint32_t layer)
{
    const double share = x->p.mixing * (0.5 + (layer + 0.5) / x->n_layers);
    return share < 1 ? share : 1;
}

/* Hidden states of `layer`, mixed of what the tokens are and what came before them. */
static void mix_hidden(struct text *x, uint32_t layer)
{
    const size_t width = x->embedding.d_model;
    const uint32_t n_chunks = x->n_tokens / CHUNK_ROWS + (x->n_tokens % CHUNK_ROWS != 0);
    const double share = layer_share(x, layer);
#pragma omp parallel for schedule(static)
    for (uint32_t chunk = 0; chunk < n_chunks; chunk++)
        for (uint32_t t = chunk * CHUNK_ROWS; t < x->n_tokens && t < (chunk + 1) * CHUNK_ROWS; t++)
            embedding_mix(&x->embedding, x->own + t * width, x->memory + t * width, share, x->scratch + chunk * width,
                          x->hidden + t * width);
}

static enum moesim_status text_step(void *state, uint32_t step, uint32_t layer, struct moesim_batch *batch,
                                    struct moesim_error *err)
{
    (void)err;
    struct text *x = state;
    const struct batching_step places = batching_step(x->batching, step);
    if (x->last != step + 1ull)
        take_step(x, &places);
    x->last = step + 1ull;
    if (x->hidden)
        mix_hidden(x, layer);
    batch->n_tokens = x->n_tokens;
    batch->d_model = x->embedding.d_model;
    batch->hidden = x->hidden;
    batch->token_id = x->token_id;
    batch->sequence_id = x->sequence_id;
    batch->domain = x->domain;
    batch->padding = places.padding;
    return MOESIM_OK;
}

static void text_provenance(const void *state, char *text, size_t size)
{
    corpus_describe(&((const struct text *)state)->corpus, text, size);
}

static const char *text_domain_name(const void *state, uint32_t domain)
{
    return ((const struct text *)state)->corpus.domains[domain].name;
}

static double text_bytes_per_token(const void *state, uint32_t domain)
{
    return ((const struct text *)state)->bytes_per_token[domain];
}

static size_t text_token_text(const void *state, uint32_t token_id, char *text, size_t size)
{
    const struct corpus *corpus = &((const struct text *)state)->corpus;
    const uint8_t byte = (uint8_t)token_id;
    const struct corpus_word word = corpus->word ? corpus->word[token_id] : (struct corpus_word){&byte, 1};
    const size_t n = word.length <= size ? word.length : words_check_utf8(word.bytes, size);
    if (n)
        memcpy(text, word.bytes, n);
    return n;
}

static void text_finish(void *state)
{
    word_vectors_close(&((struct text *)state)->vectors);
}

/* Only what training and validation ask for beyond shape() is tried. */
static enum moesim_status text_fits(const void *params_, const struct moesim_workload_env *env_,
                                    struct moesim_error *err)
{
    struct moesim_workload_env env = *env_;
    struct text x = {.last = 0};
    if (env.part == MOESIM_PART_ALL)
        return MOESIM_OK;
    env.d_model = 0;
    env.arena = moesim_arena_create(0);
    const enum moesim_status status =
        env.arena ? text_init(&x, params_, &env, err) : moesim_fail(err, MOESIM_ENOMEM, "no memory to read the texts");
    if (!status)
        text_finish(&x);
    moesim_arena_destroy(env.arena);
    return status;
}

const struct moesim_workload moesim_workload_text = {
    MOESIM_WORKLOAD_HEAD,
    .provides = MOESIM_NEEDS_HIDDEN | MOESIM_NEEDS_TOKEN_IDS | MOESIM_NEEDS_SEQUENCES,
    .name = "text",
    .summary = "bytes, words or word pieces of real text, embedded in their context",
    .reference = "hash embeddings: Svenstrup et al., NIPS 2017",
    .params = params,
    .params_size = sizeof(struct text_params),
    .state_size = sizeof(struct text),
    .shape = text_shape,
    .init = text_init,
    .step = text_step,
    .provenance = text_provenance,
    .finish = text_finish,
    .fits = text_fits,
    .domain_name = text_domain_name,
    .bytes_per_token = text_bytes_per_token,
    .token_text = text_token_text,
};
