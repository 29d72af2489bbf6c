/* Faults of network file systems and of clocks, loaded before the C library (LD_PRELOAD).

   FAULTS_PREFIX   folder below which files are spoiled; without it only the clock is
   FAULTS_FLOCK    error number of every flock
   FAULTS_LINK     error number of every link
   FAULTS_RENAME   error number of every third rename, beginning with the first
   FAULTS_FSYNC    milliseconds that an fsync takes in addition
   FAULTS_WRITE    error number of writes when FAULTS_BUDGET bytes are written; the number of bytes
                   is kept in the file FAULTS_COUNTER, which all processes share
   FAULTS_READ     error number of reading files whose path holds FAULTS_UNREADABLE
   FAULTS_SILLY    a file that this process has open is renamed to .nfs... when it is removed, and
                   removed when it is closed, as by clients of NFS
   FAULTS_CLOCK    seconds by which the clock goes back, three seconds after a process began
*/
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static int below(const char *path) {
    const char *prefix = getenv("FAULTS_PREFIX");
    return prefix && strncmp(path, prefix, strlen(prefix)) == 0;
}

/* The path of an open file; empty where it has none. */
static void path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
}

/* The path of a name relative to a folder that is open. */
static void whole(int folder, const char *name, char *path) {
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return;
    }
    char start[PATH_MAX] = "";
    if (folder == AT_FDCWD) { if (!getcwd(start, sizeof start)) start[0] = 0; }
    else path_of(folder, start);
    size_t used = strlen(start);
    snprintf(path, PATH_MAX, "%s", start);
    snprintf(path + used, PATH_MAX - used, "/%s", name);
}

static int spoiled(int folder, const char *name, const char *which) {
    char path[PATH_MAX];
    if (!number(which)) return 0;
    whole(folder, name, path);
    if (!below(path)) return 0;
    errno = (int)number(which);
    return 1;
}

int flock(int fd, int operation) {
    char path[PATH_MAX];
    if (number("FAULTS_FLOCK")) {
        path_of(fd, path);
        if (below(path)) { errno = (int)number("FAULTS_FLOCK"); return -1; }
    }
    return REAL(flock)(fd, operation);
}

int link(const char *from, const char *to) {
    return spoiled(AT_FDCWD, to, "FAULTS_LINK") ? -1 : REAL(link)(from, to);
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
    return spoiled(b, to, "FAULTS_LINK") ? -1 : REAL(linkat)(a, from, b, to, flags);
}

static atomic_int renames;

static int unlucky(int folder, const char *to) {
    return spoiled(folder, to, "FAULTS_RENAME") && atomic_fetch_add(&renames, 1) % 3 == 0;
}

int rename(const char *from, const char *to) {
    return unlucky(AT_FDCWD, to) ? -1 : REAL(rename)(from, to);
}

int renameat(int a, const char *from, int b, const char *to) {
    return unlucky(b, to) ? -1 : REAL(renameat)(a, from, b, to);
}

static void wait_for_disk(int fd) {
    char path[PATH_MAX];
    if (!number("FAULTS_FSYNC")) return;
    path_of(fd, path);
    if (below(path)) usleep((useconds_t)(1000 * number("FAULTS_FSYNC")));
}

int fsync(int fd) { wait_for_disk(fd); return REAL(fsync)(fd); }
int fdatasync(int fd) { wait_for_disk(fd); return REAL(fdatasync)(fd); }

/* --- quota ---------------------------------------------------------------------------------- */

static _Atomic long *counter(void) {
    static _Atomic long *shared;
    const char *path = getenv("FAULTS_COUNTER");
    if (shared || !path) return shared;
    int fd = open(path, O_RDWR);
    if (fd < 0) return NULL;
    void *at = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    REAL(close)(fd);
    return at == MAP_FAILED ? NULL : (shared = at);
}

