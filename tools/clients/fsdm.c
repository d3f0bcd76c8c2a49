/* fsdm for C, with nothing but libc:  cc -O2 -Wall -o fsdm fsdm.c
 *
 *   FSDM_DATA_DIR=data fsdm want FILE|-
 *   FSDM_DATA_DIR=data fsdm delete ID
 *   FSDM_DATA_DIR=data fsdm list
 *   FSDM_DATA_DIR=data fsdm find DATASET BLOCK
 *   FSDM_DATA_DIR=data fsdm hold DATASET BLOCK -- CMD…
 *
 * Exit codes: 2 wrong usage or input, 3 no such chunk is available, 6 the data directory cannot be used; that of CMD.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ID = 64, NAME = 20 + 1 + 20 + 1 + ID, WANT_MAX_BYTES = 1 << 20 };
static const char *const U64_MAX = "18446744073709551615";
static const char *data; /* the real path of the data directory */

static _Noreturn void fail(int code, const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    fputs("fsdm: ", stderr);
    vfprintf(stderr, format, rest);
    fputc('\n', stderr);
    exit(code);
}

static const char *path(char buffer[PATH_MAX], const char *a, const char *b, const char *c) {
    if (snprintf(buffer, PATH_MAX, "%s/%s%s%s%s%s", data, a, *b ? "/" : "", b, *c ? "/" : "", c) >= PATH_MAX)
        fail(6, "%s: %s", data, strerror(ENAMETOOLONG));
    return buffer;
}

