/* Ping-pong: small messages to an echoing upstream, each sent when an earlier one is back. With no message and
 * no time at all it is the idle workload: connections that have spoken once and then are only held. */
#include "load.h"

struct flow {
    int fd;
    unsigned got;   /* of the present message */
    uint64_t sent_at;
};

static struct flow *flows;
static uint8_t message[65536];
static struct histogram times;

/* The flows that have no message on its way, in the order in which they came home. */
static unsigned *resting, resting_first, resting_count;

static void rest(unsigned index, unsigned connections) {
    resting[(resting_first + resting_count++) % connections] = index;
}

static unsigned wake(unsigned connections) {
    unsigned index = resting[resting_first];
    resting_first = (resting_first + 1) % connections;
    resting_count--;
    return index;
}

static void ping(const struct options *options, unsigned index) {
    flows[index].got = 0;
    flows[index].sent_at = now_ns();
    send_all_now(flows[index].fd, message, options->size);
}

/* Whether the message is back whole. */
static bool pong(const struct options *options, struct flow *flow) {
    static uint8_t scratch[65536];
    ssize_t got = recv(flow->fd, scratch, options->size - flow->got, 0);
    if (got < 0 && errno == EAGAIN)
        return false;
    if (got < 0)
        fail("recv: %s", strerror(errno));
    if (got == 0)
        fail("a connection ended in the middle");
    flow->got += (unsigned)got;
    return flow->got == options->size;
}

/* Every connection is made and has had its first answer, so that its upstream leg stands as well. */
static void open_all(const struct options *options, int epoll) {
    unsigned begun = 0, opened = 0;
    while (opened < options->connections) {
        while (begun < options->connections && begun - opened < OPENING) {
            flows[begun].fd = dial(options, begun);
            watch(epoll, flows[begun].fd, EPOLLOUT, begun);
            begun++;
        }
        struct epoll_event events[64];
        int ready = wait_ready(epoll, events, 64);
        for (int event = 0; event < ready; event++) {
            unsigned index = events[event].data.u32;
            if (events[event].events & EPOLLOUT) {
                check_connected(flows[index].fd);
                watch(epoll, flows[index].fd, EPOLLIN, index);
                ping(options, index);
            } else if (pong(options, &flows[index])) {
                opened++;
                rest(index, options->connections);
            }
        }
    }
}

static uint64_t play(const struct options *options, int epoll, uint64_t until) {
    unsigned on_the_way = options->outstanding ? options->outstanding : options->connections;
    uint64_t sent = 0, back = 0, most = options->messages ? options->messages : UINT64_MAX;
    for (; sent < on_the_way && sent < most; sent++)
        ping(options, wake(options->connections));
    while (back < sent) {
        struct epoll_event events[256];
        int ready = wait_ready(epoll, events, 256);
        for (int event = 0; event < ready; event++) {
            unsigned index = events[event].data.u32;
            if (!pong(options, &flows[index]))
                continue;
            uint64_t now = now_ns();
            record(&times, now - flows[index].sent_at);
            back++;
            rest(index, options->connections);
            if (sent < most && now < until) {
                ping(options, wake(options->connections));
                sent++;
            }
        }
    }
    return back;
}

void run_ping_pong(const struct options *options) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    flows = calloc(options->connections, sizeof *flows);
    resting = calloc(options->connections, sizeof *resting);
    if (!flows || !resting)
        fail("out of memory");
    if (options->size > sizeof message || options->outstanding > options->connections)
        fail("a message of at most %zu bytes, at most one on its way per connection", sizeof message);
    message[0] = 'E';
    open_all(options, epoll);
    wait_for_go();
    uint64_t began = now_ns(), back = 0;
    if (options->messages || options->seconds > 0)
        back = play(options, epoll, options->seconds > 0 ? began + (uint64_t)(options->seconds * 1e9) : UINT64_MAX);
    double seconds = (double)(now_ns() - began) / 1e9;
    printf("{\"workload\": \"ping-pong\", \"connections\": %u, \"messages\": %llu, \"seconds\": %.6f,"
           " \"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f}\n",
           options->connections, (unsigned long long)back, seconds, percentile_us(&times, 0.50),
           percentile_us(&times, 0.99), (double)times.largest / 1000);
    wait_for_end();
}
