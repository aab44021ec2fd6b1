/* What the attackers share: dialling, asking, a user namespace of their own. */
#ifndef ATTACK_H
#define ATTACK_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

__attribute__((unused)) static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	_exit(7);
}

__attribute__((unused)) static void dial_on(int fd, const char *path)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};

	strncpy(at.sun_path, path, sizeof at.sun_path - 1);
	if (connect(fd, (struct sockaddr *)&at, sizeof at) != 0)
		die("connect");
}

__attribute__((unused)) static void tell(int fd, const char *request)
{
	/* a refusal may come first: then the answer says so */
	(void)!send(fd, request, strlen(request), MSG_NOSIGNAL);
	(void)!send(fd, "\n", 1, MSG_NOSIGNAL);
}

/* Copies what comes back within 5 s to `out`, up to the first whole line or the end. */
__attribute__((unused)) static void hear(int fd, int out)
{
	char bytes[4096];
	struct pollfd p = {.fd = fd, .events = POLLIN};

	while (poll(&p, 1, 5000) == 1) {
		ssize_t n = read(fd, bytes, sizeof bytes);
		if (n <= 0)
			return;
		(void)!write(out, bytes, (size_t)n);
		if (memchr(bytes, '\n', (size_t)n))
			return;
	}
}

__attribute__((unused)) static void put_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(path);
	close(fd);
}

/* Every unprivileged user can become root of a namespace of his own. Exit code 77: not on this machine. */
__attribute__((unused)) static void own_namespace(int further)
{
	char map[64];
	unsigned uid = getuid(), gid = getgid();

	if (unshare(CLONE_NEWUSER | further) != 0)
		_exit(77);
	snprintf(map, sizeof map, "0 %u 1", uid);
	put_file("/proc/self/uid_map", map);
	put_file("/proc/self/setgroups", "deny");
	snprintf(map, sizeof map, "0 %u 1", gid);
	put_file("/proc/self/gid_map", map);
	if ((further & CLONE_NEWNS) && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
		die("private mounts");
}
#endif
