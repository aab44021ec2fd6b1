/* The registered bytes without their place: runs a copy of TOOL from memory. `memfd TOOL` */
#include "attack.h"
#include <sys/sendfile.h>

extern char **environ;

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	int from = open(argv[1], O_RDONLY | O_CLOEXEC), to = memfd_create("tool", MFD_CLOEXEC);
	while (sendfile(to, from, NULL, 1 << 20) > 0)
		;
	fexecve(to, argv + 1, environ);
	die("fexecve");
}
