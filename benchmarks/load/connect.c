/* Connect, send 64 bytes, have them back, close: so many times, some at once. */
#include "load.h"

struct attempt {
    int fd;
    unsigned got;
    bool closing; /* our FIN is out, the answer's is awaited */
    uint64_t began;
};

static struct attempt *attempts;
static uint8_t message[65536];
static struct histogram times;
static unsigned begun;

static void begin(const struct options *options, int epoll, unsigned index) {
    attempts[index] = (struct attempt){.began = now_ns()};
    attempts[index].fd = dial(options, begun++);
    watch(epoll, attempts[index].fd, EPOLLOUT, index);
}

/* Whether the connection has been closed. */
static bool receive(const struct options *options, struct attempt *attempt) {
    static uint8_t scratch[65536];
    ssize_t got = recv(attempt->fd, scratch, sizeof scratch, 0);
    if (got < 0 && errno == EAGAIN)
        return false;
    if (got < 0)
        fail("recv: %s", strerror(errno));
    if (attempt->closing && got == 0) {
        close(attempt->fd);
        return true;
    }
    if (got == 0)
        fail("a connection ended before its answer");
    attempt->got += (unsigned)got;
    if (attempt->got < options->size)
        return false;
    if (!options->reset) {
        shutdown(attempt->fd, SHUT_WR);
        attempt->closing = true;
        return false;
    }
    struct linger abort = {.l_onoff = 1, .l_linger = 0};
    setsockopt(attempt->fd, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
    close(attempt->fd);
    return true;
}

static uint64_t go_round(const struct options *options, int epoll, uint64_t until) {
    uint64_t done = 0, most = options->messages ? options->messages : UINT64_MAX;
    unsigned open = 0;
    for (; open < options->connections && open < most; open++)
        begin(options, epoll, open);
    while (open) {
        struct epoll_event events[256];
        int ready = wait_ready(epoll, events, 256);
        for (int event = 0; event < ready; event++) {
            unsigned index = events[event].data.u32;
            struct attempt *attempt = &attempts[index];
            if (events[event].events & EPOLLOUT) {
                check_connected(attempt->fd);
                watch(epoll, attempt->fd, EPOLLIN, index);
                send_all_now(attempt->fd, message, options->size);
            } else if (receive(options, attempt)) {
                uint64_t now = now_ns();
                record(&times, now - attempt->began);
                done++;
                if (done + open <= most && now < until)
                    begin(options, epoll, index);
                else
                    open--;
            }
        }
    }
    return done;
}

void run_connect(const struct options *options) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    attempts = calloc(options->connections, sizeof *attempts);
    if (!attempts)
        fail("out of memory");
    message[0] = options->reset ? 'R' : 'E';
    struct options warm_up = *options;
    warm_up.messages = 200;
    go_round(&warm_up, epoll, UINT64_MAX);
    memset(&times, 0, sizeof times);
    wait_for_go();
    uint64_t began = now_ns();
    uint64_t done = go_round(options, epoll, options->seconds > 0 ? began + (uint64_t)(options->seconds * 1e9) : UINT64_MAX);
    double seconds = (double)(now_ns() - began) / 1e9;
    printf("{\"workload\": \"connect\", \"at_once\": %u, \"connections\": %llu, \"seconds\": %.6f, \"p50_us\": %.2f,"
           " \"p99_us\": %.2f, \"max_us\": %.2f}\n",
           options->connections, (unsigned long long)done, seconds, percentile_us(&times, 0.50),
           percentile_us(&times, 0.99), (double)times.largest / 1000);
    wait_for_end();
}
