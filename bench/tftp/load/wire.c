/* Datagrams in and out: recvmmsg and sendmmsg over a few sockets that all clients share. */
#include "load.h"
#include <errno.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum { OUT = 256, OUT_BYTES = 640, CONTROL = 96, ROOM = 64 << 20, PER_ROW = 250 };

struct outbox {
    unsigned count;
    struct mmsghdr messages[OUT];
    struct iovec parts[OUT];
    struct sockaddr_in to[OUT];
    unsigned char data[OUT][OUT_BYTES];
    _Alignas(struct cmsghdr) unsigned char control[OUT][CMSG_SPACE(sizeof(struct in_pktinfo))];
};

static int fds[SOCKETS];
static struct outbox *outboxes;
static struct mmsghdr in[BATCH];
static struct iovec in_parts[BATCH];
static struct sockaddr_in in_from[BATCH];
static _Alignas(struct cmsghdr) unsigned char in_control[BATCH][CONTROL];

/* 127.16.0.1, .2 ... .250, 127.16.1.1 ...: no address ends in 0 or 255, which could be taken for a broadcast. */
static uint32_t address_of(unsigned number) {
    return htonl(0x7f100000u + (number / PER_ROW << 8) + number % PER_ROW + 1);
}

struct client *wire_client(uint32_t local) {
    uint32_t at = ntohl(local) - 0x7f100000u, number = (at >> 8) * PER_ROW + (at & 255) - 1;
    return number < settings.clients && address_of(number) == local ? &clients[number] : NULL;
}

static int open_one(unsigned number) {
    struct sockaddr_in any = {.sin_family = AF_INET};
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = number};
    int on = 1, room = ROOM, fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room)) /* needs CAP_NET_ADMIN */
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
    if (settings.gro) setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any) || epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event)) {
        perror("load: socket");
        exit(2);
    }
    return fd;
}

void wire_open(void) {
    size_t largest = settings.gro ? 65536 : settings.block + 4 > 1500 ? settings.block + 4 : 1500;
    unsigned char *memory = malloc(BATCH * (largest + 64));
    outboxes = calloc(SOCKETS, sizeof *outboxes);
    for (unsigned i = 0; i < BATCH; i++) {
        in_parts[i] = (struct iovec){memory + i * (largest + 64), largest + 1}; /* a byte more shows what is too long */
        in[i].msg_hdr.msg_iov = &in_parts[i];
        in[i].msg_hdr.msg_iovlen = 1;
        in[i].msg_hdr.msg_name = &in_from[i];
        in[i].msg_hdr.msg_control = in_control[i];
    }
    for (unsigned i = 0; i < SOCKETS; i++) fds[i] = open_one(i);
    for (unsigned i = 0; i < settings.clients; i++) clients[i].local = address_of(i);
}

static void take(unsigned socket, unsigned n, int64_t now) {
    struct msghdr *header = &in[n].msg_hdr;
    unsigned char *data = in_parts[n].iov_base;
    unsigned length = in[n].msg_len, step = length;
    struct client *c = NULL;
    for (struct cmsghdr *m = CMSG_FIRSTHDR(header); m; m = CMSG_NXTHDR(header, m)) {
        if (m->cmsg_level == IPPROTO_IP && m->cmsg_type == IP_PKTINFO)
            c = wire_client(((struct in_pktinfo *)CMSG_DATA(m))->ipi_addr.s_addr);
        if (m->cmsg_level == IPPROTO_UDP && m->cmsg_type == UDP_GRO) memcpy(&step, CMSG_DATA(m), sizeof(int));
    }
    if (!c || !length) return;
    for (unsigned at = 0; at < length; at += step)
        client_take(c, socket, &in_from[n], data + at, length - at < step ? length - at : step, now);
}

void wire_drain(unsigned socket, int64_t now) {
    int got = BATCH;
    for (unsigned batches = 0; got == BATCH && batches < 16; batches++) {
        for (unsigned i = 0; i < BATCH; i++) {
            in[i].msg_hdr.msg_namelen = sizeof in_from[i];
            in[i].msg_hdr.msg_controllen = CONTROL;
        }
        got = recvmmsg(fds[socket], in, BATCH, 0, NULL);
        for (int i = 0; i < got; i++) take(socket, i, now);
        wire_flush(socket);
    }
}

/* Queued until the end of the batch. */
void wire_send(unsigned socket, uint32_t local, const struct sockaddr_in *to, const void *data, unsigned length) {
    struct outbox *box = &outboxes[socket];
    if (box->count == OUT) wire_flush(socket);
    unsigned n = box->count++;
    struct msghdr *header = &box->messages[n].msg_hdr;
    memcpy(box->data[n], data, length);
    box->to[n] = *to;
    box->parts[n] = (struct iovec){box->data[n], length};
    *header = (struct msghdr){.msg_name = &box->to[n], .msg_namelen = sizeof *to, .msg_iov = &box->parts[n], .msg_iovlen = 1,
                              .msg_control = box->control[n], .msg_controllen = sizeof box->control[n]};
    struct cmsghdr *m = CMSG_FIRSTHDR(header);
    *m = (struct cmsghdr){CMSG_LEN(sizeof(struct in_pktinfo)), IPPROTO_IP, IP_PKTINFO};
    *(struct in_pktinfo *)CMSG_DATA(m) = (struct in_pktinfo){.ipi_spec_dst.s_addr = local};
}

void wire_flush(unsigned socket) {
    struct outbox *box = &outboxes[socket];
    unsigned sent = 0;
    while (sent < box->count) {
        int n = sendmmsg(fds[socket], box->messages + sent, box->count - sent, 0);
        if (n > 0) {
            sent += n;
        } else if (errno != EINTR) { /* one is given up; the client's timer repeats it */
            sent++;
            counts.unsent++;
        }
    }
    box->count = 0;
}
