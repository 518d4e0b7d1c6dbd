/* Clock, histogram, sockets, and the talk with the caller. */
#include "load.h"

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Values below STEPS have a slot each; above, the top bit chooses the octave and the next five the step. */
static unsigned slot_of(uint64_t ns) {
    if (ns < STEPS)
        return (unsigned)ns;
    unsigned octave = 63u - (unsigned)__builtin_clzll(ns);
    return (octave - 4) * STEPS + (unsigned)((ns >> (octave - 5)) & (STEPS - 1));
}

static double middle_of(unsigned slot) {
    if (slot < STEPS)
        return slot;
    unsigned octave = slot / STEPS + 4, step = slot % STEPS;
    double width = (double)(1ull << (octave - 5));
    return (STEPS + step) * width + width / 2;
}

void record(struct histogram *times, uint64_t ns) {
    times->counts[slot_of(ns)]++;
    times->total++;
    if (ns > times->largest)
        times->largest = ns;
}

double percentile_us(const struct histogram *times, double fraction) {
    uint64_t wanted = (uint64_t)(fraction * (double)times->total), seen = 0;
    for (unsigned slot = 0; slot < 64 * STEPS; slot++) {
        seen += times->counts[slot];
        if (seen > wanted)
            return middle_of(slot) / 1000;
    }
    return (double)times->largest / 1000;
}

void fail(const char *format, ...) {
    char reason[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    printf("{\"error\": \"%s\"}\n", reason);
    exit(1);
}

static bool read_line(void) {
    char letter;
    while (read(0, &letter, 1) == 1)
        if (letter == '\n')
            return true;
    return false;
}

void wait_for_go(void) {
    puts("ready");
    fflush(stdout);
    if (!read_line())
        exit(0); /* the caller has gone */
}

void wait_for_end(void) {
    fflush(stdout);
    while (read_line())
        continue;
}

int dial(const struct options *options, unsigned index) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        fail("socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(0x7f000002u + index % options->sources);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&source, sizeof source))
        fail("bind: %s", strerror(errno));
    if (connect(fd, (const struct sockaddr *)&options->target, sizeof options->target) && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    return fd;
}

void check_connected(int fd) {
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error)
        fail("connect: %s", strerror(error));
}

void watch(int epoll, int fd, uint32_t events, uint32_t index) {
    struct epoll_event event = {.events = events, .data.u32 = index};
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
        fail("epoll_ctl: %s", strerror(errno));
}

int wait_ready(int epoll, struct epoll_event *events, int most) {
    int ready;
    do
        ready = epoll_wait(epoll, events, most, STALL_MS);
    while (ready < 0 && errno == EINTR);
    if (ready < 0)
        fail("epoll_wait: %s", strerror(errno));
    if (ready == 0)
        fail("nothing moved for %d s", STALL_MS / 1000);
    return ready;
}

/* For what fits an empty send buffer: messages and commands. */
void send_all_now(int fd, const void *data, size_t length) {
    ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
    if (sent < 0)
        fail("send: %s", strerror(errno));
    if ((size_t)sent != length)
        fail("send: %zd of %zu bytes fitted", sent, length);
}

void write_command(uint8_t *command, char mode, uint64_t count) {
    command[0] = (uint8_t)mode;
    for (unsigned byte = 0; byte < 8; byte++)
        command[1 + byte] = (uint8_t)(count >> (8 * byte));
}

uint64_t read_count(const uint8_t *command) {
    uint64_t count = 0;
    for (unsigned byte = 0; byte < 8; byte++)
        count |= (uint64_t)command[1 + byte] << (8 * byte);
    return count;
}

void fill_with_needles(uint8_t *block) {
    for (size_t at = NEEDLE_AT; at < BLOCK; at += NEEDLE_STEP)
        memcpy(block + at, NEEDLE, NEEDLE_LENGTH);
}
