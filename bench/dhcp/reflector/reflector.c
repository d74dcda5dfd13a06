/* A server that does nothing but turn every question on 67 and 4011 into a reply: what the load generator can drive.
 *
 * reflector DEVICE ADDRESS FILE; ends when it is killed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, ROOM = 1536, FIXED = 240, BYTES = 16 << 20 };

static unsigned char data[BATCH][ROOM];
static struct mmsghdr messages[BATCH];
static struct iovec parts[BATCH];
static struct sockaddr_in from[BATCH];
static struct in_addr own;
static const char *file_name;

static int open_port(const char *device, unsigned port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, room = BYTES, fd = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, strlen(device) + 1) ||
        bind(fd, (struct sockaddr *)&at, sizeof at)) {
        perror("reflector");
        exit(2);
    }
    return fd;
}

static const unsigned char *option(const unsigned char *at, const unsigned char *end, unsigned code) {
    for (; at + 2 <= end && *at != 255; at += 2 + at[1]) {
        while (at < end && !*at) at++;
        if (at + 2 <= end && *at == code && at + 2 + at[1] <= end) return at;
    }
    return NULL;
}

static unsigned put(unsigned char *at, const void *bytes, unsigned length) {
    memcpy(at, bytes, length);
    return length;
}

/* The question becomes its reply in the same buffer; 300 bytes at least. */
static unsigned answer(unsigned char *packet, unsigned length, int type) {
    unsigned char options[128], *at = options;
    const unsigned char *end = packet + length, *uuid = option(packet + FIXED, end, 97),
                        *vendor = option(packet + FIXED, end, 43);
    at += put(at, (unsigned char[3]){53, 1, type}, 3);
    at += put(at, "\x36\x04", 2);
    at += put(at, &own, 4);
    at += put(at, "\x3c\x09PXEClient", 11);
    if (uuid && uuid[1] == 17) at += put(at, uuid, 19);
    at += put(at, vendor ? "\x2b\x0a\x06\x01\x08\x47\x04\x80\x00\x00\x00\xff" : "\x2b\x04\x06\x01\x08\xff", vendor ? 12 : 6);
    *at++ = 255;
    packet[0] = 2;
    memcpy(packet + 20, &own, 4);
    memset(packet + 44, 0, 192);
    strncpy((char *)packet + 108, file_name, 127);
    memset(packet + FIXED, 0, 60);
    memcpy(packet + FIXED, options, at - options);
    length = FIXED + (at - options);
    return length < 300 ? 300 : length;
}

static void serve(int fd, int on_67) {
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){data[i], ROOM};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof *from, .msg_iov = &parts[i],
                                              .msg_iovlen = 1};
    }
    int got = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < got; i++) {
        unsigned length = messages[i].msg_len;
        parts[i].iov_len = length < FIXED ? 0 : answer(data[i], length, on_67 ? 2 : 5);
        if (on_67) from[i] = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(68), .sin_addr.s_addr = ~0u};
    }
    for (int sent = 0; sent < got;) {
        int n = sendmmsg(fd, messages + sent, got - sent, 0);
        sent += n > 0 ? n : 1;
    }
}

int main(int argc, char **argv) {
    if (argc != 4 || inet_pton(AF_INET, argv[2], &own) != 1) return 2;
    file_name = argv[3];
    struct pollfd ports[2] = {{open_port(argv[1], 67), POLLIN, 0}, {open_port(argv[1], 4011), POLLIN, 0}};
    for (;;) {
        poll(ports, 2, -1);
        for (int i = 0; i < 2; i++)
            if (ports[i].revents) serve(ports[i].fd, !i);
    }
}
