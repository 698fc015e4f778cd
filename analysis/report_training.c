/*
 * What the page of a study that trained has more: held-out text by domain, and what each expert takes.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "analysis/report_page.h"

#define MAX_ROUTERS 4u
#define MAX_EXPERTS 32u
#define MAX_WORDS 8u
#define SEEN_OFTEN 32.0 /* appearances from which on a token counts, as for vocabulary_specialisation */
#define FAVOURITE 1.25  /* times the expert's share of all tokens */

/* ---- bits per byte by domain ---- */

/* The router with the lowest mean, UINT32_MAX where nothing is to compare. */
static uint32_t best_router(const double *mean, uint32_t n)
{
    uint32_t best = UINT32_MAX, n_found = 0;
    for (uint32_t r = 0; r < n; r++)
        if (isfinite(mean[r])) {
            n_found++;
            best = best == UINT32_MAX || mean[r] < mean[best] ? r : best;
        }
    return n_found > 1 ? best : UINT32_MAX;
}

static void put_loss(FILE *out, double mean, double half, bool best)
{
    fprintf(out, "<td%s>", best ? " class=\"best\"" : "");
    if (isfinite(mean))
        fprintf(out, "%.3f", mean);
    else
        fputs("\u2013", out);
    if (isfinite(half))
        fprintf(out, "<small>\u00b1 %.3f</small>", half);
    fputs("</td>", out);
}

/* The column over all domains; false when out of memory. */
static bool whole_text(const struct report_content *content, struct training_domain *whole)
{
    const struct report_data *data = content->data;
    *whole = (struct training_domain){"all", moesim_alloc(data->arena, data->n_routers, sizeof(double)),
                                      moesim_alloc(data->arena, data->n_routers, sizeof(double))};
    for (uint32_t r = 0; whole->mean && whole->half && r < data->n_routers; r++) {
        struct report_cell cell;
        if (!report_cell(data, MOESIM_BITS_PER_BYTE, content->training->workload, r, &cell))
            return false;
        whole->mean[r] = cell.mean;
        whole->half[r] = cell.half;
    }
    return whole->mean && whole->half;
}

