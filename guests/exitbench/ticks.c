/* ticks PROGRAM [ARGUMENT...]: runs it with its output thrown away, and says how many ticks of the TSC that took. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

int main(int argc, char **argv) {
    int status = 1;
    if (argc < 2) {
        return 2;
    }
    unsigned long long before = __rdtsc();
    pid_t child = fork();
    if (child == 0) {
        int nowhere = open("/dev/null", O_WRONLY);
        dup2(nowhere, STDOUT_FILENO);
        dup2(nowhere, STDERR_FILENO);
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    waitpid(child, &status, 0);
    printf("ticks: %llu, status %d\n", __rdtsc() - before, status);
    return status != 0;
}
