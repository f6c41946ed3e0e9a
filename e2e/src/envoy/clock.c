/* A wall clock that is wrong by KAERU_CLOCK_SHIFT_S seconds, or by as many as the file KAERU_CLOCK_SHIFT_FILE says at that
 * moment, for one process, preloaded into it. The monotonic clock, by which Envoy's timers run, stays right.
 *
 * Debian's libfaketime does the same for most programs, but not for Envoy: it looks its functions up from within the
 * first call of one of them, the allocator that Envoy brings along makes such a call (poll) while it is being set up,
 * the look-up allocates, and the process waits for itself before it has begun. So nothing here allocates or looks up. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift_by(const char *file) {
  char text[24] = {0};
  int before = errno;
  int opened = (int)syscall(SYS_openat, AT_FDCWD, file, O_RDONLY | O_CLOEXEC);
  if (opened >= 0) {
    if (syscall(SYS_read, opened, text, sizeof text - 1) < 0) text[0] = 0;
    syscall(SYS_close, opened);
  }
  errno = before;
  return atol(text);
}

static long shift_s(void) {
  const char *file = getenv("KAERU_CLOCK_SHIFT_FILE");
  if (file) return shift_by(file);
  const char *text = getenv("KAERU_CLOCK_SHIFT_S");
  return text ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = (int)syscall(SYS_clock_gettime, clock, now);
  if (!failed && clock == CLOCK_REALTIME) now->tv_sec += shift_s();
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec exact;
  int failed = clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return failed;
}

time_t time(time_t *into) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (into) *into = now.tv_sec;
  return now.tv_sec;
}
