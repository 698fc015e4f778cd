/* Whole files. */
#include "cli/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <moesim/hash.h>

bool cli_file_same(const char *a, const char *b)
{
    struct stat one, other;
    return stat(a, &one) == 0 && stat(b, &other) == 0 && S_ISREG(one.st_mode) && one.st_dev == other.st_dev &&
           one.st_ino == other.st_ino;
}

enum { LANES = 8, BLOCK = 1 << 16, MOST_LEVELS = 8, MOST_ENTRIES = 65536 };
#define MOST_HASHED ((off_t)1 << 30)

/* FNV-1a over 64-bit words, eight of which go side by side. */
static void hash_block(uint64_t lane[LANES], const unsigned char *block, size_t n)
{
    uint64_t word[LANES];
    for (size_t at = 0; at < n; at += sizeof word) {
        if (n - at < sizeof word)
            memset(word, 0, sizeof word);
        memcpy(word, block + at, n - at < sizeof word ? n - at : sizeof word);
        for (int i = 0; i < LANES; i++)
            lane[i] = (lane[i] ^ word[i]) * UINT64_C(0x100000001b3);
    }
}

bool cli_file_hash(const char *path, uint64_t *hash)
{
    FILE *in = fopen(path, "rbe");
    if (!in)
        return false;
    static unsigned char block[BLOCK];
    uint64_t lane[LANES], size = 0;
    for (int i = 0; i < LANES; i++)
        lane[i] = MOESIM_HASH_START + (uint64_t)i;
    for (size_t n; (n = fread(block, 1, sizeof block, in)) > 0; size += n)
        hash_block(lane, block, n);
    *hash = moesim_hash(moesim_hash(MOESIM_HASH_START, lane, sizeof lane), &size, sizeof size);
    bool good = !ferror(in);
    fclose(in);
    return good;
}

static int no_dots(const struct dirent *entry)
{
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

/* How much may still be read. */
struct budget {
    off_t bytes;
    uint32_t entries, levels;
};

static bool hash_any(const char *path, struct budget *budget, uint64_t *hash);

/* Links to folders are not followed, as they may lead back. */
static uint64_t hash_entry(const char *folder, const char *name, struct budget *budget)
{
    char path[4096];
    struct stat link, info;
    uint64_t hash = 0;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) < sizeof path && lstat(path, &link) == 0 &&
        stat(path, &info) == 0 && !(S_ISLNK(link.st_mode) && S_ISDIR(info.st_mode)))
        hash_any(path, budget, &hash);
    return hash;
}

static bool hash_folder(const char *path, struct budget *budget, uint64_t *hash)
{
    struct dirent **entry;
    const int n = scandir(path, &entry, no_dots, alphasort);
    *hash = MOESIM_HASH_START;
    budget->levels--;
    for (int i = 0; i < n; i++) {
        if (budget->entries > 0) {
            budget->entries--;
            const uint64_t of_entry = hash_entry(path, entry[i]->d_name, budget);
            *hash = moesim_hash(*hash, entry[i]->d_name, strlen(entry[i]->d_name) + 1);
            *hash = moesim_hash(*hash, &of_entry, sizeof of_entry);
        }
        free(entry[i]);
    }
    if (n >= 0)
        free(entry);
    budget->levels++;
    return n >= 0;
}

static bool hash_any(const char *path, struct budget *budget, uint64_t *hash)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return false;
    if (S_ISDIR(info.st_mode))
        return budget->levels > 0 && hash_folder(path, budget, hash);
    if (!S_ISREG(info.st_mode))
        return false;
    if (info.st_size <= budget->bytes) {
        budget->bytes -= info.st_size;
        return cli_file_hash(path, hash);
    }
    const int64_t what[] = {info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
    *hash = moesim_hash(MOESIM_HASH_START, what, sizeof what);
    return true;
}

bool cli_path_hash(const char *path, uint64_t *hash)
{
    struct budget budget = {MOST_HASHED, MOST_ENTRIES, MOST_LEVELS};
    return hash_any(path, &budget, hash);
}

enum moesim_status cli_file_read(const char *path, size_t max_bytes, char **text, size_t *size,
                                 struct moesim_error *err)
{
    FILE *in = fopen(path, "rbe");
    if (!in)
        return moesim_fail(err, MOESIM_EIO, "%s: %s", path, strerror(errno));
    struct stat info;
    if (fstat(fileno(in), &info) == 0 && S_ISDIR(info.st_mode)) {
        fclose(in);
        return moesim_fail(err, MOESIM_EIO, "%s: is a directory", path);
    }
    char *bytes = malloc(max_bytes + 2);
    size_t n = bytes ? fread(bytes, 1, max_bytes + 1, in) : 0;
    bool broken = ferror(in);
    fclose(in);
    if (!bytes)
        return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    if (broken || n > max_bytes) {
        free(bytes);
        return broken ? moesim_fail(err, MOESIM_EIO, "%s: cannot be read", path)
                      : moesim_fail(err, MOESIM_EINVAL, "%s: longer than %zu bytes", path, max_bytes);
    }
    bytes[n] = '\0';
    *text = bytes;
    *size = n;
    return MOESIM_OK;
}

bool cli_file_temporary(const char *path, long pid, char *name, size_t size)
{
    return (size_t)snprintf(name, size, "%s.%ld.tmp", path, pid) < size;
}

/* Only a plain name is replaced by renaming; a device or a pipe is written as it is. */
static bool is_special(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && !S_ISREG(info.st_mode);
}

enum moesim_status cli_file_output_open(struct file_output *output, const char *path, struct moesim_error *err)
{
    *output = (struct file_output){.stream = stdout, .path = path};
    if (!path)
        return MOESIM_OK;
    if (!is_special(path) && !cli_file_temporary(path, (long)getpid(), output->temporary, sizeof output->temporary))
        return moesim_fail(err, MOESIM_EIO, "%s: the name is too long", path);
    const char *name = *output->temporary ? output->temporary : path;
    output->stream = fopen(name, "wbe");
    if (!output->stream)
        return moesim_fail(err, MOESIM_EIO, "%s: cannot be written: %s", path, strerror(errno));
    return MOESIM_OK;
}

enum moesim_status cli_file_output_close(struct file_output *output, bool keep, struct moesim_error *err)
{
    if (!output->path)
        return MOESIM_OK; /* stdout is judged when the program ends */
    errno = 0;
    bool written = !ferror(output->stream);
    written = fclose(output->stream) == 0 && written;
    if (written && keep && (!*output->temporary || rename(output->temporary, output->path) == 0))
        return MOESIM_OK;
    int why = errno;
    if (*output->temporary)
        unlink(output->temporary);
    return keep ? moesim_fail(err, MOESIM_EIO, "%s: cannot be written: %s", output->path,
                              why ? strerror(why) : "write error")
                : MOESIM_OK;
}
