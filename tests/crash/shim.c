/* Counts the calls that change files below two folders, across all threads, and strikes one.
 *
 * Preloaded into a whole process, it does nothing until `shim_arm` names folders, a call and
 * a fault. The counts lie in memory that the parent shares, so that they outlive a kill.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utime.h>

enum kind { WRITE, SYNC, RENAME, LINK, UNLINK, MAKE, CHANGE, KINDS };

/* What befalls the process: the order is that of `zygote.Fault`. */
enum fault { NONE, KILL, TORN, ERROR, FULL, DEAD, CUT };

struct plan {
    char roots[2][PATH_MAX]; /* absolute; the second may be empty */
    char within[64];         /* only paths that have this in them count */
    int kind, nth, fault, error;
    int flags[2]; /* of EXT4_IOC_SHUTDOWN, a power cut */
};

struct shared {
    atomic_int calls[KINDS];
    atomic_int struck;
};

static struct plan plan;
static struct shared *shared;

#define EXT4_IOC_SHUTDOWN _IOR('X', 125, unsigned)
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void shim_arm(const struct plan *wanted, struct shared *counts)
{
    plan = *wanted;
    shared = counts;
}

static int below(const char *path)
{
    if (!strstr(path, plan.within))
        return 0;
    for (int i = 0; i < 2; i++) {
        size_t length = strlen(plan.roots[i]);
        if (length && !strncmp(path, plan.roots[i], length) && (!path[length] || path[length] == '/'))
            return 1;
    }
    return 0;
}

static int descriptor_below(int fd)
{
    char link[32], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
    return below(path);
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static void cut_power(void)
{
    for (int i = 0; i < 2; i++) {
        int fd = REAL(open)(plan.roots[i], O_RDONLY | O_DIRECTORY);
        unsigned flags = (unsigned)plan.flags[i];
        ioctl(fd, EXT4_IOC_SHUTDOWN, &flags);
    }
    die();
}

/* Counts a call; returns what befalls it: NONE, TORN, or ERROR with errno set. */
static enum fault befalls(enum kind kind)
{
    int count = atomic_fetch_add(&shared->calls[kind], 1) + 1;
    int strikes = (int)kind == plan.kind && count == plan.nth;
    int struck = strikes ? (atomic_store(&shared->struck, 1), 1) : atomic_load(&shared->struck);
    errno = plan.error;
    switch (plan.fault) {
    case KILL:
        if (strikes)
            die();
        return NONE;
    case CUT:
        if (strikes)
            cut_power();
        return NONE;
    case TORN:
        return strikes ? TORN : NONE;
    case ERROR:
        return strikes ? ERROR : NONE;
    case FULL: /* what takes no room still succeeds */
        return struck && kind != UNLINK && kind != CHANGE && kind != SYNC ? ERROR : NONE;
    case DEAD:
        return struck ? ERROR : NONE;
    default:
        return NONE;
    }
}

#define ON_PATH(kind, path) (shared && below(path) ? befalls(kind) : NONE)
#define ON_FILE(kind, fd) (shared && descriptor_below(fd) ? befalls(kind) : NONE)

#define SHIM_WRITE(name, signature, size, full, half)                                             \
    ssize_t name signature                                                                         \
    {                                                                                              \
        enum fault fault = ON_FILE(WRITE, fd);                                                     \
        if (fault == ERROR)                                                                        \
            return -1;                                                                             \
        if (fault == TORN) {                                                                       \
            (void)!REAL(name) half;                                                                \
            die();                                                                                 \
        }                                                                                          \
        return REAL(name) full;                                                                    \
    }

SHIM_WRITE(write, (int fd, const void *data, size_t size), size, (fd, data, size),
           (fd, data, size / 2))
SHIM_WRITE(pwrite, (int fd, const void *data, size_t size, off_t at), size,
           (fd, data, size, at), (fd, data, size / 2, at))
SHIM_WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t at), size,
           (fd, data, size, at), (fd, data, size / 2, at))
SHIM_WRITE(writev, (int fd, const struct iovec *parts, int count), count, (fd, parts, count),
           (fd, parts, count / 2))

#define SHIM(name, signature, where, arguments)                                                    \
    int name signature { return where == NONE ? REAL(name) arguments : -1; }

SHIM(fsync, (int fd), ON_FILE(SYNC, fd), (fd))
SHIM(fdatasync, (int fd), ON_FILE(SYNC, fd), (fd))
SHIM(ftruncate, (int fd, off_t size), ON_FILE(CHANGE, fd), (fd, size))
SHIM(ftruncate64, (int fd, off64_t size), ON_FILE(CHANGE, fd), (fd, size))
SHIM(fchmod, (int fd, mode_t mode), ON_FILE(CHANGE, fd), (fd, mode))
SHIM(fchown, (int fd, uid_t user, gid_t group), ON_FILE(CHANGE, fd), (fd, user, group))
SHIM(utimensat, (int at, const char *path, const struct timespec times[2], int flags),
     ON_PATH(CHANGE, path), (at, path, times, flags))
SHIM(utimes, (const char *path, const struct timeval times[2]), ON_PATH(CHANGE, path),
     (path, times))
SHIM(utime, (const char *path, const struct utimbuf *times), ON_PATH(CHANGE, path), (path, times))
SHIM(chmod, (const char *path, mode_t mode), ON_PATH(CHANGE, path), (path, mode))
SHIM(fchmodat, (int at, const char *path, mode_t mode, int flags), ON_PATH(CHANGE, path),
     (at, path, mode, flags))
SHIM(rename, (const char *from, const char *to), ON_PATH(RENAME, to), (from, to))
SHIM(renameat, (int a, const char *from, int b, const char *to), ON_PATH(RENAME, to),
     (a, from, b, to))
SHIM(link, (const char *from, const char *to), ON_PATH(LINK, to), (from, to))
SHIM(linkat, (int a, const char *from, int b, const char *to, int flags), ON_PATH(LINK, to),
     (a, from, b, to, flags))
SHIM(unlink, (const char *path), ON_PATH(UNLINK, path), (path))
SHIM(unlinkat, (int at, const char *path, int flags), ON_PATH(UNLINK, path), (at, path, flags))
SHIM(rmdir, (const char *path), ON_PATH(UNLINK, path), (path))
SHIM(mkdir, (const char *path, mode_t mode), ON_PATH(MAKE, path), (path, mode))
SHIM(mkdirat, (int at, const char *path, mode_t mode), ON_PATH(MAKE, path), (at, path, mode))

/* These return their error. */
#define SHIM_ALLOCATE(name, offset)                                                                \
    int name(int fd, offset from, offset size)                                                     \
    {                                                                                              \
        return ON_FILE(CHANGE, fd) == NONE ? REAL(name)(fd, from, size) : plan.error;              \
    }

SHIM_ALLOCATE(posix_fallocate, off_t)
SHIM_ALLOCATE(posix_fallocate64, off64_t)

#define SHIM_OPEN(name, signature, arguments)                                                      \
    int name signature                                                                             \
    {                                                                                              \
        mode_t mode = 0;                                                                           \
        if (flags & O_CREAT) {                                                                     \
            va_list more;                                                                          \
            va_start(more, flags);                                                                 \
            mode = va_arg(more, mode_t);                                                           \
            va_end(more);                                                                          \
            if (ON_PATH(MAKE, path) != NONE)                                                       \
                return -1;                                                                         \
        }                                                                                          \
        return REAL(name) arguments;                                                               \
    }

SHIM_OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
SHIM_OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
SHIM_OPEN(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode))
SHIM_OPEN(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode))
