/* A mount over the tool: in a mount namespace of its own another program lies at the tool's path, and
 * /proc/P/exe reads as that path.   bind_over SOCKET REQUEST TOOL EVIL */
#include "attack.h"

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	own_namespace(CLONE_NEWNS);
	if (mount(argv[4], argv[3], NULL, MS_BIND, NULL) != 0)
		die("bind");
	char *args[] = {argv[3], argv[1], argv[2], NULL};
	execv(argv[3], args);
	die("exec");
}
