#include "report_fixture.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "analysis/file.h"
#include "xml.h"

static const char *const figures[] = {"loss",      "settling",     "specialisation", "imbalance", "differences",
                                      "step-time", "balance-cost", "expert-load",    "traffic",   "drops"};
enum { N_FIGURES = sizeof figures / sizeof *figures };

char report_folder[64];

struct results_store *report_open(const struct sample *made, bool fail)
{
    struct results_store *store;
    struct moesim_error err;
    cr_assert_eq(results_open("report.db", RESULTS_MEMORY, &store, &err), MOESIM_OK, "%s", err.text);
    if (made)
        sample_fill(store, made, fail);
    return store;
}

void report_new_folder(void)
{
    strcpy(report_folder, "/tmp/moesim-report-XXXXXX");
    cr_assert(mkdtemp(report_folder));
}

void report_remove_folder(void)
{
    char path[256];
    for (uint32_t i = 0; i < N_FIGURES; i++)
        for (uint32_t png = 0; png < 2; png++) {
            snprintf(path, sizeof path, "%s/fig-%s.%s", report_folder, figures[i], png ? "png" : "svg");
            unlink(path);
        }
    snprintf(path, sizeof path, "%s/report.html", report_folder);
    unlink(path);
    cr_assert_eq(rmdir(report_folder), 0, "something else was left in %s", report_folder);
}

/* Reports the store and reads the page. */
char *report_read(struct results_store *store, struct analysis_report_result *result)
{
    const struct analysis_report_options options = {.directory = report_folder, .version = "9.9.9"};
    struct moesim_error err;
    size_t size;
    cr_assert_eq(analysis_report(store, &options, result, &err), MOESIM_OK, "%s", err.text);
    char *page = file_read(result->page, 5u << 20, &size);
    cr_assert(page, "no page, or one of more than 5 MB");
    return page;
}

bool report_have_gnuplot(void)
{
    return system("command -v gnuplot >/dev/null 2>&1") == 0;
}

void report_expect(const char *page, const char *text)
{
    cr_expect(strstr(page, text), "not on the page: %s", text);
}

/* Every figure file that is there is whole; returns how many. */
uint32_t report_check_files(void)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < N_FIGURES; i++) {
        char path[256];
        size_t size;
        snprintf(path, sizeof path, "%s/fig-%s.svg", report_folder, figures[i]);
        char *svg = file_read(path, 5u << 20, &size);
        if (!svg)
            continue;
        n++;
        cr_expect_null(xml_problem(svg), "%s: %s", path, xml_problem(svg));
        cr_expect_null(strstr(svg, "<title>"));
        snprintf(path, sizeof path, "%s/fig-%s.png", report_folder, figures[i]);
        char *png = file_read(path, 20u << 20, &size);
        cr_expect(png && size > 1024 && !memcmp(png, "\x89PNG", 4), "%s", path);
        free(svg);
        free(png);
    }
    return n;
}

/* The next id attribute: not one that a text speaks of. */
static const char *next_id(const char *page, const char *from)
{
    for (const char *id = strstr(from, " id="); id; id = strstr(id + 1, " id=")) {
        const char *c = id;
        while (c > page && *c != '<' && *c != '>')
            c--;
        if (*c == '<')
            return id;
    }
    return NULL;
}

/* The inline drawings are well-formed and no id occurs twice. */
void report_check_inline(char *page)
{
    for (char *svg = strstr(page, "<svg"); svg; svg = strstr(svg + 1, "<svg")) {
        char *end = strstr(svg, "</svg>");
        cr_assert(end);
        const char after = end[6];
        end[6] = '\0';
        cr_expect_null(xml_problem(svg), "%s", xml_problem(svg));
        end[6] = after;
    }
    for (const char *id = next_id(page, page); id; id = next_id(page, id + 1)) {
        char name[96] = "";
        const size_t length = strcspn(id + 5, "\"'") + 6;
        cr_assert_lt(length + 1, sizeof name);
        memcpy(name, id + 4, length);
        for (const char *again = next_id(page, id + 1); again; again = next_id(page, again + 1))
            cr_assert(strncmp(again + 4, name, length), "the id %s occurs twice", name);
    }
}

/* Nothing on the page may load anything or run. */
void report_check_contained(const char *page)
{
    static const char *const forbidden[] = {"<script", "src=\"http", "href=\"http", "href='http", "url(http",
                                            "@import", "<link",      "<iframe",     " onload=",   "javascript:"};
    report_expect(page, "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"");
    for (uint32_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
        cr_expect_null(strstr(page, forbidden[i]), "%s", forbidden[i]);
    for (const char *c = page; *c; c++)
        cr_assert((unsigned char)*c >= 0x20 || strchr("\t\n", *c), "control byte %d", *c);
}