static void put_losses(FILE *out, const struct report_content *content, const struct training_domain *whole)
{
    const struct training *training = content->training;
    const uint32_t n_routers = content->data->n_routers;
    fputs("<div class=\"box\"><table>\n<thead><tr><th scope=\"col\">router</th><th scope=\"col\">all domains</th>",
          out);
    for (uint32_t d = 0; d < training->n_domains; d++) {
        fputs("<th scope=\"col\"><bdi>", out);
        report_html(out, training->domain[d].name);
        fputs("</bdi></th>", out);
    }
    fputs("</tr></thead>\n<tbody>\n", out);
    for (uint32_t r = 0; r < n_routers; r++) {
        fputs("<tr><th scope=\"row\"><bdi>", out);
        report_html(out, content->data->router[r]);
        fputs("</bdi></th>", out);
        put_loss(out, whole->mean[r], whole->half[r], r == best_router(whole->mean, n_routers));
        for (uint32_t d = 0; d < training->n_domains; d++) {
            const struct training_domain *domain = &training->domain[d];
            put_loss(out, domain->mean[r], domain->half[r], r == best_router(domain->mean, n_routers));
        }
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

/* " of workload ..." in a study of several. */
static void put_workload(FILE *out, const struct report_content *content)
{
    if (content->data->n_workloads < 2)
        return;
    fputs(" of workload <bdi>", out);
    report_html(out, content->data->workload[content->training->workload]);
    fputs("</bdi>", out);
}

bool report_domains(FILE *out, const struct report_content *content)
{
    struct training_domain whole;
    if (!content->training->n_domains)
        return true;
    if (!whole_text(content, &whole))
        return false;
    fputs("<h2>Bits per byte by domain</h2>\n", out);
    put_losses(out, content, &whole);
    fputs("<p class=\"note\">Held-out text at the last validation", out);
    put_workload(out, content);
    fprintf(out, ", lower is better, the best of a column in bold%s.</p>\n",
            content->data->n_seeds > 1 ? "; mean and 95 % t interval over seeds" : "");
    return true;
}

/* ---- what each expert takes ---- */

/* A share of `weight` tokens. */
struct share {
    uint32_t index;
    double value, weight;
};

static int by_share(const void *a, const void *b)
{
    const struct share *x = a, *y = b;
    if (x->value != y->value)
        return x->value > y->value ? -1 : 1;
    if (x->weight != y->weight)
        return x->weight > y->weight ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static void put_percent(FILE *out, double share)
{
    const double percent = 100.0 * share;
    if (percent > 0.0 && percent < 0.05)
        fputs("&lt; 0.1 %", out);
    else
        fprintf(out, percent > 0.0 && percent < 9.95 ? "%.1f %%" : "%.0f %%", percent);
}

/* Per subject, the part of its tokens that go to the expert, the largest first. */
static uint32_t rank_subjects(const struct training_routing *routing, uint32_t kind, uint32_t expert, double least,
                              struct share *share)
{
    const double seen = kind == MOESIM_SUBJECT_TOKEN ? SEEN_OFTEN : 1.0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < routing->n[kind]; i++) {
        const struct training_subject *subject = &routing->subject[kind][i];
        const double value = subject->tokens >= seen ? subject->assigned[expert] / subject->tokens : 0.0;
        if (value > 0.0 && value >= least)
            share[n++] = (struct share){i, value, subject->tokens};
    }
    if (n)
        qsort(share, n, sizeof *share, by_share);
    return n;
}

static void put_favourites(FILE *out, const struct training_routing *routing, uint32_t kind, const struct share *share,
                           uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        fputs(kind == MOESIM_SUBJECT_TOKEN ? "<span><code>" : "<span><bdi>", out);
        report_html(out, routing->subject[kind][share[i].index].name);
        fputs(kind == MOESIM_SUBJECT_TOKEN ? "</code> <small>" : "</bdi> <small>", out);
        put_percent(out, share[i].value);
        fputs("</small></span> ", out);
    }
    if (!n)
        fputs("\u2013", out);
}

static void put_expert(FILE *out, const struct training_routing *routing, const struct share *expert,
                       struct share *scratch)
{
    const double least = FAVOURITE * expert->value;
    fprintf(out, "<tr><th scope=\"row\">%u</th><td>", expert->index);
    put_percent(out, expert->value);
    fputs("</td><td class=\"words\">", out);
    uint32_t n = rank_subjects(routing, MOESIM_SUBJECT_DOMAIN, expert->index, least, scratch);
    put_favourites(out, routing, MOESIM_SUBJECT_DOMAIN, scratch, n > 1 ? 1 : n);
    fputs("</td><td class=\"words\">", out);
    n = rank_subjects(routing, MOESIM_SUBJECT_TOKEN, expert->index, least, scratch);
    put_favourites(out, routing, MOESIM_SUBJECT_TOKEN, scratch, n < MAX_WORDS ? n : MAX_WORDS);
    fputs("</td></tr>\n", out);
}

/* What part of all tokens each expert takes, the busiest first. */
static void rank_experts(const struct training_routing *routing, struct share *share)
{
    double tokens = 0.0;
    for (uint32_t d = 0; d < routing->n[MOESIM_SUBJECT_DOMAIN]; d++)
        tokens += routing->subject[MOESIM_SUBJECT_DOMAIN][d].tokens;
    for (uint32_t e = 0; e < routing->n_experts; e++) {
        share[e] = (struct share){e, 0.0, 0.0};
        for (uint32_t d = 0; tokens > 0.0 && d < routing->n[MOESIM_SUBJECT_DOMAIN]; d++)
            share[e].value += routing->subject[MOESIM_SUBJECT_DOMAIN][d].assigned[e] / tokens;
    }
    qsort(share, routing->n_experts, sizeof *share, by_share);
}

static bool put_router(FILE *out, const struct report_content *content, uint32_t router)
{
    const struct training_routing *routing = &content->training->routing[router];
    struct moesim_arena *arena = content->data->arena;
    const uint32_t n_subjects = routing->n[0] > routing->n[1] ? routing->n[0] : routing->n[1];
    struct share *expert = moesim_alloc(arena, routing->n_experts, sizeof *expert);
    struct share *scratch = moesim_alloc(arena, n_subjects, sizeof *scratch);
    if (!expert || !scratch)
        return false;
    rank_experts(routing, expert);
    fputs("<div class=\"box\"><table>\n<caption><bdi>", out);
    report_html(out, content->data->router[router]);
    fputs("</bdi></caption>\n<thead><tr><th scope=\"col\">expert</th><th scope=\"col\">of all tokens</th>"
          "<th scope=\"col\" class=\"name\">favourite domain</th><th scope=\"col\" class=\"name\">favourite tokens</th>"
          "</tr></thead>\n<tbody>\n",
          out);
    for (uint32_t i = 0; i < routing->n_experts && i < MAX_EXPERTS; i++)
        put_expert(out, routing, &expert[i], scratch);
    fputs("</tbody></table></div>\n", out);
    return true;
}

static void put_explanation(FILE *out, const struct report_content *content, const struct training_routing *first)
{
    fprintf(out,
            "<h2>What each expert takes</h2>\n<p class=\"note\">Layer %u, the last with experts, at the last "
            "validation of seed %" PRId64,
            first->layer, first->seed);
    put_workload(out, content);
    fprintf(out,
            ", before capacity; the busiest experts first, at most %u. Behind a domain or token: the share of its "
            "appearances that the expert takes, where it is at least %.2f times the expert's share of all tokens. A "
            "token that goes to k experts counts for each of them. Tokens are the most frequent ones, seen %.0f times "
            "or more.</p>\n",
            MAX_EXPERTS, FAVOURITE, SEEN_OFTEN);
}

bool report_takers(FILE *out, const struct report_content *content)
{
    const struct training *training = content->training;
    bool good = true, any = false;
    for (uint32_t r = 0, n = 0; good && r < content->data->n_routers && n < MAX_ROUTERS; r++) {
        const struct training_routing *routing = &training->routing[r];
        if (!routing->n_experts || !routing->n[MOESIM_SUBJECT_TOKEN])
            continue;
        n++;
        if (!any) {
            put_explanation(out, content, routing);
            fputs("<div class=\"takers\">\n", out);
            any = true;
        }
        good = put_router(out, content, r);
    }
    if (any)
        fputs("</div>\n", out);
    return good;
}
