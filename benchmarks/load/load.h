/* The load generator's shared parts: clock, histogram, sockets, and the talk with whoever started us.
 *
 * Every client workload goes the same way: it opens its connections and warms up, prints "ready", waits for a
 * line on stdin, works, prints one line of JSON, and keeps its connections until stdin ends. So the caller can
 * read the proxy's CPU time exactly around the work.
 *
 * What the upstream (serve.c) understands, as the first byte of a connection:
 *   'E'  echo everything, this byte too, until the end; answer FIN with FIN
 *   'R'  the same, but end with a reset: the proxy's side keeps no TIME_WAIT
 *   'S'  and 8 bytes, a little-endian count: send so many zero bytes, then read the next command
 *   'M'  as 'S', with NEEDLE in every NEEDLE_STEP bytes
 *   'D'  and a count: read so many bytes, answer 'd', then read the next command
 */
#ifndef LOAD_H
#define LOAD_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NEEDLE "find-this-needle"
#define REPLACED "FOUND-THE-NEEDLE"
#define NEEDLE_LENGTH 16
#define NEEDLE_STEP 4096
#define NEEDLE_AT 1000 /* where in each step; far from its borders */
#define BLOCK (256 * 1024)
#define COMMAND_LENGTH 9
#define STALL_MS 30000
#define OPENING 64 /* connections on their way at once: less than any proxy's backlog */

struct options {
    struct sockaddr_in target;
    unsigned connections;
    unsigned outstanding; /* messages on their way at once; 0: one per connection */
    unsigned sources;     /* client addresses 127.0.0.2 and up */
    uint64_t bytes;       /* bulk: per flow */
    uint64_t messages;    /* ping-pong, connect: in all; 0: until the time is up */
    double seconds;
    unsigned size;
    bool to_upstream;
    bool needles;
    bool reset;
};

/* Times in nanoseconds, by octave and 32 steps within: an error of 3% at most. */
#define STEPS 32
struct histogram {
    uint64_t counts[64 * STEPS];
    uint64_t total;
    uint64_t largest;
};

uint64_t now_ns(void);
void record(struct histogram *times, uint64_t ns);
double percentile_us(const struct histogram *times, double fraction);

_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void wait_for_go(void);
void wait_for_end(void);

int dial(const struct options *options, unsigned index);
void check_connected(int fd);
void watch(int epoll, int fd, uint32_t events, uint32_t index);
int wait_ready(int epoll, struct epoll_event *events, int most);
void send_all_now(int fd, const void *data, size_t length);
void write_command(uint8_t *command, char mode, uint64_t count);
uint64_t read_count(const uint8_t *command);
void fill_with_needles(uint8_t *block);

void serve(void);
void run_bulk(const struct options *options);
void run_ping_pong(const struct options *options);
void run_connect(const struct options *options);

#endif