static bool stands(int directory, const char *name) {
    struct stat found;
    return fstatat(directory, name, &found, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool deleted(const char *id) {
    char buffer[PATH_MAX];
    return stands(AT_FDCWD, path(buffer, "delete", id, ""));
}

static bool ready(const char *directory) {
    char buffer[PATH_MAX];
    return snprintf(buffer, PATH_MAX, "%s/READY", directory) < PATH_MAX && stands(AT_FDCWD, buffer);
}

static bool is_id(const char *text) { return strlen(text) == ID && strspn(text, "0123456789abcdef") == ID; }

/* Where the value of a key of the outermost object of a JSON text begins, or NULL; of several, the last. */
static const char *member(const char *text, const char *key) {
    const char *found = NULL, *blank = " \t\r\n";
    int depth = 0;
    for (const char *at = text; *at; at++) {
        depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
        if (*at != '"')
            continue;
        const char *string = ++at;
        while (*at && *at != '"')
            at += at[0] == '\\' && at[1] ? 2 : 1;
        if (!*at)
            break;
        const char *next = at + 1 + strspn(at + 1, blank);
        if (depth == 1 && *next == ':' && strlen(key) == (size_t)(at - string) && !memcmp(key, string, strlen(key)))
            found = next + 1 + strspn(next + 1, blank);
    }
    return found;
}

/* A file's text, of at most `limit` bytes; NULL where it cannot be read, or is larger. */
static char *text_of(FILE *file, size_t limit) {
    char *text = file ? calloc(1, limit + 2) : NULL;
    if (text && (fread(text, 1, limit + 1, file) > limit || ferror(file)))
        return NULL;
    return text;
}

/* ---------------------------------------------------------------------------------------------------------- asking */

/* The marker appears whole, by a rename, under the lock of intents. Then the opposite one goes: in this order, so that
 * a crash in between never leaves neither. */
static void place(const char *kind, const char *opposite, const char *id, const char *text) {
    char marker[PATH_MAX], other[PATH_MAX], temporary[PATH_MAX], name[ID + 16];
    unsigned number = 0;
    if (getrandom(&number, sizeof number, 0) < 0)
        fail(1, "getrandom: %s", strerror(errno));
    snprintf(name, sizeof name, ".%s.%08x", id, number);
    path(temporary, kind, name, ""), path(marker, kind, id, ""), path(other, opposite, id, "");
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0664);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    bool written = file && fputs(text, file) >= 0;
    if (!file || (fclose(file) != 0) | !written)
        fail(6, "%s: %s", temporary, strerror(errno));

    char buffer[PATH_MAX];
    int lock = open(path(buffer, "want", "", ""), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int tries = 0; flock(lock, LOCK_EX | LOCK_NB) && tries < 10; tries++)
        usleep(500); /* somebody may sit on it: after 5 ms on without, and as exact as `touch` is */
    if (rename(temporary, marker)) {
        int why = errno;
        unlink(temporary);
        fail(6, "%s: %s", marker, strerror(why));
    }
    if (unlink(other) && errno != ENOENT && errno != EISDIR)
        fail(6, "%s: %s", other, strerror(errno));
    close(lock);
}

static void want(const char *name) {
    char *text = text_of(strcmp(name, "-") ? fopen(name, "re") : stdin, WANT_MAX_BYTES), id[ID + 1] = "";
    if (!text)
        fail(2, "%s cannot be read, or has more than 1 MiB", name);
    const char *value = member(text, "id");
    if (value && *value == '"' && strcspn(value + 1, "\"") == ID)
        memcpy(id, value + 1, ID);
    if (!is_id(id))
        fail(2, "the want has no id of 64 lower-case hex digits");
    place("want", "delete", id, text);
}

/* --------------------------------------------------------------------------------------------------------- reading */

static int is_dataset(const struct dirent *entry) { return is_id(entry->d_name); }

/* START-END-ID, with 20 digits each: so they compare as text. */
static int is_chunk_dir(const struct dirent *entry) {
    const char *name = entry->d_name, *end = name + 21;
    return strlen(name) == NAME && strspn(name, "0123456789") == 20 && name[20] == '-' &&
           strspn(end, "0123456789") == 20 && name[41] == '-' && is_id(name + 42) && memcmp(name, end, 20) < 0 &&
           memcmp(end, U64_MAX, 20) <= 0;
}

typedef int Order(const struct dirent **, const struct dirent **);

/* How many entries of a directory `pass`, and those, in order; none where there is no directory. */
static int entries(const char *directory, struct dirent ***found, int (*pass)(const struct dirent *), Order *order) {
    int count = scandir(directory, found, pass, order);
    if (count < 0 && errno != ENOENT && errno != ENOTDIR)
        fail(6, "%s: %s", directory, strerror(errno));
    return count;
}

static void list(void) {
    char buffer[PATH_MAX];
    struct dirent **datasets, **chunks;
    int many = entries(path(buffer, "chunks", "", ""), &datasets, is_dataset, alphasort);
    for (int i = 0; i < many; i++) {
        int count = entries(path(buffer, "chunks", datasets[i]->d_name, ""), &chunks, is_chunk_dir, alphasort);
        for (int j = 0; j < count; j++) {
            const char *name = chunks[j]->d_name;
            int fd = open(path(buffer, "chunks", datasets[i]->d_name, name), O_PATH | O_DIRECTORY | O_NOFOLLOW);
            if (fd >= 0 && stands(fd, "READY") && !deleted(name + 42))
                puts(name + 42);
            if (fd >= 0)
                close(fd);
        }
    }
}

/* The responsible one first: the greatest start, then the smallest end, then the smallest id. */
static int by_responsibility(const struct dirent **a, const struct dirent **b) {
    int by_start = memcmp((*b)->d_name, (*a)->d_name, 20);
    return by_start ? by_start : strcmp((*a)->d_name, (*b)->d_name);
}

/* A ref: a descriptor of the chunk's directory, with a shared lock on it until it is closed; or -1. */
static int take(const char *directory, const char *id) {
    /* Before the lock as well, for fairness: who keeps asking must not keep the reconciler from its claim. */
    if (deleted(id) || !ready(directory))
        return -1;
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -1;
    /* The order is the whole safety argument: lock, then READY through the descriptor, then the marker. */
    if (flock(fd, LOCK_SH | LOCK_NB) == 0 && stands(fd, "READY") && !deleted(id))
        return fd;
    close(fd);
    return -1;
}

/* Becomes `command`, which inherits the ref: the chunk is held for as long as it, or a child of it, runs. Without a
 * command: prints the path. */
static void hold(const char *dataset, const char *number, char **command) {
    char directory[PATH_MAX], block[24], *end;
    errno = 0;
    uint64_t value = strtoull(number, &end, 10);
    if (!is_id(dataset) || strspn(number, "0123456789") == 0 || *end || errno)
        fail(2, "not an id, or not a block number within 0 … 2^64-1: %s %s", dataset, number);
    snprintf(block, sizeof block, "%020" PRIu64, value);

    struct dirent **found;
    int count = entries(path(directory, "chunks", dataset, ""), &found, is_chunk_dir, by_responsibility);
    for (int i = 0; i < count; i++) {
        const char *name = found[i]->d_name, *id = name + 42;
        if (memcmp(name, block, 20) > 0 || memcmp(block, name + 21, 20) >= 0)
            continue;
        int ref = take(path(directory, "chunks", dataset, name), id);
        if (ref < 0)
            continue;
        strncat(directory, "/data", sizeof directory - strlen(directory) - 1);
        if (!command) {
            puts(directory);
            return;
        }
        setenv("FSDM_CHUNK_PATH", directory, 1);
        setenv("FSDM_CHUNK_ID", id, 1);
        fcntl(ref, F_SETFD, 0); /* no close-on-exec */
        execvp(command[0], command);
        fail(errno == ENOENT ? 127 : 126, "%s: %s", command[0], strerror(errno));
    }
    fail(3, "no available chunk of %s holds block %s", dataset, number);
}

int main(int count, char **arguments) {
    const char *root = getenv("FSDM_DATA_DIR"), *verb = count > 1 ? arguments[1] : "";
    if (!root || !*root)
        fail(2, "which data directory? Set FSDM_DATA_DIR");
    data = realpath(root, NULL);
    if (!data)
        fail(6, "%s: %s", root, strerror(errno));
    char buffer[PATH_MAX];
    const char *text = text_of(fopen(path(buffer, "fsdm.json", "", ""), "re"), 4096);
    const char *format = text ? member(text, "format") : NULL;
    if (!format || strcspn(format, ",} \t\r\n") != 1 || *format != '1')
        fail(6, "%s is not a data directory of format 1", data);
    if (!stands(AT_FDCWD, path(buffer, "delete", ".", "")))
        fail(6, "%s/delete may not be searched: nobody could see there that a chunk is deleted", data);

    if (count == 3 && !strcmp(verb, "want"))
        want(arguments[2]);
    else if (count == 3 && !strcmp(verb, "delete") && is_id(arguments[2]))
        place("delete", "want", arguments[2], "");
    else if (count == 2 && !strcmp(verb, "list"))
        list();
    else if (count == 4 && !strcmp(verb, "find"))
        hold(arguments[2], arguments[3], NULL);
    else if (count > 5 && !strcmp(verb, "hold") && !strcmp(arguments[4], "--"))
        hold(arguments[2], arguments[3], arguments + 5);
    else
        fail(2, "want FILE|-, delete ID, list, find DATASET BLOCK, or hold DATASET BLOCK -- CMD…");
    return 0;
}
