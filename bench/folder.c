#include "bench/folder.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/bench.h"

void folder_make(char path[FOLDER_PATH])
{
    const char *temporary = getenv("TMPDIR");
    snprintf(path, FOLDER_PATH, "%.400s/moesim-bench-XXXXXX", temporary && *temporary ? temporary : "/tmp");
    if (!mkdtemp(path))
        bench_stop("the folder %s cannot be made", path);
}

const char *folder_file(const char *folder, const char *name, char path[FOLDER_PATH])
{
    snprintf(path, FOLDER_PATH, "%.400s/%.100s", folder, name);
    return path;
}

void folder_remove(const char *path)
{
    DIR *files = opendir(path);
    for (struct dirent *file; files && (file = readdir(files));)
        unlinkat(dirfd(files), file->d_name, 0);
    if (files)
        closedir(files);
    rmdir(path);
}
