/* load serve | load bulk|ping-pong|connect PORT [NAME=VALUE]...: see load.h; the names are those of `set`. */
#include "load.h"
#include <signal.h>

static void set(struct options *options, const char *text) {
    const char *equals = strchr(text, '=');
    if (!equals)
        fail("expected NAME=VALUE");
    size_t length = (size_t)(equals - text);
    double value = atof(equals + 1);
#define IS(name) (length == sizeof name - 1 && !strncmp(text, name, length))
    if (IS("connections")) options->connections = (unsigned)value;
    else if (IS("outstanding")) options->outstanding = (unsigned)value;
    else if (IS("sources")) options->sources = (unsigned)value;
    else if (IS("bytes")) options->bytes = (uint64_t)value;
    else if (IS("messages")) options->messages = (uint64_t)value;
    else if (IS("seconds")) options->seconds = value;
    else if (IS("size")) options->size = (unsigned)value;
    else if (IS("to_upstream")) options->to_upstream = value != 0;
    else if (IS("needles")) options->needles = value != 0;
    else if (IS("reset")) options->reset = value != 0;
    else fail("no such option");
}

int main(int count, char **arguments) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    if (count == 2 && !strcmp(arguments[1], "serve")) {
        serve();
        return 0;
    }
    if (count < 3)
        fail("load serve | load bulk|ping-pong|connect PORT [NAME=VALUE]...");
    struct options options = {.connections = 1, .sources = 16, .bytes = 100u << 20, .size = 64, .reset = true};
    options.target.sin_family = AF_INET;
    options.target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    options.target.sin_port = htons((uint16_t)atoi(arguments[2]));
    for (int index = 3; index < count; index++)
        set(&options, arguments[index]);
    if (!options.connections || !options.sources || options.sources > 200 || !options.size)
        fail("connections, sources (at most 200) and size are at least 1");
    if (!strcmp(arguments[1], "bulk")) run_bulk(&options);
    else if (!strcmp(arguments[1], "ping-pong")) run_ping_pong(&options);
    else if (!strcmp(arguments[1], "connect")) run_connect(&options);
    else fail("no such workload");
    return 0;
}
