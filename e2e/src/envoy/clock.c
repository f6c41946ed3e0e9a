/* A wall clock that is wrong by KAERU_CLOCK_SHIFT_S seconds, for one process, preloaded into it. The monotonic clock,
 * by which Envoy's timers run, stays right.
 *
 * Debian's libfaketime does the same for most programs, but not for Envoy: it looks its functions up from within the
 * first call of one of them, the allocator that Envoy brings along makes such a call (poll) while it is being set up,
 * the look-up allocates, and the process waits for itself before it has begun. So nothing here allocates or looks up. */

#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift_s(void) {
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
