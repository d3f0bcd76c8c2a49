/* fsdm for C, with nothing but libc:  cc -O2 -Wall -o fsdm fsdm.c
 *
 *   FSDM_DATA_DIR=data fsdm want FILE|-
 *   FSDM_DATA_DIR=data fsdm register [--exclusive] FILE|-
 *   FSDM_DATA_DIR=data fsdm delete ID
 *   FSDM_DATA_DIR=data fsdm list
 *   FSDM_DATA_DIR=data fsdm find DATASET BLOCK
 *   FSDM_DATA_DIR=data fsdm find --key NAME HEX|TEXT
 *   FSDM_DATA_DIR=data fsdm hold DATASET BLOCK -- CMD…
 *   FSDM_DATA_DIR=data fsdm acquire [--timeout S] ID|DATASET BLOCK -- CMD…
 *
 * Exit codes: 1 the chunk cannot be fetched, or is registered already (--exclusive), 2 wrong usage or input, 3 no such
 * chunk is available (acquire: or registered), 4 it has not come in time, 6 the data directory cannot be used; that of
 * CMD.
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
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ID = 64, NAME = 20 + 1 + 20 + 1 + ID, WANT_MAX_BYTES = 1 << 20 };
enum { SAFE = O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC }; /* follows no symlink, and waits for no FIFO's other end */
typedef char Place[ID + 1 + NAME + 1];               /* DATASET/START-END-ID */
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

/* Where the value of a key of the outermost object of a JSON text begins; NULL where there is none, or the object does
 * not end; of several, the last. */
