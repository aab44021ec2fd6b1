// The client of the table: asks the daemon or the floor the same bytes, and tells how long each answer took.
//
//   client SOCKET once  REQUEST                    prints the reply
//   client SOCKET held  REQUEST COUNT              one connection, one request at a time
//   client SOCKET fresh REQUEST COUNT              a connection for each request
//   client SOCKET many  REQUEST COUNT CONNECTIONS  one request in flight on each connection
//   client SOCKET idle  REQUEST COUNT              COUNT connections, each answered once, kept until stdin ends
//   client SOCKET flood REQUEST SECONDS            pipelines without pause and throws the replies away
//   client SOCKET deaf  REQUEST SECONDS            pipelines until nothing more goes in, and never reads
//   client SOCKET knock REQUEST SECONDS            connects, asks, and closes, whatever the answer
//
// held, fresh and many write to stdout: the nanoseconds of the whole, as 8 bytes, then of each answer, as 4.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char SUCCESS[] = "{\"type\":\"RESPONSE\",\"status\":\"success\"";
static char request[2 << 20], reply[12 << 20];
static size_t request_length;
static struct sockaddr_un address;

static void fail(const char *what) {
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(void) {
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return (uint64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

static int dial(void) {
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
		fail("connect");
	return fd;
}

static void ask(int fd) {
	for (size_t sent = 0; sent < request_length;) {
		ssize_t length = send(fd, request + sent, request_length - sent, MSG_NOSIGNAL);
		if (length < 0)
			fail("send");
		sent += length;
	}
}

static size_t hear(int fd) {
	size_t length = 0;
	do {
		ssize_t more = recv(fd, reply + length, sizeof reply - length, 0);
		if (more <= 0)
			fail("recv");
		length += more;
	} while (reply[length - 1] != '\n');
	if (length < sizeof SUCCESS || memcmp(reply, SUCCESS, sizeof SUCCESS - 1) != 0) {
		fprintf(stderr, "no success: %.*s", (int)length, reply);
		exit(1);
	}
	return length;
}

static void tell(uint64_t whole, const uint32_t *each, size_t count) {
	if (fwrite(&whole, sizeof whole, 1, stdout) != 1 || fwrite(each, sizeof *each, count, stdout) != count)
		fail("stdout");
}

static void in_turn(size_t count, int fresh) {
	uint32_t *each = calloc(count, sizeof *each);
	int fd = fresh ? -1 : dial();
	uint64_t began = now(), at = began;
	for (size_t i = 0; i < count; i++) {
		if (fresh)
			fd = dial();
		ask(fd);
		hear(fd);
		if (fresh)
			close(fd);
		uint64_t then = now();
		each[i] = then - at;
		at = then;
	}
	tell(at - began, each, count);
}

static void many(size_t count, size_t connections) {
	uint32_t *each = calloc(count, sizeof *each);
	uint64_t *asked = calloc(connections, sizeof *asked);
	int *fds = calloc(connections, sizeof *fds);
	int poll = epoll_create1(EPOLL_CLOEXEC);
	for (size_t i = 0; i < connections; i++) {
		fds[i] = dial();
		// verified before the clock starts
		ask(fds[i]);
		hear(fds[i]);
		struct epoll_event event = {.events = EPOLLIN, .data.u64 = i};
		epoll_ctl(poll, EPOLL_CTL_ADD, fds[i], &event);
	}
	uint64_t began = now();
	size_t sent = 0, heard = 0;
	for (size_t i = 0; i < connections && sent < count; i++, sent++) {
		asked[i] = now();
		ask(fds[i]);
	}
	while (heard < count) {
		struct epoll_event events[64];
		int ready = epoll_wait(poll, events, 64, 30000);
		if (ready <= 0)
			fail("epoll_wait");
		for (int i = 0; i < ready; i++) {
			size_t which = events[i].data.u64;
			hear(fds[which]);
			uint64_t at = now();
			each[heard++] = at - asked[which];
			if (sent < count) {
				sent++;
				asked[which] = at;
				ask(fds[which]);
			}
		}
	}
	tell(now() - began, each, count);
}

static void idle(size_t count) {
	for (size_t i = 0; i < count; i++) {
		int fd = dial();
		ask(fd);
		hear(fd);
	}
	puts("ready");
	fflush(stdout);
	while (getchar() != EOF) {
	}
}

static void press(size_t seconds, int reads) {
	int fd = dial();
	uint64_t until = now() + seconds * 1000000000;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	size_t at = 0;
	while (now() < until) {
		ssize_t length = send(fd, request + at, request_length - at, MSG_NOSIGNAL);
		if (length > 0)
			at = (at + length) % request_length;
		ssize_t got = reads ? recv(fd, reply, sizeof reply, 0) : -1;
		if (length < 0 && errno != EAGAIN) {
			close(fd);
			fd = dial();
			fcntl(fd, F_SETFL, O_NONBLOCK);
			at = 0;
		} else if (length < 0 && got < 0) {
			usleep(reads ? 0 : 1000);
		}
	}
}

static void knock(size_t seconds) {
	uint64_t until = now() + seconds * 1000000000;
	while (now() < until) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
			send(fd, request, request_length, MSG_NOSIGNAL) > 0)
			(void)!recv(fd, reply, sizeof reply, 0);
		close(fd);
	}
}

int main(int count, char **words) {
	if (count < 4)
		return 2;
	address.sun_family = AF_UNIX;
	strncpy(address.sun_path, words[1], sizeof address.sun_path - 1);
	FILE *file = fopen(words[3], "r");
	if (!file)
		fail(words[3]);
	request_length = fread(request, 1, sizeof request, file);
	fclose(file);
	const char *how = words[2];
	size_t number = count > 4 ? strtoul(words[4], NULL, 10) : 0;
	if (!strcmp(how, "once")) {
		int fd = dial();
		ask(fd);
		fwrite(reply, 1, hear(fd), stdout);
	} else if (!strcmp(how, "held"))
		in_turn(number, 0);
	else if (!strcmp(how, "fresh"))
		in_turn(number, 1);
	else if (!strcmp(how, "many"))
		many(number, count > 5 ? strtoul(words[5], NULL, 10) : 1);
	else if (!strcmp(how, "idle"))
		idle(number);
	else if (!strcmp(how, "flood") || !strcmp(how, "deaf"))
		press(number, how[0] == 'f');
	else if (!strcmp(how, "knock"))
		knock(number);
	else
		return 2;
	return 0;
}