static int exceeded(int fd, size_t bytes) {
    char path[PATH_MAX];
    if (!number("FAULTS_WRITE") || !counter()) return 0;
    path_of(fd, path);
    if (!below(path)) return 0;
    if (atomic_load(counter()) + (long)bytes > number("FAULTS_BUDGET")) {
        errno = (int)number("FAULTS_WRITE");
        return 1;
    }
    atomic_fetch_add(counter(), (long)bytes);
    return 0;
}

ssize_t write(int fd, const void *data, size_t bytes) {
    return exceeded(fd, bytes) ? -1 : REAL(write)(fd, data, bytes);
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t at) {
    return exceeded(fd, bytes) ? -1 : REAL(pwrite64)(fd, data, bytes, at);
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    size_t bytes = 0;
    for (int k = 0; k < n; k++) bytes += parts[k].iov_len;
    return exceeded(fd, bytes) ? -1 : REAL(writev)(fd, parts, n);
}

/* --- files that cannot be read ------------------------------------------------------------------ */

static int unreadable(int fd) {
    char path[PATH_MAX];
    const char *which = getenv("FAULTS_UNREADABLE");
    if (!which || !number("FAULTS_READ")) return 0;
    path_of(fd, path);
    if (!below(path) || !strstr(path, which)) return 0;
    errno = (int)number("FAULTS_READ");
    return 1;
}

ssize_t read(int fd, void *data, size_t bytes) {
    return unreadable(fd) ? -1 : REAL(read)(fd, data, bytes);
}

ssize_t pread64(int fd, void *data, size_t bytes, off64_t at) {
    return unreadable(fd) ? -1 : REAL(pread64)(fd, data, bytes, at);
}

/* --- files that are removed while they are open ------------------------------------------------ */

static int is_open(const char *path) {
    char name[PATH_MAX];
    DIR *folder = opendir("/proc/self/fd");
    int found = 0;
    for (struct dirent *one; folder && (one = readdir(folder)) && !found;) {
        path_of(atoi(one->d_name), name);
        found = strcmp(name, path) == 0;
    }
    if (folder) closedir(folder);
    return found;
}

static int silly(int folder, const char *name) {
    static atomic_int n;
    char path[PATH_MAX], other[PATH_MAX + 64];
    whole(folder, name, path);
    if (!number("FAULTS_SILLY") || !below(path) || strstr(path, "/.nfs") || !is_open(path)) return 0;
    int length = (int)(strrchr(path, '/') - path);
    snprintf(other, sizeof other, "%.*s/.nfs%08d%04d", length, path, getpid(), atomic_fetch_add(&n, 1));
    return REAL(rename)(path, other) == 0;
}

int unlink(const char *name) { return silly(AT_FDCWD, name) ? 0 : REAL(unlink)(name); }

int unlinkat(int folder, const char *name, int flags) {
    if (!(flags & AT_REMOVEDIR) && silly(folder, name)) return 0;
    return REAL(unlinkat)(folder, name, flags);
}

int close(int fd) {
    char path[PATH_MAX] = "";
    if (number("FAULTS_SILLY")) path_of(fd, path);
    int result = REAL(close)(fd);
    if (path[0] && below(path) && strstr(path, "/.nfs") && !is_open(path)) REAL(unlink)(path);
    return result;
}

/* --- clocks ---------------------------------------------------------------------------------- */

static long back(void) {
    static time_t began;
    struct timespec now;
    if (!number("FAULTS_CLOCK")) return 0;
    REAL(clock_gettime)(CLOCK_MONOTONIC, &now);
    if (!began) began = now.tv_sec;
    return now.tv_sec - began >= 3 ? number("FAULTS_CLOCK") : 0;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = REAL(clock_gettime)(clock, at);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec -= back();
    return result;
}

int gettimeofday(struct timeval *at, void *zone) {
    int result = REAL(gettimeofday)(at, zone);
    if (result == 0) at->tv_sec -= back();
    return result;
}

time_t time(time_t *at) {
    time_t now = REAL(time)(NULL) - back();
    if (at) *at = now;
    return now;
}
