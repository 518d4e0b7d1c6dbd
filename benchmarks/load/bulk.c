/* Bulk: some flows, so many bytes each, in one direction. Measured from the command to the last byte's arrival. */
#include "load.h"

#define WARM_UP (4u << 20)

struct flow {
    int fd;
    uint64_t left;      /* still to come, or still to send */
    uint64_t at;        /* position in the stream, for the needles */
    bool answered;      /* to_upstream: the server has it all */
};

static uint8_t block[BLOCK], scratch[BLOCK];
static uint64_t found, replaced;

/* Needles that lie whole in what was just read: was each replaced? */
static void look_for_needles(uint64_t at, size_t length) {
    uint64_t step = at / NEEDLE_STEP * NEEDLE_STEP + NEEDLE_AT;
    for (uint64_t place = step < at ? step + NEEDLE_STEP : step; place + NEEDLE_LENGTH <= at + length; place += NEEDLE_STEP) {
        found += !memcmp(scratch + (place - at), NEEDLE, NEEDLE_LENGTH);
        replaced += !memcmp(scratch + (place - at), REPLACED, NEEDLE_LENGTH);
    }
}

static bool receive(const struct options *options, struct flow *flow) {
    /* MSG_TRUNC takes the bytes without copying them: the load must cost less than what it measures. */
    ssize_t got = recv(flow->fd, scratch, BLOCK, options->needles ? 0 : MSG_TRUNC);
    if (got < 0 && errno == EAGAIN)
        return false;
    if (got < 0)
        fail("recv: %s", strerror(errno));
    if (got == 0)
        fail("the flow ended %llu bytes early", (unsigned long long)flow->left);
    if ((uint64_t)got > flow->left)
        fail("%lld bytes too many", (long long)got - (long long)flow->left);
    if (options->needles)
        look_for_needles(flow->at, (size_t)got);
    flow->at += (uint64_t)got;
    flow->left -= (uint64_t)got;
    return flow->left == 0;
}

static bool transmit(int epoll, struct flow *flow, uint32_t index) {
    while (flow->left) {
        uint64_t most = BLOCK - flow->at;
        size_t length = (size_t)(flow->left < most ? flow->left : most);
        ssize_t sent = send(flow->fd, block + flow->at, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            return false;
        if (sent < 0)
            fail("send: %s", strerror(errno));
        flow->at = (flow->at + (uint64_t)sent) % BLOCK;
        flow->left -= (uint64_t)sent;
        if (!flow->left)
            watch(epoll, flow->fd, EPOLLIN, index);
        else if (sent < (ssize_t)length)
            return false;
    }
    char answer;
    ssize_t got = recv(flow->fd, &answer, 1, 0);
    if (got < 0 && errno == EAGAIN)
        return false;
    if (got != 1 || answer != 'd')
        fail("no answer after the last byte");
    return true;
}

/* All flows, `bytes` each; returns when the last one is through. */
static void transfer(const struct options *options, int epoll, struct flow *flows, uint64_t bytes) {
    unsigned left = options->connections;
    for (unsigned index = 0; index < options->connections; index++) {
        struct flow *flow = &flows[index];
        uint8_t command[COMMAND_LENGTH];
        write_command(command, options->to_upstream ? 'D' : options->needles ? 'M' : 'S', bytes);
        send_all_now(flow->fd, command, sizeof command);
        flow->left = bytes;
        flow->at = 0;
        watch(epoll, flow->fd, options->to_upstream ? EPOLLOUT : EPOLLIN, index);
    }
    while (left) {
        struct epoll_event events[64];
        int ready = wait_ready(epoll, events, 64);
        for (int event = 0; event < ready; event++) {
            uint32_t index = events[event].data.u32;
            struct flow *flow = &flows[index];
            bool done = options->to_upstream ? transmit(epoll, flow, index) : receive(options, flow);
            if (!done)
                continue;
            left--;
            watch(epoll, flow->fd, 0, index);
        }
    }
}

void run_bulk(const struct options *options) {
    struct flow *flows = calloc(options->connections, sizeof *flows);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!flows)
        fail("out of memory");
    if (options->needles)
        fill_with_needles(block);
    for (unsigned index = 0; index < options->connections; index++) {
        struct epoll_event event;
        flows[index].fd = dial(options, index);
        watch(epoll, flows[index].fd, EPOLLOUT, index);
        wait_ready(epoll, &event, 1);
        check_connected(flows[index].fd);
        watch(epoll, flows[index].fd, 0, index);
    }
    transfer(options, epoll, flows, WARM_UP);
    wait_for_go();
    found = replaced = 0;
    uint64_t began = now_ns();
    transfer(options, epoll, flows, options->bytes);
    double seconds = (double)(now_ns() - began) / 1e9;
    printf("{\"workload\": \"bulk\", \"flows\": %u, \"bytes\": %llu, \"seconds\": %.6f, \"needles_left\": %llu,"
           " \"needles_replaced\": %llu}\n",
           options->connections, (unsigned long long)(options->bytes * options->connections), seconds,
           (unsigned long long)found, (unsigned long long)replaced);
    wait_for_end();
}
