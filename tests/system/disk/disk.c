/* What a program does to its files, written down; and a disk that fails on request.
 *
 * Preloaded into an interpreter, it stands between SQLite and the kernel for the files
 * whose path begins with DISK_ROOT, and leaves all others alone.
 *
 *   DISK_LOG=FILE       write down every write, truncation, removal, renaming and sync, in
 *                       the order in which they took effect (images.py reads it)
 *   DISK_FAULT=KIND:K:ERRNO[:COUNT]
 *                       let the K-th call (from 1) of KIND fail with ERRNO, and the
 *                       COUNT - 1 after it; KIND: write, sync, open, truncate
 *   DISK_LAZY=1         a disk that lies: syncs return at once and are not written down
 *   DISK_SLOW_MS=N      each sync takes N milliseconds longer
 *
 * A program that runs on this disk may change its mind: disk_fail and disk_slow are for it,
 * and disk_seen says how many calls of the kind in question there were.
 *
 * A record of the log: kind (1 byte), length of the name (1), name, offset (8), length of
 * the bytes (4), bytes; all little-endian, as this machine has it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FILES 4096
#define NAME 200

static char names[FILES][NAME]; /* by file descriptor; empty: not ours */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char root[1024], fault_kind[16];
static long fault_at, fault_errno, fault_count, seen;
static int log_fd = -1, lazy;
static long slow_ms;

__attribute__((constructor)) static void prepare(void) {
    const char *value = getenv("DISK_ROOT");
    if (value) snprintf(root, sizeof root, "%s", value);
    if ((value = getenv("DISK_LOG")))
        log_fd = syscall(SYS_openat, AT_FDCWD, value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if ((value = getenv("DISK_FAULT"))) {
        fault_count = 1;
        sscanf(value, "%15[^:]:%ld:%ld:%ld", fault_kind, &fault_at, &fault_errno, &fault_count);
    }
    lazy = getenv("DISK_LAZY") != NULL;
    if ((value = getenv("DISK_SLOW_MS"))) slow_ms = atol(value);
}

static int is_ours(const char *path) {
    return root[0] && path && strncmp(path, root, strlen(root)) == 0;
}

static const char *name_of(int fd) {
    return fd >= 0 && fd < FILES && names[fd][0] ? names[fd] : NULL;
}

/* SQLite's index of the log is memory that it shares; it is made anew after a power cut. */
static int is_kept(const char *path) {
    size_t length = strlen(path);
    return !(length > 4 && strcmp(path + length - 4, "-shm") == 0);
}

static void note_name(int fd, const char *path) {
    if (fd >= 0 && fd < FILES && is_ours(path) && is_kept(path))
        snprintf(names[fd], NAME, "%s", path + strlen(root));
}

static void write_down(char kind, const char *name, uint64_t offset, const void *bytes, uint32_t length) {
    if (log_fd < 0) return;
    unsigned char head[2 + NAME + 12];
    size_t size = strlen(name);
    head[0] = kind;
    head[1] = size;
    memcpy(head + 2, name, size);
    memcpy(head + 2 + size, &offset, 8);
    memcpy(head + 10 + size, &length, 4);
    struct iovec parts[2] = {{head, 14 + size}, {(void *)bytes, length}};
    if (syscall(SYS_writev, log_fd, parts, length ? 2 : 1) < 0) abort();
}

/* Whether this call is one of those that must fail. */
static int fails(const char *kind) {
    if (!fault_at || strcmp(kind, fault_kind)) return 0;
    seen++;
    if (seen < fault_at || seen >= fault_at + fault_count) return 0;
    errno = fault_errno;
    return 1;
}

/* As DISK_FAULT, from now on; at 0: no call fails any more. */
void disk_fail(const char *kind, long at, long error, long count) {
    pthread_mutex_lock(&turn);
    snprintf(fault_kind, sizeof fault_kind, "%s", kind);
    fault_at = at;
    fault_errno = error;
    fault_count = count;
    seen = 0;
    pthread_mutex_unlock(&turn);
}

/* Since disk_fail. */
long disk_seen(void) {
    pthread_mutex_lock(&turn);
    long now = seen;
    pthread_mutex_unlock(&turn);
    return now;
}

/* As DISK_SLOW_MS, from the next sync on. */
void disk_slow(long milliseconds) {
    slow_ms = milliseconds;
}

#define REAL(result, symbol, ...)                                        \
    static result (*real)(__VA_ARGS__);                                  \
    if (!real) real = dlsym(RTLD_NEXT, symbol)

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    int ours = is_ours(path);
    pthread_mutex_lock(&turn);
    int fd = ours && fails("open") ? -1 : real(path, flags, mode);
    int error = errno;
    if (fd >= 0 && ours) {
        note_name(fd, path);
        if ((flags & O_TRUNC) && name_of(fd)) write_down('t', name_of(fd), 0, NULL, 0);
    }
    pthread_mutex_unlock(&turn);
    errno = error;
    return fd;
}

