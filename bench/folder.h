/*
 * A folder for the files of a measurement.
 */
#ifndef BENCH_FOLDER_H
#define BENCH_FOLDER_H

enum { FOLDER_PATH = 512 };

/* Makes one below TMPDIR or /tmp; ends the program with a sentence when it cannot. */
void folder_make(char path[FOLDER_PATH]);

/* "FOLDER/NAME". */
const char *folder_file(const char *folder, const char *name, char path[FOLDER_PATH]);

/* Removes it with the files in it. */
void folder_remove(const char *path);

#endif