static const char *member(const char *text, const char *key) {
    const char *found = NULL, *blank = " \t\r\n";
    int depth = 0;
    for (const char *at = text; *at; at++) {
        depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
        if (depth == 0 && (*at == '}' || *at == ']'))
            return found;
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
    return NULL;
}

/* Whether a value is a string that is an id: then it is copied. */
static bool id_of(const char *value, char id[ID + 1]) {
    if (!value || *value != '"' || strcspn(value + 1, "\"") != ID)
        return false;
    memcpy(id, value + 1, ID);
    id[ID] = 0;
    return is_id(id);
}

/* A file's text, of at most `limit` bytes; NULL where it cannot be read, or is larger. */
static char *text_of(FILE *file, size_t limit) {
    char *text = file ? calloc(1, limit + 2) : NULL;
    bool taken = text && fread(text, 1, limit + 1, file) <= limit && !ferror(file);
    if (file)
        fclose(file);
    if (!taken)
        free(text);
    return taken ? text : NULL;
}

/* The text of a file of ours, as above. */
static char *read_text(const char *kind, const char *name) {
    char buffer[PATH_MAX];
    int fd = open(path(buffer, kind, name, ""), O_RDONLY | SAFE);
    return fd < 0 ? NULL : text_of(fdopen(fd, "r"), WANT_MAX_BYTES);
}

/* ---------------------------------------------------------------------------------------------------------- asking */

/* A new dotfile of a directory of markers, opened to be written; it becomes a marker. */
static int temporary(char buffer[PATH_MAX], const char *kind, const char *id) {
    unsigned number = 0;
    char name[ID + 16];
    if (getrandom(&number, sizeof number, 0) < 0)
        fail(1, "getrandom: %s", strerror(errno));
    snprintf(name, sizeof name, ".%s.%08x", id, number);
    int fd = open(path(buffer, kind, name, ""), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0664);
    if (fd < 0)
        fail(6, "%s: %s", buffer, strerror(errno));
    return fd;
}

/* The marker appears whole, by a rename (or by a link, where none stands), under the lock of intents. Then those go
 * that it overrules: in this order, so that a crash in between never leaves neither. */
static void place(const char *kind, bool exclusive, const char *id, const char *text, const char *const overruled[2]) {
    char marker[PATH_MAX], new[PATH_MAX], buffer[PATH_MAX];
    FILE *file = fdopen(temporary(new, kind, id), "w");
    bool written = file && fputs(text, file) >= 0;
    if (!file || (fclose(file) != 0) | !written)
        fail(6, "%s: %s", new, strerror(errno));
    int lock = open(path(buffer, "want", "", ""), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int tries = 0; flock(lock, LOCK_EX | LOCK_NB) && tries < 10; tries++)
        usleep(500); /* somebody may sit on it: after 5 ms on without, and as exact as `touch` is */
    path(marker, kind, id, "");
    int why = (exclusive ? link(new, marker) : rename(new, marker)) ? errno : 0;
    if (why || exclusive)
        unlink(new);
    if (why)
        fail(why == EEXIST ? 1 : 6, "%s: %s", marker, strerror(why));
    for (int i = 0; i < 2 && overruled[i]; i++)
        if (unlink(path(buffer, overruled[i], id, "")) && errno != ENOENT && errno != EISDIR)
            fail(6, "%s: %s", buffer, strerror(errno));
    close(lock);
}

/* Place the document in a file. */
static void ask(const char *kind, bool exclusive, const char *name, const char *const overruled[2]) {
    char *text = text_of(strcmp(name, "-") ? fopen(name, "re") : stdin, WANT_MAX_BYTES), id[ID + 1];
    if (!text)
        fail(2, "%s cannot be read, or has more than 1 MiB", name);
    if (!id_of(member(text, "id"), id))
        fail(2, "the want has no id of 64 lower-case hex digits");
    place(kind, exclusive, id, text, overruled);
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
static void become(int ref, const char *there, char **command) {
    char buffer[PATH_MAX];
    path(buffer, "chunks", there, "data");
    if (!command) {
        puts(buffer);
        return;
    }
    setenv("FSDM_CHUNK_PATH", buffer, 1);
    setenv("FSDM_CHUNK_ID", there + strlen(there) - ID, 1);
    fcntl(ref, F_SETFD, 0); /* no close-on-exec */
    execvp(command[0], command);
    fail(errno == ENOENT ? 127 : 126, "%s: %s", command[0], strerror(errno));
}

/* A block as 20 digits. */
static void padded(char block[21], const char *dataset, const char *number) {
    char *end;
    errno = 0;
    uint64_t value = strtoull(number, &end, 10);
    if (!is_id(dataset) || strspn(number, "0123456789") == 0 || *end || errno)
        fail(2, "not an id, or not a block number within 0 … 2^64-1: %s %s", dataset, number);
    snprintf(block, 21, "%020" PRIu64, value);
}

static bool has_block(const char *name, const char *block) {
    return memcmp(name, block, 20) <= 0 && memcmp(block, name + 21, 20) < 0;
}

static void hold(const char *dataset, const char *number, char **command) {
    char buffer[PATH_MAX], block[21];
    Place there;
    padded(block, dataset, number);
    struct dirent **found;
    int count = entries(path(buffer, "chunks", dataset, ""), &found, is_chunk_dir, by_responsibility);
    for (int i = 0; i < count; i++) {
        if (!has_block(found[i]->d_name, block))
            continue;
        snprintf(there, sizeof there, "%s/%.*s", dataset, NAME, found[i]->d_name);
        int ref = take(path(buffer, "chunks", there, ""), found[i]->d_name + 42);
        if (ref >= 0) {
            become(ref, there, command);
            return;
        }
    }
    fail(3, "no available chunk of %s holds block %s", dataset, number);
}

/* ------------------------------------------------------------------------------------------------------- acquiring */

static void release(struct dirent **found, int count) {
    for (int i = 0; i < count; i++)
        free(found[i]);
    if (count >= 0)
        free(found);
}

/* Where the chunk of an id has READY. */
static bool here(const char *id, Place there) {
    char buffer[PATH_MAX];
    struct dirent **datasets, **chunks;
    bool is_here = false;
    int many = entries(path(buffer, "chunks", "", ""), &datasets, is_dataset, alphasort);
    for (int i = 0; i < many; i++) {
        int count = entries(path(buffer, "chunks", datasets[i]->d_name, ""), &chunks, is_chunk_dir, alphasort);
        for (int j = 0; j < count && !is_here; j++) {
            snprintf(there, sizeof(Place), "%.*s/%.*s", ID, datasets[i]->d_name, NAME, chunks[j]->d_name);
            is_here = !strcmp(chunks[j]->d_name + 42, id) && ready(path(buffer, "chunks", there, ""));
        }
        release(chunks, count);
    }
    release(datasets, many);
    return is_here;
}

/* The place of the chunk that want/ID or known/ID describes. */
static bool described(const char *kind, const char *id, Place there) {
    char *text = read_text(kind, id), dataset[ID + 1], own[ID + 1];
    const char *range = text ? member(text, "block_range") : NULL;
    const char *start = range && *range == '{' ? member(range, "start") : NULL;
    const char *end = start ? member(range, "end") : NULL;
    bool taken = text && (!member(text, "id") || (id_of(member(text, "id"), own) && !strcmp(own, id))) &&
                 id_of(member(text, "dataset_id"), dataset) && start && strspn(start, "0123456789") && end &&
                 strspn(end, "0123456789");
    errno = 0;
    if (taken) {
        uint64_t first = strtoull(start, NULL, 10), last = strtoull(end, NULL, 10);
        snprintf(there, sizeof(Place), "%s/%020" PRIu64 "-%020" PRIu64 "-%s", dataset, first, last, id);
        taken = first < last && !errno;
    }
    free(text);
    return taken;
}

/* Where a chunk is, or else what want/ID or known/ID says. */
static bool where(const char *id, Place there) {
    return here(id, there) || described("want", id, there) || described("known", id, there);
}

/* The place of the chunk that is responsible for a block, of those that are available and those that are registered. */
static bool responsible(const char *dataset, const char *block, Place best) {
    char buffer[PATH_MAX];
    Place there, elsewhere;
    struct dirent **found;
    best[0] = 0;
    for (int known = 0; known < 2; known++) {
        int count = known ? entries(path(buffer, "known", "", ""), &found, is_dataset, NULL)
                          : entries(path(buffer, "chunks", dataset, ""), &found, is_chunk_dir, NULL);
        for (int i = 0; i < count; i++) {
            const char *name = found[i]->d_name, *id = known ? name : name + 42;
            if (!known)
                snprintf(there, sizeof there, "%s/%.*s", dataset, NAME, name);
            else if (!described("known", id, there) || memcmp(there, dataset, ID))
                continue;
            const char *dir = there + ID + 1;
            if (!has_block(dir, block) || (best[0] && (memcmp(dir, best + ID + 1, 20) < 0 ||
                                                       (!memcmp(dir, best + ID + 1, 20) && strcmp(there, best) > 0))))
                continue;
            bool available = !deleted(id) && (known ? here(id, elsewhere) : ready(path(buffer, "chunks", there, "")));
            if (available != known)
                strcpy(best, there);
        }
        release(found, count);
    }
    return best[0] != 0;
}

static int marker = -1; /* acquire/ID, with a shared lock */
static double since;    /* from then on a failure is that of this attempt */

static double now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static bool is_joined(const char *at) {
    struct stat mine, there;
    return marker >= 0 && !fstat(marker, &mine) && !lstat(at, &there) && mine.st_ino == there.st_ino;
}

/* Give a file the time of now; false where that is the one that it has, for the kernel's own clock has ticks, and a finer
 * time only the owner may give. Who may do neither leaves it. */
static bool touch(int fd) {
    struct timespec times[2];
    struct stat before, after;
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[1] = times[0];
    if (fstat(fd, &before) || futimens(fd, times) == 0 || futimens(fd, NULL) || fstat(fd, &after))
        return true;
    return after.st_mtim.tv_sec != before.st_mtim.tv_sec || after.st_mtim.tv_nsec != before.st_mtim.tv_nsec;
}

/* Have a share in acquire/ID. */
static bool join(const char *id) {
    char at[PATH_MAX], new[PATH_MAX];
    if (is_joined(path(at, "acquire", id, "")))
        return true;
    close(marker);
    struct stat found;
    marker = open(at, O_RDONLY | SAFE);
    if (marker < 0 && errno == ENOENT) {
        marker = temporary(new, "acquire", id);
        if (flock(marker, LOCK_SH | LOCK_NB) || write(marker, "held\n", 5) != 5 || (link(new, at) && errno != EEXIST))
            fail(6, "%s: %s", at, strerror(errno));
        unlink(new); /* it was locked before it was there */
    } else if (marker < 0 || fstat(marker, &found) || !S_ISREG(found.st_mode))
        fail(6, "%s is in the way", at);
    if (flock(marker, LOCK_SH | LOCK_NB) == 0 && is_joined(at)) {
        since = now(CLOCK_REALTIME); /* before the touch, so that no failure in between is missed */
        if (touch(marker))
            return true;
    }
    close(marker); /* it is on its way out, or is just being looked at */
    marker = -1;
    return false;
}

/* Ends where failed/ID tells that this attempt has failed: one that waits for room has not. */
static void end_if_failed(const char *id) {
    char *text = read_text("failed", id);
    const char *kind = text ? member(text, "kind") : NULL, *at = kind ? member(text, "last_at") : NULL;
    const char *error = at ? member(text, "error") : NULL;
    if (error && strncmp(kind, "\"room\"", 6) && strtod(at, NULL) >= since)
        fail(1, "%s cannot be fetched: %.*s", id, (int)strcspn(error + 1, "\""), error + 1);
    free(text);
}

static bool is_later(struct timespec a, struct timespec b) {
    return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

/* A use is noted about once a minute, where the chunk may be evicted: by a touch of acquire/ID. */
static void note_use(const char *there, const char *id) {
    char buffer[PATH_MAX];
    struct stat cached, want, known;
    if (!lstat(path(buffer, "chunks", there, "CACHED"), &cached)) {
        if (now(CLOCK_REALTIME) - (double)cached.st_mtim.tv_sec < 60)
            return;
    } else if (lstat(path(buffer, "chunks", there, "WANT"), &want) || lstat(path(buffer, "known", id, ""), &known) ||
               !is_later(known.st_ctim, want.st_mtim) || !is_later(known.st_mtim, want.st_mtim))
        return; /* it was wanted, and not registered since */
    int fd = open(path(buffer, "acquire", id, ""), O_WRONLY | O_CREAT | SAFE, 0664);
    touch(fd);
    close(fd);
}

static void acquire(const char *what, const char *number, const char *timeout, char **command) {
    char buffer[PATH_MAX], block[21], id[ID + 1], *end = NULL;
    double late = now(CLOCK_MONOTONIC) + (timeout ? strtod(timeout, &end) : 0);
    if ((timeout && (*end || strspn(timeout, "0123456789.") == 0)) || !is_id(what))
        fail(2, "not an id, or not a number of seconds: %s %s", what, timeout ? timeout : "");
    Place there;
    if (number)
        padded(block, what, number);
    if (number ? !responsible(what, block, there) : !where(what, there))
        fail(3, "that chunk is neither here nor registered");
    strcpy(id, there + strlen(there) - ID);
    int ref;
    while ((ref = take(path(buffer, "chunks", there, ""), id)) < 0) {
        if (!stands(AT_FDCWD, path(buffer, "want", id, "")) && !stands(AT_FDCWD, path(buffer, "known", id, "")))
            fail(3, "%s is neither here nor registered", id);
        Place by_now;
        if (where(id, by_now))
            strcpy(there, by_now);
        if (join(id))
            end_if_failed(id);
        if (timeout && now(CLOCK_MONOTONIC) >= late)
            fail(4, "%s has not come in time", id);
        usleep(50000);
    }
    note_use(there, id);
    close(marker); /* not before the ref is taken: until then it is not evicted */
    become(ref, there, command);
}

/* --------------------------------------------------------------------------------------------------------- indexes */

/* SHA-256 (FIPS 180-4) of so many bytes. */
static void sha256(const unsigned char *bytes, uint64_t size, unsigned char digest[32]) {
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
    };
    uint32_t w[64], h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
                            0x1f83d9ab, 0x5be0cd19};
#define TURN(x, n) ((x) >> (n) | (x) << (32 - (n)))
    for (uint64_t at = 0; at < size + 9; at += 64) {
        for (int i = 0; i < 16; i++) {
            w[i] = 0;
            for (uint64_t j = at + 4 * (uint64_t)i; j < at + 4 * (uint64_t)i + 4; j++)
                w[i] = w[i] << 8 | (j < size ? bytes[j] : j == size ? 0x80 : 0);
        }
        if (at + 64 >= size + 9)
            w[14] = (uint32_t)(size >> 29), w[15] = (uint32_t)(size << 3);
        for (int i = 16; i < 64; i++)
            w[i] = w[i - 16] + w[i - 7] + (TURN(w[i - 15], 7) ^ TURN(w[i - 15], 18) ^ w[i - 15] >> 3) +
                   (TURN(w[i - 2], 17) ^ TURN(w[i - 2], 19) ^ w[i - 2] >> 10);
        uint32_t s[8];
        memcpy(s, h, sizeof s);
        for (int i = 0; i < 64; i++) {
            uint32_t a = s[0], e = s[4];
            uint32_t one = s[7] + (TURN(e, 6) ^ TURN(e, 11) ^ TURN(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + k[i] + w[i];
            uint32_t two = (TURN(a, 2) ^ TURN(a, 13) ^ TURN(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
            memmove(s + 1, s, 7 * sizeof *s);
            s[0] = one + two, s[4] += one;
        }
        for (int i = 0; i < 8; i++)
            h[i] += s[i];
    }
    for (int i = 0; i < 32; i++)
        digest[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
}

struct index {
    const unsigned char *at; /* mapped */
    uint64_t size, count, bits, rest;
};

static uint64_t number(const unsigned char *at, int bytes) {
    return bytes ? *at | number(at + 1, bytes - 1) << 8 : 0; /* little-endian */
}

/* Map a file; NULL where there is none, or an empty one. */
static const unsigned char *mapped(const char *name, uint64_t *size) {
    int fd = open(name, O_RDONLY | SAFE);
    struct stat found = {0};
    void *at = MAP_FAILED;
    if (fd >= 0 && fstat(fd, &found) == 0 && S_ISREG(found.st_mode))
        at = mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    *size = (uint64_t)found.st_size;
    return at == MAP_FAILED ? NULL : at;
}

/* Map an index, or a run of one; false where there is none that is whole. */
static bool open_index(const char *name, const char *magic, struct index *it) {
    unsigned char check[32];
    it->at = mapped(name, &it->size);
    if (!it->at || it->size < 160 || memcmp(it->at, magic, 8) || number(it->at + 24, 8) != it->size)
        return false;
    sha256(it->at, 144, check);
    it->count = number(it->at + 8, 8), it->bits = number(it->at + 16, 8);
    it->rest = 160 + 20 * it->count + 8 * ((1ull << it->bits) + 1);
    return !memcmp(check, it->at + 144, 16);
}

/* The next record with this hash, behind `record` (NULL: the first one); NULL where there is no more. */
static const unsigned char *next(const struct index *it, const unsigned char hash[16], const unsigned char *record) {
    uint64_t bucket = 0;
    for (int i = 0; i < 8; i++)
        bucket = bucket << 8 | hash[i];
    bucket = it->bits ? bucket >> (64 - it->bits) : 0;
    const unsigned char *bounds = it->at + 160 + 20 * it->count + 8 * bucket;
    const unsigned char *end = it->at + 160 + 20 * number(bounds + 8, 8);
    for (record = record ? record + 20 : it->at + 160 + 20 * number(bounds, 8); record < end; record += 20)
        if (!memcmp(record, hash, 16))
            return record;
    return NULL;
}

/* Whether a chunk has a key, by its own index, where that is whole and of its READY; else by what the run says. */
static bool holds(const char *there, const char *name, const unsigned char *key, uint64_t size, const void *identity) {
    char buffer[PATH_MAX], own[PATH_MAX];
    unsigned char hash[32], digest[32];
    uint64_t ready_size;
    struct index it;
    const unsigned char *ready = mapped(path(buffer, "chunks", there, "READY"), &ready_size);
    if (!ready)
        return false;
    sha256(ready, ready_size, digest);
    snprintf(own, sizeof own, "%s/index", there);
    if (!open_index(path(buffer, "chunks", own, name), "fsdmidx1", &it) || memcmp(it.at + 48, digest, 32))
        return !memcmp(identity, digest, 32);
    sha256(key, size, hash);
    for (const unsigned char *record = NULL; (record = next(&it, hash, record));) {
        uint64_t n = number(record + 16, 4);
        const unsigned char *entry = it.at + it.rest + 32 * n, *keys = it.at + it.rest + 32 * it.count;
        uint64_t begin = n ? number(entry - 32, 8) : 0, end = number(entry, 8);
        if (end - begin == size && !memcmp(keys + begin, key, size))
            return true;
    }
    return false;
}

struct hit {
    Place there;
    unsigned char identity[32];
};

static int by_place(const void *a, const void *b) { return memcmp(a, b, sizeof(struct hit)); }

static int is_run(const struct dirent *entry) {
    const char *name = entry->d_name;
    return strlen(name) == 20 && !strncmp(name, "run-", 4) && strspn(name + 4, "0123456789abcdef") == 16;
}

/* The chunks that have a hash, by the runs of an index; how many. */
static size_t hits(const char *name, const unsigned char hash[16], struct hit **found) {
    char buffer[PATH_MAX];
    struct dirent **runs;
    size_t many = 0;
    bool gone = false;
    *found = NULL;
    int count = entries(path(buffer, "index", name, ""), &runs, is_run, NULL);
    for (int i = 0; i < count; i++) {
        struct index it;
        bool is_whole = open_index(path(buffer, "index", name, runs[i]->d_name), "fsdmrun1", &it);
        gone = gone || (!is_whole && !stands(AT_FDCWD, buffer));
        for (const unsigned char *record = NULL; is_whole && (record = next(&it, hash, record));) {
            uint64_t n = number(record + 16, 4);
            if (n >= number(it.at + 32, 8))
                continue;
            const unsigned char *row = it.at + it.rest + 112 * n;
            *found = reallocarray(*found, many + 1, sizeof **found);
            struct hit *hit = memset(*found + many++, 0, sizeof **found);
            for (int at = 0; at < 32; at++)
                sprintf(hit->there + 2 * at, "%02x", row[at]);
            sprintf(hit->there + ID, "/%020" PRIu64 "-%020" PRIu64 "-", number(row + 64, 8), number(row + 72, 8));
            for (int at = 32; at < 64; at++)
                sprintf(hit->there + strlen(hit->there), "%02x", row[at]);
            memcpy(hit->identity, row + 80, 32);
        }
    }
    return gone ? hits(name, hash, found) : many; /* one has gone since it was listed: another has what it had */
}

/* Prints the paths of the available chunks that hold a key; how many. */
static int find_key(const char *name, const unsigned char *key, uint64_t size) {
    char buffer[PATH_MAX];
    unsigned char hash[32];
    struct hit *found;
    int printed = 0;
    sha256(key, size, hash);
    size_t many = hits(name, hash, &found);
    qsort(found, many, sizeof *found, by_place);
    for (size_t i = 0; i < many; i++) {
        const char *there = found[i].there;
        if (i && !strcmp(there, found[i - 1].there) && !memcmp(found + i, found + i - 1, sizeof *found))
            continue;
        int ref = take(path(buffer, "chunks", there, ""), there + strlen(there) - ID);
        if (ref >= 0 && holds(there, name, key, size, found[i].identity))
            printed += puts(path(buffer, "chunks", there, "data")) >= 0;
        close(ref);
    }
    return printed;
}

/* A key is taken for bytes where it is hex digits, and for text where no chunk holds these. */
static void find_keys(const char *name, const char *key) {
    char buffer[PATH_MAX];
    const char *hex = strncmp(key, "0x", 2) ? key : key + 2;
    size_t length = strlen(hex);
    if (!*key || !*name || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") != strlen(name) ||
        strspn(name, "_-") || !stands(AT_FDCWD, path(buffer, "index", name, "")))
        fail(2, "an empty key, or there is no index %s over all chunks", name);
    unsigned char *bytes = malloc(length / 2 + 1);
    bool is_hex = length && length % 2 == 0 && strspn(hex, "0123456789abcdefABCDEF") == length;
    for (size_t i = 0; is_hex && i < length; i += 2)
        sscanf(hex + i, "%2hhx", bytes + i / 2);
    if (!(is_hex && find_key(name, bytes, length / 2)) && !find_key(name, (const unsigned char *)key, strlen(key)))
        fail(3, "no available chunk holds that key of index %s", name);
}

int main(int count, char **arguments) {
    const char *root = getenv("FSDM_DATA_DIR"), *verb = count > 1 ? arguments[1] : "", *timeout = NULL;
    if (!root || !*root)
        fail(2, "which data directory? Set FSDM_DATA_DIR");
    data = realpath(root, NULL);
    if (!data)
        fail(6, "%s: %s", root, strerror(errno));
    char buffer[PATH_MAX];
    const char *text = read_text("fsdm.json", ""), *format = text ? member(text, "format") : NULL;
    if (!format || strcspn(format, ",} \t\r\n") != 1 || *format != '1')
        fail(6, "%s is not a data directory of format 1", data);
    if (!stands(AT_FDCWD, path(buffer, "delete", ".", "")))
        fail(6, "%s/delete may not be searched: nobody could see there that a chunk is deleted", data);

    char **rest = arguments + 2;
    bool exclusive = count > 2 && !strcmp(verb, "register") && !strcmp(rest[0], "--exclusive");
    if (exclusive)
        rest++, count--;
    if (count > 4 && !strcmp(verb, "acquire") && !strcmp(rest[0], "--timeout"))
        timeout = rest[1], rest += 2, count -= 2;
    if (count == 3 && !strcmp(verb, "want"))
        ask("want", false, rest[0], (const char *const[]){"delete", NULL});
    else if (count == 3 && !strcmp(verb, "register"))
        ask("known", exclusive, rest[0], (const char *const[]){"delete", "want"});
    else if (count == 3 && !strcmp(verb, "delete") && is_id(rest[0]))
        place("delete", false, rest[0], "", (const char *const[]){"want", "known"});
    else if (count == 2 && !strcmp(verb, "list"))
        list();
    else if (count == 4 && !strcmp(verb, "find"))
        hold(rest[0], rest[1], NULL);
    else if (count == 5 && !strcmp(verb, "find") && !strcmp(rest[0], "--key"))
        find_keys(rest[1], rest[2]);
    else if (count > 5 && !strcmp(verb, "hold") && !strcmp(rest[2], "--"))
        hold(rest[0], rest[1], rest + 3);
    else if (count > 4 && !strcmp(verb, "acquire") && !strcmp(rest[1], "--"))
        acquire(rest[0], NULL, timeout, rest + 2);
    else if (count > 5 && !strcmp(verb, "acquire") && !strcmp(rest[2], "--"))
        acquire(rest[0], rest[1], timeout, rest + 3);
    else
        fail(2, "see the head of fsdm.c for how it is called");
    return 0;
}