#define OPEN(symbol)                                                     \
    int symbol(const char *path, int flags, ...) {                       \
        REAL(int, #symbol, const char *, int, ...);                      \
        va_list rest;                                                    \
        va_start(rest, flags);                                           \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                    \
        return opened(real, path, flags, mode);                          \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    REAL(int, "close", int);
    pthread_mutex_lock(&turn);
    if (fd >= 0 && fd < FILES) names[fd][0] = 0;
    pthread_mutex_unlock(&turn);
    return real(fd);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    const char *name = name_of(fd);
    if (!name) return real(fd, bytes, length);
    pthread_mutex_lock(&turn);
    ssize_t done = -1;
    if (!fails("write")) {
        off_t at = fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
        done = real(fd, bytes, length);
        if (done > 0) write_down('w', name, at, bytes, done);
    }
    int error = errno;
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}

static ssize_t written(ssize_t (*real)(int, const void *, size_t, off_t), int fd, const void *bytes, size_t length, off_t at) {
    const char *name = name_of(fd);
    if (!name) return real(fd, bytes, length, at);
    pthread_mutex_lock(&turn);
    ssize_t done = -1;
    if (!fails("write")) {
        done = real(fd, bytes, length, at);
        if (done > 0) write_down('w', name, at, bytes, done);
    }
    int error = errno;
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}

#define PWRITE(symbol)                                                   \
    ssize_t symbol(int fd, const void *bytes, size_t length, off_t at) { \
        REAL(ssize_t, #symbol, int, const void *, size_t, off_t);        \
        return written(real, fd, bytes, length, at);                     \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

static int cut(int (*real)(int, off_t), int fd, off_t length) {
    const char *name = name_of(fd);
    if (!name) return real(fd, length);
    pthread_mutex_lock(&turn);
    int result = fails("truncate") ? -1 : real(fd, length);
    int error = errno;
    if (!result) write_down('t', name, length, NULL, 0);
    pthread_mutex_unlock(&turn);
    errno = error;
    return result;
}

int ftruncate(int fd, off_t length) {
    REAL(int, "ftruncate", int, off_t);
    return cut(real, fd, length);
}

int ftruncate64(int fd, off_t length) {
    REAL(int, "ftruncate64", int, off_t);
    return cut(real, fd, length);
}

static int synced(int (*real)(int), int fd) {
    const char *name = name_of(fd);
    if (!name) return real(fd);
    if (lazy) return 0;
    if (slow_ms) {
        struct timespec time = {slow_ms / 1000, slow_ms % 1000 * 1000000};
        nanosleep(&time, NULL);
    }
    pthread_mutex_lock(&turn);
    int result = fails("sync") ? -1 : real(fd);
    int error = errno;
    if (!result) write_down('s', name, 0, NULL, 0);
    pthread_mutex_unlock(&turn);
    errno = error;
    return result;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return synced(real, fd);
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return synced(real, fd);
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    if (!is_ours(path) || !is_kept(path)) return real(path);
    pthread_mutex_lock(&turn);
    int result = real(path);
    int error = errno;
    if (!result) write_down('u', path + strlen(root), 0, NULL, 0);
    pthread_mutex_unlock(&turn);
    errno = error;
    return result;
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    if (!is_ours(from) || !is_ours(to)) return real(from, to);
    pthread_mutex_lock(&turn);
    int result = real(from, to);
    int error = errno;
    if (!result) write_down('r', from + strlen(root), 0, to + strlen(root), strlen(to + strlen(root)));
    pthread_mutex_unlock(&turn);
    errno = error;
    return result;
}
