/* The real tool, but with an /etc/ld.so.preload that only its own mount namespace has.
 *
 * private_etc ETC TOOL: ETC is laid over /etc; the library it names asks (see steal.c)
 */
#include "attack.h"

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	own_namespace(CLONE_NEWNS);
	if (mount(argv[1], "/etc", NULL, MS_BIND, NULL) != 0)
		die("bind");
	char *args[] = {argv[2], NULL};
	execv(argv[2], args);
	die("exec");
}
