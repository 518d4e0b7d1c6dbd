/* The upstream server: one thread, any number of connections; see load.h for what it understands. */
#include "load.h"

enum state { COMMAND, SENDING, DISCARDING, ECHOING };

struct connection {
    int fd;
    enum state state;
    bool reset;       /* echoing: end with a reset */
    bool needles;     /* sending */
    uint64_t left;    /* sending, discarding */
    uint64_t at;      /* sending: position, modulo BLOCK */
    uint8_t command[COMMAND_LENGTH];
    unsigned command_length;
    uint8_t *pending; /* echoing: what the socket did not take */
    size_t pending_length;
};

static uint8_t zeros[BLOCK], needles[BLOCK], scratch[BLOCK];

/* Connections are found by descriptor: the array grows with the highest one. */
static struct connection *connections;
static unsigned capacity;

static struct connection *connection_of(int fd) {
    if ((unsigned)fd >= capacity) {
        unsigned wanted = (unsigned)fd * 2 + 64;
        connections = realloc(connections, wanted * sizeof *connections);
        if (!connections)
            fail("out of memory");
        capacity = wanted;
    }
    return &connections[fd];
}

static void end(struct connection *connection) {
    if (connection->reset) {
        struct linger abort = {.l_onoff = 1, .l_linger = 0};
        setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
    }
    free(connection->pending);
    close(connection->fd);
}

/* Each step below says whether the connection goes on. */
static bool send_more(int epoll, struct connection *connection) {
    while (connection->left) {
        uint64_t most = BLOCK - connection->at;
        size_t length = (size_t)(connection->left < most ? connection->left : most);
        ssize_t sent = send(connection->fd, (connection->needles ? needles : zeros) + connection->at, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            watch(epoll, connection->fd, EPOLLOUT, (uint32_t)connection->fd);
            return true;
        }
        if (sent < 0)
            return false;
        connection->at = (connection->at + (uint64_t)sent) % BLOCK;
        connection->left -= (uint64_t)sent;
    }
    connection->state = COMMAND;
    watch(epoll, connection->fd, EPOLLIN, (uint32_t)connection->fd);
    return true;
}

static bool discard(struct connection *connection) {
    size_t most = connection->left < BLOCK ? (size_t)connection->left : BLOCK;
    ssize_t got = recv(connection->fd, scratch, most, MSG_TRUNC);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    connection->left -= (uint64_t)got;
    if (!connection->left) {
        connection->state = COMMAND;
        return send(connection->fd, "d", 1, MSG_NOSIGNAL) == 1;
    }
    return true;
}

static bool keep_pending(int epoll, struct connection *connection, const uint8_t *data, size_t length) {
    uint8_t *copy = length ? malloc(length) : NULL;
    if (length && !copy)
        fail("out of memory");
    if (length)
        memcpy(copy, data, length);
    free(connection->pending);
    connection->pending = copy;
    connection->pending_length = length;
    watch(epoll, connection->fd, length ? EPOLLOUT : EPOLLIN, (uint32_t)connection->fd);
    return true;
}

static bool echo_out(int epoll, struct connection *connection, const uint8_t *data, size_t length) {
    ssize_t sent = send(connection->fd, data, length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return false;
    size_t taken = sent < 0 ? 0 : (size_t)sent;
    if (taken < length || connection->pending)
        return keep_pending(epoll, connection, data + taken, length - taken);
    return true;
}

static bool echo(int epoll, struct connection *connection) {
    if (connection->pending)
        return echo_out(epoll, connection, connection->pending, connection->pending_length);
    ssize_t got = recv(connection->fd, scratch, 65536, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    return echo_out(epoll, connection, scratch, (size_t)got);
}

static bool command(int epoll, struct connection *connection) {
    unsigned have = connection->command_length;
    ssize_t got = recv(connection->fd, connection->command + have, have ? COMMAND_LENGTH - have : 1, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    have = connection->command_length += (unsigned)got;
    uint8_t mode = connection->command[0];
    if (mode == 'E' || mode == 'R') {
        connection->reset = mode == 'R';
        connection->state = ECHOING;
        /* With what came along, in one piece: a 64-byte message is one read and one write here as well. */
        scratch[0] = mode;
        got = recv(connection->fd, scratch + 1, 65535, 0);
        return echo_out(epoll, connection, scratch, got > 0 ? (size_t)got + 1 : 1);
    }
    if (have < COMMAND_LENGTH)
        return true;
    connection->command_length = 0;
    connection->left = read_count(connection->command);
    connection->at = 0;
    connection->needles = mode == 'M';
    if (mode == 'D') {
        connection->state = DISCARDING;
        return true;
    }
    if (mode != 'S' && mode != 'M')
        return false;
    connection->state = SENDING;
    return send_more(epoll, connection);
}

static void accept_all(int epoll, int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *connection = connection_of(fd);
        memset(connection, 0, sizeof *connection);
        connection->fd = fd;
        watch(epoll, fd, EPOLLIN, (uint32_t)fd);
    }
}

static void step(int epoll, struct connection *connection) {
    bool alive;
    switch (connection->state) {
    case COMMAND: alive = command(epoll, connection); break;
    case SENDING: alive = send_more(epoll, connection); break;
    case DISCARDING: alive = discard(connection); break;
    default: alive = echo(epoll, connection); break;
    }
    if (!alive)
        end(connection);
}

/* Prints its port; lives until stdin ends. */
void serve(void) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), epoll = epoll_create1(EPOLL_CLOEXEC);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        fail("listen: %s", strerror(errno));
    getsockname(listener, (struct sockaddr *)&address, &length);
    fill_with_needles(needles);
    watch(epoll, listener, EPOLLIN, (uint32_t)listener);
    watch(epoll, 0, EPOLLIN, 0);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[256];
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int index = 0; index < ready; index++) {
            int fd = (int)events[index].data.u32;
            if (fd == 0)
                return;
            if (fd == listener)
                accept_all(epoll, listener);
            else
                step(epoll, connection_of(fd));
        }
    }
}
