/* Stands between a process and the C library, and counts what changes a folder: every such call is a point.
 *
 * Loaded by LD_PRELOAD, so that it sees what Python, Rust (safetensors, tokenizers) and C++ write alike. A process arms
 * it for one folder (shim.py). At a point of its choice the process is killed, before the call or in the middle of a
 * write, or the call fails. A journal tells what was done, for the model of a power cut (power_cut.py).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Kinds of calls; which of them fail is a mask of these. shim.py has the same numbers. */
enum { CREATE = 1, WRITE = 2, SYNC = 4, RENAME = 8, REMOVE = 16 };
/* What happens at the point. */
enum { NOTHING, KILL, TEAR, FAIL_ON, TERM };

static struct {
    pid_t pid;          /* forked children of the process are left alone */
    char root[PATH_MAX];
    size_t length;
    long count, at;
    int action, error, fails;
    int journal;        /* descriptor, -1: none */
    char kept[PATH_MAX]; /* a folder where each file has a second name, by its inode; "": none */
    double clock;       /* seconds added to the wall clock */
} armed = {.journal = -1};

long faults_count(void) { return armed.count; }
void faults_clock(double seconds) { armed.clock += seconds; }

int faults_arm(const char *root, long at, int action, int error, int fails, const char *journal, const char *kept) {
    armed.pid = getpid();
    armed.length = strlen(strncpy(armed.root, root, PATH_MAX - 1));
    armed.count = 0, armed.at = at, armed.action = action, armed.error = error, armed.fails = fails;
    strncpy(armed.kept, kept, PATH_MAX - 1);
    if (!*journal) return 0;
    armed.journal = syscall(SYS_openat, AT_FDCWD, journal, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    return armed.journal < 0 ? errno : 0;
}

static int is_armed(void) { return armed.length && armed.pid == getpid(); }

static void path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[size < 0 ? 0 : size] = 0;
}

static void path_at(int folder, const char *name, char *path) {
    if (*name == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return;
    }
    char base[PATH_MAX];
    if (folder != AT_FDCWD) path_of(folder, base);
    else if (!getcwd(base, sizeof base)) *base = 0;
    if ((size_t)snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) *path = 0;
}

static int is_inside(const char *path) {
    return !strncmp(path, armed.root, armed.length) && (!path[armed.length] || path[armed.length] == '/');
}

static void die(void) {
    syscall(SYS_kill, armed.pid, SIGKILL);
    for (;;) pause();
}

static __thread long met; /* number of the call that this thread makes */

/* 0: the call may be made; 1: it fails, errno says why; 2: half of a write is made, and the process ends or fails then. */
static int meet(int kind, const char *path, const char *other) {
    if (!is_inside(path) && !is_inside(other)) return 0;
    long number = met = __atomic_add_fetch(&armed.count, 1, __ATOMIC_SEQ_CST);
    int here = number == armed.at;
    if (here && armed.action == KILL) die();
    if (here && armed.action == TEAR) return 2;
    if (here && armed.action == TERM) syscall(SYS_kill, armed.pid, SIGTERM);
    if (armed.action != FAIL_ON || number < armed.at || !(armed.fails & kind)) return 0;
    if (here && kind == WRITE && armed.error != EROFS) return 2;
    errno = armed.error;
    return 1;
}

static void note(const char *call, int fd, const char *path, const char *other) {
    if (armed.journal < 0 || (!is_inside(path) && !is_inside(other))) return;
    struct stat found = {0};
    if (fd >= 0) fstat(fd, &found);
    else if (lstat(*other ? other : path, &found)) found.st_ino = 0;
    char line[3 * PATH_MAX];
    int size = snprintf(line, sizeof line, "%ld\t%s\t%lu\t%ld\t%s\t%s\n", met, call, (unsigned long)found.st_ino,
                        (long)found.st_size, path, other);
    syscall(SYS_write, armed.journal, line, size);
}

static void keep(int fd, const char *path) {
    struct stat found;
    char name[PATH_MAX + 32];
    if (!*armed.kept || !is_inside(path) || fstat(fd, &found) || !S_ISREG(found.st_mode)) return;
    snprintf(name, sizeof name, "%s/%lu", armed.kept, (unsigned long)found.st_ino);
    int before = errno;
    syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, name, 0);
    errno = before;
}

/* ---- files are made ---- */

static int open_at(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    int writes = is_armed() && (flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR)) && name;
    if (!writes) return syscall(SYS_openat, folder, name, flags, mode);
    path_at(folder, name, path);
    int what = meet(CREATE, path, "");
    if (what == 1) return -1;
    if (what == 2) die();
    int fd = syscall(SYS_openat, folder, name, flags, mode);
    if (fd >= 0) keep(fd, path), note(flags & O_TRUNC ? "truncate" : "open", fd, path, "");
    return fd;
}

