/* Starts a program on what looks like an older kernel, or one that was built or booted with less:
 *
 *   older_kernel LACK... -- PROGRAM ARGS...
 *
 *   landlock        built without Landlock
 *   landlock-boot   not asked for at boot
 *   landlock=ABI    an older Landlock: only its number is told by another process, the rest is this kernel's
 *   seccomp         no filters
 *   mdwe            no PR_SET_MDWE
 *   memfd_secret    no secret memory
 *   memlock         no memory may be locked
 *   peerpidfd       no SO_PEERPIDFD
 *   passrights      no SO_PASSRIGHTS
 *
 * It is a filter of system calls as containers have it, and it gives no privilege: the program finds a real kernel
 * that refuses.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif
/* asm-generic/socket.h */
#define PEERPIDFD 77
#define PASSRIGHTS 83
#define SET_MDWE 65
#define GET_MDWE 66
/* in the flags of landlock_create_ruleset: tell the ABI */
#define VERSION 1

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)
#define FAIL(errno_) RETURN(SECCOMP_RET_ERRNO | (errno_))

static struct sock_filter filter[64];
static unsigned short length;

static void add(struct sock_filter step)
{
	filter[length++] = step;
}

/* The call `number`, where its argument at `at` is `value`, ends with `action`. */
static void rule(unsigned number, size_t at, unsigned value, unsigned action)
{
	add((struct sock_filter)LOAD(nr));
	add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 3));
	add((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)at));
	add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1));
	add((struct sock_filter)RETURN(action));
}

/* The call `number` fails with `error`. */
static void refuse(unsigned number, int error)
{
	add((struct sock_filter)LOAD(nr));
	add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1));
	add((struct sock_filter)FAIL((unsigned)error));
}

static int send_descriptor(int to, int descriptor)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	char x = 'x';
	struct iovec one = {&x, 1};
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &descriptor, sizeof(int));
	return sendmsg(to, &m, 0) == 1;
}

static int receive_descriptor(int from)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	char x;
	struct iovec one = {&x, 1};
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	int descriptor = -1;

	if (recvmsg(from, &m, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&m))
		memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	return descriptor;
}

/* Tells everyone under the filter this ABI, until nobody is. */
static void tell(int listener, int abi)
{
	struct seccomp_notif question;
	struct seccomp_notif_resp answer;
	struct pollfd asked = {.fd = listener, .events = POLLIN};

	while (poll(&asked, 1, -1) > 0 && (asked.revents & POLLIN)) {
		memset(&question, 0, sizeof question);
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &question) != 0)
			continue;
		memset(&answer, 0, sizeof answer);
		answer.id = question.id;
		answer.val = abi;
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
	}
}

/* A process that is nobody's child, without the filter, to be sent the filter's listener. */
static int teller(int abi)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		return -1;
	pid_t child = fork();
	if (child == 0) {
		if (fork() == 0) {
			close(pair[0]);
			tell(receive_descriptor(pair[1]), abi);
		}
		_exit(0);
	}
	waitpid(child, NULL, 0);
	close(pair[1]);
	return pair[0];
}

static int lack(const char *what)
{
	struct rlimit none = {0, 0};

	if (!strcmp(what, "landlock")) {
		refuse(SYS_landlock_create_ruleset, ENOSYS);
	} else if (!strcmp(what, "landlock-boot")) {
		refuse(SYS_landlock_create_ruleset, EOPNOTSUPP);
	} else if (!strncmp(what, "landlock=", 9)) {
		rule(SYS_landlock_create_ruleset, offsetof(struct seccomp_data, args[2]), VERSION, SECCOMP_RET_USER_NOTIF);
		return teller(atoi(what + 9));
	} else if (!strcmp(what, "seccomp")) {
		refuse(SYS_seccomp, ENOSYS);
		rule(SYS_prctl, offsetof(struct seccomp_data, args[0]), PR_SET_SECCOMP, SECCOMP_RET_ERRNO | EINVAL);
	} else if (!strcmp(what, "mdwe")) {
		rule(SYS_prctl, offsetof(struct seccomp_data, args[0]), SET_MDWE, SECCOMP_RET_ERRNO | EINVAL);
		rule(SYS_prctl, offsetof(struct seccomp_data, args[0]), GET_MDWE, SECCOMP_RET_ERRNO | EINVAL);
	} else if (!strcmp(what, "memfd_secret")) {
		refuse(SYS_memfd_secret, ENOSYS);
	} else if (!strcmp(what, "peerpidfd")) {
		rule(SYS_getsockopt, offsetof(struct seccomp_data, args[2]), PEERPIDFD, SECCOMP_RET_ERRNO | ENOPROTOOPT);
	} else if (!strcmp(what, "passrights")) {
		rule(SYS_setsockopt, offsetof(struct seccomp_data, args[2]), PASSRIGHTS, SECCOMP_RET_ERRNO | ENOPROTOOPT);
	} else if (!strcmp(what, "memlock")) {
		return setrlimit(RLIMIT_MEMLOCK, &none) == 0 ? 0 : -1;
	} else {
		return -1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	int at, to_teller = 0, listener;

	for (at = 1; at < argc && strcmp(argv[at], "--"); at++) {
		int told = lack(argv[at]);
		if (told < 0)
			return 2;
		to_teller = told ? told : to_teller;
	}
	if (at + 1 >= argc)
		return 2;
	add((struct sock_filter)RETURN(SECCOMP_RET_ALLOW));
	struct sock_fprog program = {.len = length, .filter = filter};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return 2;
	listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, to_teller ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0,
				&program);
	if (listener < 0 || (to_teller && !send_descriptor(to_teller, listener)))
		return 2;
	if (to_teller)
		close(listener);
	execv(argv[at + 1], argv + at + 1);
	return 2;
}
