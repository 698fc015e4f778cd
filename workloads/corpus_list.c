/*
 * Finding texts: files and directories named by the user, or the built-in choice.
 *
 * The built-in choice is real text of three kinds that Debian 12 machines have: the licences of base-files and the Perl
 * modules of perl-base, both essential packages, and the German FAQ of the package debian-faq-de.
 */
#include "workloads/corpus_list.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const struct {
    const char *domain;
    const char *patterns[3];
} built_in[] = {
    {"prose", {"/usr/share/common-licenses/*"}},
    {"code", {"/usr/lib/*/perl-base/*.pm", "/usr/lib/*/perl-base/[A-Z]*/*.pm", "/usr/lib/*/perl-base/[A-Z]*/*/*.pm"}},
    {"German", {"/usr/share/doc/debian/FAQ/debian-faq.de.txt.gz"}},
};
enum { N_BUILT_IN = sizeof built_in / sizeof *built_in, GERMAN = 2 };

static enum moesim_status no_memory(struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "no memory for the list of text files");
}

static enum moesim_status add_domain(struct corpus_list *list, const char *name, struct moesim_error *err)
{
    char **domains = realloc(list->domains, (list->n_domains + 1) * sizeof *domains);
    if (!domains)
        return no_memory(err);
    list->domains = domains;
    domains[list->n_domains] = strdup(name);
    if (!domains[list->n_domains])
        return no_memory(err);
    list->n_domains++;
    return MOESIM_OK;
}

/* Adds a file to the newest domain. */
static enum moesim_status add_file(struct corpus_list *list, const char *path, struct moesim_error *err)
{
    if (list->n_files == CORPUS_MAX_FILES)
        return moesim_fail(err, MOESIM_EINVAL, "%s: more than %u text files; name fewer", path, CORPUS_MAX_FILES);
    if (list->n_files == list->room) {
        const uint32_t room = list->room ? 2 * list->room : 64;
        struct corpus_file *files = realloc(list->files, room * sizeof *files);
        if (!files)
            return no_memory(err);
        list->files = files;
        list->room = room;
    }
    char *copy = strdup(path);
    if (!copy)
        return no_memory(err);
    list->files[list->n_files++] = (struct corpus_file){copy, list->n_domains - 1};
    return MOESIM_OK;
}

/* Directory order and the locale's collation differ from machine to machine; this order does not. */
static int by_path(const void *a, const void *b)
{
    const struct corpus_file *x = a, *y = b;
    return x->domain != y->domain ? (x->domain > y->domain) - (x->domain < y->domain) : strcmp(x->path, y->path);
}

static void sort_from(struct corpus_list *list, uint32_t first)
{
    if (list->n_files > first)
        qsort(list->files + first, list->n_files - first, sizeof *list->files, by_path);
}

static enum moesim_status add_entries(struct corpus_list *list, const char *path, uint32_t depth,
                                      struct moesim_error *err);

/* Links to files are followed, links to directories right below a path that was given only: a link further down that
 * leads back up would never end. Pipes, devices and empty files are passed over. */
static enum moesim_status add_entry(struct corpus_list *list, const char *path, uint32_t depth,
                                    struct moesim_error *err)
{
    struct stat st;
    if (lstat(path, &st))
        return MOESIM_OK;
    const bool link = S_ISLNK(st.st_mode);
    if (link && stat(path, &st))
        return MOESIM_OK;
    if (S_ISDIR(st.st_mode))
        return link && depth ? MOESIM_OK : add_entries(list, path, depth + 1, err);
    return S_ISREG(st.st_mode) && st.st_size > 0 ? add_file(list, path, err) : MOESIM_OK;
}

/* Adds all files below a directory to the newest domain, in no order. */
static enum moesim_status add_entries(struct corpus_list *list, const char *path, uint32_t depth,
                                      struct moesim_error *err)
{
    if (depth > CORPUS_MAX_DEPTH)
        return moesim_fail(err, MOESIM_EIO, "%s: directories are nested deeper than %u", path, CORPUS_MAX_DEPTH);
    DIR *directory = opendir(path);
    if (!directory)
        return moesim_fail(err, MOESIM_EIO, "%s: cannot be read: %s", path, strerror(errno));
    enum moesim_status status = MOESIM_OK;
    for (const struct dirent *entry; !status && (entry = readdir(directory));) {
        char *name;
        if (entry->d_name[0] == '.')
            continue;
        if (asprintf(&name, "%s/%s", path, entry->d_name) < 0) {
            status = no_memory(err);
            break;
        }
        status = add_entry(list, name, depth, err);
        free(name);
    }
    closedir(directory);
    return status;
}

/* Bytes of a file's path that name its domain: all of it, or up to the directory right below `path`. */
static size_t domain_length(const char *file, const char *path, enum corpus_domains by)
{
    const size_t length = strlen(path);
    const char *below = file + length + 1, *slash = strchr(below, '/');
    return by == CORPUS_BY_FILE ? strlen(file) : slash ? (size_t)(slash - file) : length;
}