#define MODE(last)                                             \
    mode_t mode = 0;                                           \
    if (last & (O_CREAT | O_TMPFILE)) {                        \
        va_list rest;                                          \
        va_start(rest, last);                                  \
        mode = va_arg(rest, mode_t);                           \
        va_end(rest);                                          \
    }

int open(const char *name, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, name, flags, mode); }
int openat(int folder, const char *name, int flags, ...) { MODE(flags) return open_at(folder, name, flags, mode); }
int openat64(int folder, const char *name, int flags, ...) { MODE(flags) return open_at(folder, name, flags, mode); }
int creat(const char *name, mode_t mode) { return open_at(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* ---- and written ---- */

/* `made` is the call; `half` the same for half of the bytes. */
#define CHANGE(kind, call, fd, made, half)                        \
    char path[PATH_MAX];                                          \
    if (!is_armed()) return made;                                 \
    path_of(fd, path);                                            \
    int what = meet(kind, path, "");                              \
    if (what == 1) return -1;                                     \
    if (what == 2 && armed.action == FAIL_ON) return half;        \
    if (what == 2) { (void)!(half); die(); }                      \
    long result = made;                                           \
    if (result >= 0) keep(fd, path), note(call, fd, path, "");    \
    return result;

ssize_t write(int fd, const void *data, size_t size) {
    CHANGE(WRITE, "write", fd, syscall(SYS_write, fd, data, size), syscall(SYS_write, fd, data, (size + 1) / 2))
}
ssize_t writev(int fd, const struct iovec *parts, int number) {
    CHANGE(WRITE, "write", fd, syscall(SYS_writev, fd, parts, number), syscall(SYS_writev, fd, parts, (number + 1) / 2))
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    CHANGE(WRITE, "write", fd, syscall(SYS_pwrite64, fd, data, size, at), syscall(SYS_pwrite64, fd, data, size / 2, at))
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return pwrite(fd, data, size, at); }
ssize_t sendfile(int fd, int from, off_t *at, size_t size) {
    CHANGE(WRITE, "write", fd, syscall(SYS_sendfile, fd, from, at, size), syscall(SYS_sendfile, fd, from, at, size / 2))
}
ssize_t sendfile64(int fd, int from, off_t *at, size_t size) { return sendfile(fd, from, at, size); }
ssize_t copy_file_range(int from, off_t *in, int fd, off_t *out, size_t size, unsigned flags) {
    CHANGE(WRITE, "write", fd, syscall(SYS_copy_file_range, from, in, fd, out, size, flags),
           syscall(SYS_copy_file_range, from, in, fd, out, size / 2, flags))
}
int ftruncate(int fd, off_t size) {
    CHANGE(WRITE, "truncate", fd, syscall(SYS_ftruncate, fd, size), 0)
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }
int fsync(int fd) { CHANGE(SYNC, "sync", fd, syscall(SYS_fsync, fd), 0) }
int fdatasync(int fd) { CHANGE(SYNC, "sync", fd, syscall(SYS_fdatasync, fd), 0) }

/* ---- names ---- */

#define NAMES(kind, call, folder, name, to, new, made)           \
    char path[PATH_MAX], other[PATH_MAX] = "";                   \
    if (!is_armed()) return made;                                \
    path_at(folder, name, path);                                 \
    if (*(new)) path_at(to, new, other);                         \
    int what = meet(kind, path, other);                          \
    if (what == 1) return -1;                                    \
    if (what == 2) die();                                        \
    int result = made;                                           \
    if (!result) note(call, -1, path, other);                    \
    return result;

int renameat2(int from, const char *name, int to, const char *new, unsigned flags) {
    NAMES(RENAME, "rename", from, name, to, new, syscall(SYS_renameat2, from, name, to, new, flags))
}
int renameat(int from, const char *name, int to, const char *new) { return renameat2(from, name, to, new, 0); }
int rename(const char *name, const char *new) { return renameat2(AT_FDCWD, name, AT_FDCWD, new, 0); }
int linkat(int from, const char *name, int to, const char *new, int flags) {
    NAMES(CREATE, "link", from, name, to, new, syscall(SYS_linkat, from, name, to, new, flags))
}
int link(const char *name, const char *new) { return linkat(AT_FDCWD, name, AT_FDCWD, new, 0); }
int mkdirat(int folder, const char *name, mode_t mode) {
    NAMES(CREATE, "mkdir", folder, name, 0, "", syscall(SYS_mkdirat, folder, name, mode))
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }
int unlinkat(int folder, const char *name, int flags) {
    NAMES(REMOVE, flags & AT_REMOVEDIR ? "rmdir" : "unlink", folder, name, 0, "", syscall(SYS_unlinkat, folder, name, flags))
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

/* ---- the clock ---- */

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*original)(clockid_t, struct timespec *);
    if (!original) original = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = original(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += (time_t)armed.clock;
    return result;
}
