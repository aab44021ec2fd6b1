// The floor: what the machine takes for the same bytes with nothing done between them. An event loop that answers each
// line with the bytes of a file.
//
//   floor SOCKET REPLY
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char line[1 << 20], reply[12 << 20];

static void watch(int poll, int fd) {
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
	if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) != 0)
		exit(1);
}

int main(int count, char **words) {
	if (count != 3)
		return 2;
	FILE *file = fopen(words[2], "r");
	if (!file)
		return 1;
	size_t length = fread(reply, 1, sizeof reply, file);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strncpy(address.sun_path, words[1], sizeof address.sun_path - 1);
	unlink(words[1]);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 1024) != 0)
		return 1;
	int poll = epoll_create1(EPOLL_CLOEXEC);
	watch(poll, listener);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event events[64];
		int ready = epoll_wait(poll, events, 64, -1);
		for (int i = 0; i < ready; i++) {
			int fd = events[i].data.fd;
			if (fd == listener) {
				int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
				if (peer >= 0)
					watch(poll, peer);
				continue;
			}
			ssize_t got = recv(fd, line, sizeof line, 0);
			if (got == 0)
				close(fd);
			else if (got > 0 && line[got - 1] == '\n' && send(fd, reply, length, MSG_NOSIGNAL) < 0)
				close(fd);
		}
	}
}