/* Splits the files from `first` on, which make up the newest domain, into domains of files or directories. */
static enum moesim_status split_domain(struct corpus_list *list, uint32_t first, const char *path,
                                       enum corpus_domains by, struct moesim_error *err)
{
    for (uint32_t i = first; by == CORPUS_BY_DIRECTORY && i < list->n_files; i++) /* those in `path` itself first */
        list->files[i].domain += strchr(list->files[i].path + strlen(path) + 1, '/') != NULL;
    sort_from(list, first);
    free(list->domains[--list->n_domains]);
    enum moesim_status status = MOESIM_OK;
    for (uint32_t i = first; !status && i < list->n_files; i++) {
        char *file = list->files[i].path;
        const size_t length = domain_length(file, path, by);
        const char *newest = i > first ? list->domains[list->n_domains - 1] : "";
        if (strlen(newest) != length || strncmp(newest, file, length) != 0) {
            const char end = file[length];
            file[length] = '\0';
            status = add_domain(list, file, err);
            file[length] = end;
        }
        list->files[i].domain = list->n_domains - 1;
    }
    return status;
}

static enum moesim_status add_path(struct corpus_list *list, const char *path, enum corpus_domains by,
                                   struct moesim_error *err)
{
    struct stat st;
    if (stat(path, &st))
        return moesim_fail(err, MOESIM_EIO, "%s: text file cannot be read: %s", path, strerror(errno));
    enum moesim_status status = add_domain(list, path, err);
    if (status)
        return status;
    if (!S_ISDIR(st.st_mode))
        return add_file(list, path, err);
    const uint32_t first = list->n_files;
    status = add_entries(list, path, 0, err);
    if (status)
        return status;
    if (list->n_files == first)
        return moesim_fail(err, MOESIM_EIO, "%s: no text file in this directory", path);
    if (by != CORPUS_BY_PATH)
        return split_domain(list, first, path, by, err);
    sort_from(list, first);
    return MOESIM_OK;
}

static enum moesim_status list_named(const char *files, enum corpus_domains by, struct corpus_list *list,
                                     struct moesim_error *err)
{
    char *copy = strdup(files), *rest = copy;
    if (!copy)
        return no_memory(err);
    enum moesim_status status = MOESIM_OK;
    for (const char *path; !status && (path = strsep(&rest, ","));)
        status = path[0] ? add_path(list, path, by, err)
                         : moesim_fail(err, MOESIM_EINVAL, "files: a path is empty in \"%s\"", files);
    free(copy);
    return status;
}

static enum moesim_status add_matches(struct corpus_list *list, const char *pattern, struct moesim_error *err)
{
    glob_t found = {0};
    if (glob(pattern, GLOB_NOSORT, NULL, &found))
        return MOESIM_OK; /* nothing there */
    enum moesim_status status = MOESIM_OK;
    for (size_t i = 0; !status && i < found.gl_pathc; i++) {
        struct stat st; /* links (GPL -> GPL-3) would repeat a text */
        if (!lstat(found.gl_pathv[i], &st) && S_ISREG(st.st_mode) && st.st_size > 0)
            status = add_file(list, found.gl_pathv[i], err);
    }
    globfree(&found);
    return status;
}

static enum moesim_status list_built_in(struct corpus_list *list, struct moesim_error *err)
{
    for (uint32_t d = 0; d < N_BUILT_IN; d++) {
        const uint32_t first = list->n_files;
        enum moesim_status status = add_domain(list, built_in[d].domain, err);
        for (uint32_t p = 0; !status && p < 3 && built_in[d].patterns[p]; p++)
            status = add_matches(list, built_in[d].patterns[p], err);
        if (status)
            return status;
        sort_from(list, first);
        if (list->n_files == first) {
            free(list->domains[--list->n_domains]);
            list->missing = d == GERMAN ? "no German text: apt-get install debian-faq-de"
                                        : "some of Debian's own texts were not found";
        }
    }
    if (!list->n_files)
        return moesim_fail(err, MOESIM_EIO,
                           "none of the texts that Debian brings was found (%s, ...); name some: text:files=PATH",
                           built_in[0].patterns[0]);
    return MOESIM_OK;
}

enum moesim_status corpus_list_make(const char *files, enum corpus_domains by, struct corpus_list *list,
                                    struct moesim_error *err)
{
    *list = (struct corpus_list){.missing = ""};
    const enum moesim_status status = files[0] ? list_named(files, by, list, err) : list_built_in(list, err);
    if (status)
        corpus_list_free(list);
    return status;
}

void corpus_list_free(struct corpus_list *list)
{
    for (uint32_t i = 0; i < list->n_files; i++)
        free(list->files[i].path);
    for (uint32_t i = 0; i < list->n_domains; i++)
        free(list->domains[i]);
    free(list->files);
    free(list->domains);
    *list = (struct corpus_list){0};
}
